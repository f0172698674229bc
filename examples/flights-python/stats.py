"""Stats adds flights, up to a hundred in a call, to sums per origin airport, hour of day and band of distance.

It is ordinary code: it reads, adds and writes. Because the function is declared atomic, that the events are done is part
of the same commit as the sums: a crash at any line, or two instances at the same airport, lose and double nothing.
"""

import json
from bisect import bisect_right

import app

BAND_EDGES = [250, 500, 1000, 2000]  # miles
DELAY_EDGES = [-10, 0, 15, 30, 60, 120]  # minutes


def handle(_, body):
    flights = [app.check(event["data"]) for event in json.loads(body)]
    changes = app.get_all(sorted({"airport/" + f["origin"] for f in flights}))
    added = {f["origin"] for f in flights if "airport/" + f["origin"] not in changes}
    for flight in flights:
        # Sums of an airport: "hour/band" -> flights, minutes of delay, then a histogram of delays.
        add(changes.setdefault("airport/" + flight["origin"], {}), flight)
    if added:
        known = app.get_all(["airports"]).get("airports", [])
        changes["airports"] = sorted(added.union(known))
    app.set_all(changes)
    return {"added": len(flights)}


def add(sums, flight):
    band = bisect_right(BAND_EDGES, flight["distance"])
    row = sums.setdefault(f"{flight['date'][11:13]}/{band}", [0] * (2 + len(DELAY_EDGES) + 1))
    row[0] += 1
    row[1] += flight["delay"]
    row[2 + bisect_right(DELAY_EDGES, flight["delay"])] += 1


if __name__ == "__main__":
    app.serve(handle)
