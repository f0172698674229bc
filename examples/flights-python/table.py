"""Table serves the sums that stats keeps, as one JSON object: airport -> "hour/band" -> row."""

import app


def handle(_):
    airports = app.get_all(["airports"]).get("airports", [])
    values = app.get_all(["airport/" + airport for airport in airports])
    return {key.removeprefix("airport/"): sums for key, sums in values.items()}


if __name__ == "__main__":
    app.serve(handle)
