"""Rollup moves what has been read since the last tick into a roll-up of its own.

It reads, moves and writes. No reading is in two roll-ups or in none, and no tick makes two roll-ups, although the
function may be killed at any line and read goes on meanwhile: the function is atomic.
"""

import app

KEPT = 600  # roll-ups; older ones go


def handle(tick):
    rollups = app.get("rollups", [])
    rollups.append({"tick": tick["data"]["time"], "meters": app.get("waiting", {})})
    rollups.sort(key=lambda rollup: rollup["tick"])  # ticks that were missed may overtake each other
    app.put({"rollups": rollups[-KEPT:], "waiting": {}})
    return {"rollups": len(rollups)}


if __name__ == "__main__":
    app.serve(handle)
