import json
import os
import socketserver
import urllib.request
from http.server import BaseHTTPRequestHandler

DAPR = f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0"


def dapr(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "dapr-api-token": os.environ["DAPR_API_TOKEN"]}
    with urllib.request.urlopen(urllib.request.Request(DAPR + path, data, headers, method=method)) as reply:
        return json.loads(reply.read() or "null")


class Transfer(BaseHTTPRequestHandler):
    def do_POST(self):
        amount = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["amount"]
        a = (dapr("GET", "/state/shared/ana") or 100) - amount
        b = (dapr("GET", "/state/shared/bob") or 0) + amount
        dapr("POST", "/state/shared", [{"key": "ana", "value": a}])
        dapr("POST", "/state/shared", [{"key": "bob", "value": b}])
        dapr("POST", "/publish/pubsub/paid", {"amount": amount, "left": a})
        text = json.dumps({"ana": a, "bob": b}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def address_string(self):
        return "platform"

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


Server(os.environ["QUIPU_SOCKET"], Transfer).serve_forever()
