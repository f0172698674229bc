"""What the functions need: state and topics, through Dapr's HTTP API, and a server where the platform asks for it."""

import json
import os
import socketserver
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

DAPR = f"http://127.0.0.1:{os.environ.get('DAPR_HTTP_PORT')}/v1.0"


def get_all(keys):
    """Read many keys in one request. A key without a value is not in the answer."""
    items = send("/state/shared/bulk", {"keys": keys})
    return {item["key"]: item["data"] for item in items if item.get("data") is not None}


def set_all(changes):
    """Write many keys in one request."""
    send("/state/shared", [{"key": key, "value": value} for key, value in changes.items()])


def publish(topic, values):
    """Publish many values in one request, each as an event."""
    events = [
        {"entryId": str(i), "contentType": "application/json", "event": value}
        for i, value in enumerate(values)
    ]
    send("/publish/bulk/pubsub/" + topic, events)


def read_all():
    """The sums of all airports, by airport."""
    airports = get_all(["airports"]).get("airports", [])
    values = get_all(["airport/" + airport for airport in airports])
    return {key.removeprefix("airport/"): sums for key, sums in values.items()}


def check(flight):
    """The flight, if it is one; else this raises."""
    if len(flight["date"]) < 13 or not flight["origin"]:
        raise ValueError(f"flight without date or origin: {flight}")
    int(flight["delay"]), int(flight["distance"])
    return flight


def send(path, body):
    headers = {
        "Content-Type": "application/json",
        "dapr-api-token": os.environ.get("DAPR_API_TOKEN", ""),
    }
    request = urllib.request.Request(DAPR + path, json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request) as reply:  # a status of 400 or above raises
        return json.loads(reply.read() or "null")


class UnixServer(socketserver.UnixStreamServer):
    request_queue_size = 128


def serve(handle):
    """Answer each request with what handle makes of its path and body. There is one thread: the platform sends one
    call at a time to an instance, and starts more instances when it needs them."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                status, answer = 200, handle(self.path, body)
            except (ValueError, TypeError, KeyError) as problem:  # not what the function takes
                status, answer = 400, {"error": repr(problem)}
            except OSError as problem:  # of the platform; 400 and above commits nothing
                print(f"platform: {problem}", file=sys.stderr, flush=True)
                status, answer = 500, {"error": str(problem)}
            self.answer(status, json.dumps(answer).encode() + b"\n")

        do_GET = do_POST

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self):
            return "platform"  # a Unix socket has no address

        def log_message(self, *args):
            pass  # the platform remembers the calls

    if os.environ.get("QUIPU_SOCKET"):
        server = UnixServer(os.environ["QUIPU_SOCKET"], Handler)
    else:
        server = HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    server.serve_forever()
