"""Stats adds a batch of flights to sums per origin airport, hour of day and band of distance.

It is ordinary code: it reads, adds and writes. Because the function is declared atomic, a crash at any line,
or two instances at the same airport, lose and double nothing.
"""

import json
from bisect import bisect_right

import app

BAND_EDGES = [250, 500, 1000, 2000]  # miles
DELAY_EDGES = [-10, 0, 15, 30, 60, 120]  # minutes


def handle(body):
    flights = parse(body)
    keys = ["airports"] + sorted({"airport/" + f["origin"] for f in flights})
    values = app.get_all(keys)
    airports = set(values.get("airports", []))
    changes = {}
    for flight in flights:
        key = "airport/" + flight["origin"]
        # Sums of an airport: "hour/band" -> flights, minutes of delay, then a histogram of delays.
        add(changes.setdefault(key, values.get(key, {})), flight)
    known = len(airports)
    airports.update(f["origin"] for f in flights)
    if len(airports) > known:
        changes["airports"] = sorted(airports)
    if changes:
        app.set_all(changes)
    return {"added": len(flights)}


def parse(body):
    """The flights of a request, all of them sound."""
    try:
        flights = json.loads(body)
        for f in flights:
            if len(f["date"]) < 13 or not f["origin"]:
                raise ValueError(f"flight without date or origin: {f}")
            int(f["delay"]), int(f["distance"])
    except (ValueError, TypeError, KeyError) as problem:
        raise app.BadRequest(f"not a list of flights: {problem!r}") from problem
    return flights


def add(sums, flight):
    band = bisect_right(BAND_EDGES, flight["distance"])
    row = sums.setdefault(f"{flight['date'][11:13]}/{band}", [0] * (2 + len(DELAY_EDGES) + 1))
    row[0] += 1
    row[1] += flight["delay"]
    row[2 + bisect_right(DELAY_EDGES, flight["delay"])] += 1


if __name__ == "__main__":
    app.serve(handle)
