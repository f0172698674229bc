"""Report serves the sums that stats keeps (airport -> "hour/band" -> row), and the newest summary of hourly."""

import app


def handle(path, _):
    if path == "/table":
        return app.read_all()
    return app.get_all(["summary"]).get("summary", {"written": 0, "flights": 0, "hours": {}})


if __name__ == "__main__":
    app.serve(handle)
