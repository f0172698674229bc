import json
import os
import socketserver
import urllib.request
from http.server import BaseHTTPRequestHandler


def dapr(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "dapr-api-token": os.environ["DAPR_API_TOKEN"]}
    url = f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0" + path
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as reply:
        return json.loads(reply.read() or "null")


def serve(handle):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            status, text = handle(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def address_string(self):
            return "platform"

        def log_message(self, *args):
            pass

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    Server(os.environ["QUIPU_SOCKET"], Handler).serve_forever()
