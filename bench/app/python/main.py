"""Answers every request with one line: http.server as it comes, with answers in one piece."""

import os
import socketserver
from http.server import BaseHTTPRequestHandler


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    wbufsize = -1  # head and body leave together

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"hello\n")

    def log_message(self, *_):
        pass


class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 128
    daemon_threads = True


class TCP(socketserver.ThreadingMixIn, socketserver.TCPServer):
    request_queue_size = 128
    daemon_threads = True
    allow_reuse_address = True


path = os.environ.get("QUIPU_SOCKET")
server = Unix(path, Hello) if path else TCP(("127.0.0.1", int(os.environ["PORT"])), Hello)
server.serve_forever()
