"""Report shows the roll-ups, the oldest first: when, and of each meter how many readings and their sum."""

import app


def handle(_):
    return app.get("rollups", [])


if __name__ == "__main__":
    app.serve(handle)
