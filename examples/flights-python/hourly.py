"""Hourly sums the airports up by hour of the day.

Stats goes on meanwhile, and yet all airports are as they were at one moment: an atomic call reads at one place of the
log, and runs again if that changed before it commits.
"""

import json
from collections import Counter, defaultdict

import app


def handle(_, body):
    tick = json.loads(body)["data"]["time"]  # the time that the schedule called for
    last = app.get_all(["summary"]).get("summary", {"written": 0})
    summary = {"tick": tick, "written": last["written"] + 1, **sum_up(app.read_all())}
    app.set_all({"summary": summary})
    return summary


def sum_up(sums):
    flights, minutes = defaultdict(Counter), Counter()  # by hour
    for airport, cells in sums.items():
        for cell, row in cells.items():
            flights[cell[:2]][airport] += row[0]
            minutes[cell[:2]] += row[1]
    hours = {
        hour: {
            "flights": sum(of.values()),
            "minutes": minutes[hour],
            "busiest": min(of, key=lambda airport: (-of[airport], airport)),
        }
        for hour, of in flights.items()
    }
    return {"flights": sum(h["flights"] for h in hours.values()), "hours": hours}


if __name__ == "__main__":
    app.serve(handle)
