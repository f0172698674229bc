"""An application for Dapr in nothing but the standard library: Dapr's API over plain HTTP, every building block.

It runs under quipu run, listens on APP_PORT, and prints "ok" last, or fails.
"""

import http.server
import json
import os
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

APP = os.environ["APP_ID"]
DAPR = "http://127.0.0.1:" + os.environ["DAPR_HTTP_PORT"]
WAIT = 30  # seconds for what comes by itself

came = {name: queue.Queue() for name in ("/orders", "/bulk", "/queue", "/tick", "/configuration")}


class Application(http.server.BaseHTTPRequestHandler):
    """What the node asks of the application, and brings to it."""

    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_OPTIONS(self):  # does it take an input binding?
        self.answer(200 if self.path in came else 404)

    def do_GET(self):
        if self.path != "/dapr/subscribe":
            return self.answer(404)
        self.answer(200, json.dumps([
            {"pubsubname": "events", "topic": "orders", "route": "/orders"},
            {"pubsubname": "events", "topic": "many", "route": "/bulk", "bulkSubscribe": {"enabled": True, "maxMessagesCount": 10}},
        ]).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/hello"):
            return self.answer(201, b"hello " + body, "text/plain")
        where = "/configuration" if self.path.startswith("/configuration/") else self.path
        if where not in came:
            return self.answer(404)
        event = json.loads(body) if body else None
        came[where].put(event)
        if where == "/bulk":
            return self.answer(200, json.dumps({"statuses": [{"entryId": e["entryId"], "status": "SUCCESS"} for e in event["entries"]]}).encode())
        self.answer(200)

    def log_message(self, *args):
        pass


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def dapr(method, path, body=None, headers=None):
    """Asks Dapr's API. A body is JSON unless it is bytes."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    request = urllib.request.Request(DAPR + path, data=body, method=method, headers={
        "dapr-api-token": os.environ["DAPR_API_TOKEN"], "Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as reply:
            return Answer(reply.status, reply.headers, reply.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return Answer(refused.status, refused.headers, refused.read())


def expect(status, answer):
    assert answer.status == status, (answer.status, answer.body)
    return answer


def refused(status, code, answer):
    got = expect(status, answer).json()["errorCode"]
    assert got == code, got


def health():
    """Waits until the node has heard the application."""
    end = time.monotonic() + WAIT
    while dapr("GET", "/v1.0/healthz").status != 204:
        assert time.monotonic() < end, "the node is not ready"
        time.sleep(0.1)
    expect(204, dapr("GET", "/v1.0/healthz/outbound"))


def state():
    items = [{"key": "py-1", "value": {"city": "Lima"}}, {"key": "py-2", "value": {"city": "Cusco"}}]
    expect(204, dapr("POST", "/v1.0/state/orders", items))
    got = expect(200, dapr("GET", "/v1.0/state/orders/py-1"))
    assert got.json() == {"city": "Lima"}
    expect(204, dapr("POST", "/v1.0/state/orders", [{**items[0], "etag": got.headers["ETag"]}]))
    refused(409, "ERR_STATE_SAVE", dapr("POST", "/v1.0/state/orders", [{**items[0], "etag": got.headers["ETag"]}]))
    both = expect(200, dapr("POST", "/v1.0/state/orders/bulk", {"keys": ["py-1", "py-2"]})).json()
    assert sorted(one["data"]["city"] for one in both) == ["Cusco", "Lima"]
    expect(204, dapr("POST", "/v1.0/state/orders/transaction", {"operations": [
        {"operation": "upsert", "request": {"key": "py-3", "value": {"city": "Lima"}}},
        {"operation": "delete", "request": {"key": "py-2"}}]}))
    expect(204, dapr("GET", "/v1.0/state/orders/py-2"))
    found = expect(200, dapr("POST", "/v1.0-alpha1/state/orders/query", {"filter": {"EQ": {"city": "Lima"}}})).json()
    assert [one["key"] for one in found["results"]] == ["py-1", "py-3"]
    assert expect(200, dapr("GET", "/v1.0-alpha1/state/orders/keys?prefix=py-")).json()["keys"] == ["py-1", "py-3"]
    assert expect(200, dapr("DELETE", "/v1.0-alpha1/state/orders/keys?prefix=py-")).json()["deleted"] == 2
    refused(400, "ERR_STATE_STORE_NOT_FOUND", dapr("GET", "/v1.0/state/none/py-1"))


def until(send, where, right):
    """Sends until the application has what is right."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if send:
            send()
        try:
            while True:
                if right(came[where].get(timeout=0.5)):
                    return
        except queue.Empty:
            pass
    raise AssertionError("nothing came to " + where)


def publish():
    until(lambda: expect(204, dapr("POST", "/v1.0/publish/events/orders", {"n": 1})), "/orders",
          lambda e: e["data"] == {"n": 1} and e["type"] == "com.dapr.event.sent" and e["source"] == APP)
    many = [{"entryId": str(n), "event": "text %d" % n, "contentType": "text/plain"} for n in range(3)]
    seen = set()

    def all_of_them(bulk):
        seen.update(e["event"]["data"] for e in bulk["entries"])
        return len(seen) == 3

    until(lambda: expect(204, dapr("POST", "/v1.0/publish/bulk/events/many", many)), "/bulk", all_of_them)
    refused(404, "ERR_PUBSUB_NOT_FOUND", dapr("POST", "/v1.0/publish/none/orders", {}))


def invoke():
    got = expect(201, dapr("POST", "/v1.0/invoke/%s/method/hello?loud=1" % APP, b"world"))
    assert got.body == b"hello world" and got.headers["Content-Type"] == "text/plain", got.body
    assert expect(201, dapr("POST", "/hello", b"again", {"dapr-app-id": APP})).body == b"hello again"


def bindings():
    def ask(operation, data=None):
        return dapr("POST", "/v1.0/bindings/files", {"operation": operation, "data": data, "metadata": {"fileName": "py/report.txt"}})

    expect(200, ask("create", "42 sold"))
    assert expect(200, ask("get")).body == b"42 sold"
    expect(204, ask("delete"))
    refused(500, "ERR_INVOKE_OUTPUT_BINDING", ask("burn"))
    until(lambda: expect(204, dapr("POST", "/v1.0/bindings/queue", {"operation": "create", "data": {"order": 1}})), "/queue",
          lambda order: order == {"order": 1})
    until(None, "/tick", lambda _: True)


def write(key, value):
    """Changes configuration, which Dapr's API only reads."""
    request = urllib.request.Request(os.environ["QUIPU_NODE"] + "/-/v1/state/configuration:settings/" + key, data=value.encode(), method="PUT")
    urllib.request.urlopen(request, timeout=WAIT).close()


def configuration():
    write("py-color", "red")
    got = expect(200, dapr("GET", "/v1.0/configuration/settings?key=py-color")).json()
    assert got["py-color"]["value"] == "red", got
    subscription = expect(200, dapr("GET", "/v1.0/configuration/settings/subscribe?key=py-color")).json()["id"]
    write("py-color", "blue")
    until(None, "/configuration", lambda e: e["id"] == subscription and e["items"]["py-color"]["value"] == "blue")
    assert expect(200, dapr("GET", "/v1.0/configuration/settings/%s/unsubscribe" % subscription)).json()["ok"]


def lock():
    def ask(verb, owner, **more):
        return expect(200, dapr("POST", "/v1.0-alpha1/" + verb, {"resourceId": "py-till", "lockOwner": owner, **more})).json()

    first = ask("lock/locks", "ada", expiryInSeconds=60)
    assert first["success"]
    assert not ask("lock/locks", "eve", expiryInSeconds=60)["success"]
    assert ask("lock/locks/renew", "ada", expiryInSeconds=60)["status"] == 0
    assert [ask("unlock/locks", owner)["status"] for owner in ("eve", "ada", "ada")] == [2, 0, 1]
    assert int(ask("lock/locks", "eve", expiryInSeconds=60)["fencingToken"]) > int(first["fencingToken"])
    ask("unlock/locks", "eve")


def secrets():
    assert expect(200, dapr("GET", "/v1.0/secrets/vault/db:password")).json() == {"db:password": "lovelace"}
    assert expect(200, dapr("GET", "/v1.0/secrets/vault/bulk")).json()["db:user"] == {"db:user": "ada"}


def crypto():
    plain = b"the same again. " * 20_000
    sealed = expect(200, dapr("PUT", "/v1.0-alpha1/crypto/keys/encrypt", plain, {
        "Content-Type": "application/octet-stream", "dapr-key-name": "rsa.pem", "dapr-key-wrap-algorithm": "RSA"})).body
    assert b"the same again" not in sealed
    opened = expect(200, dapr("PUT", "/v1.0-alpha1/crypto/keys/decrypt", sealed, {"Content-Type": "application/octet-stream"})).body
    assert opened == plain


def conversation():
    got = expect(200, dapr("POST", "/v1.0-alpha2/conversation/model/converse", {
        "inputs": [{"messages": [{"ofUser": {"content": [{"text": "is it open?"}]}}]}]})).json()
    assert got["outputs"][0]["choices"][0]["message"]["content"] == "is it open?", got


def metadata():
    expect(204, dapr("PUT", "/v1.0/metadata/shift", b"night", {"Content-Type": "text/plain"}))
    told = expect(200, dapr("GET", "/v1.0/metadata")).json()
    assert told["id"] == APP and told["extended"]["shift"] == "night", told
    kinds = {c["name"]: c["type"] for c in told["components"]}
    assert kinds["orders"] == "state.redis" and kinds["model"] == "conversation.echo", kinds


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["APP_PORT"])), Application)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for step in (health, state, publish, invoke, bindings, configuration, lock, secrets, crypto, conversation, metadata):
        step()
        print(step.__name__, flush=True)
    print("ok")


main()
