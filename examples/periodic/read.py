"""Read takes the reading of a meter and adds it to what the next roll-up will take."""

import app


def handle(reading):
    meter, value = str(reading["meter"]), int(reading["value"])
    waiting = app.get("waiting", {})
    count, total = waiting.get(meter, [0, 0])
    waiting[meter] = [count + 1, total + value]
    app.put({"waiting": waiting})
    return {"waiting": waiting[meter][0]}


if __name__ == "__main__":
    app.serve(handle)
