"""Step is for durable functions in Python: functions with "durable: true" in quipu.yaml, whose calls have a journal.

    import step

    def order(call):
        wanted = call.json()
        receipt = call.step("charge", lambda: charge(wanted, key=call.key()), attempts=3)
        call.sleep(86400)                          # nothing runs meanwhile
        answer = call.wait_event("approved", timeout=3600)
        return {"receipt": receipt, "answer": answer}

    step.serve(order)

A step's result is recorded once. When the function runs again, after a crash or a wait, it gets what was recorded: so all
between steps must do the same each time, which leaves no room for the time, chance and the world outside. A step that was
under way in a crash is done again; call.key() before it is the same then. Results are what JSON can say.

One file, standard library only. docs/reference/steps.md of Quipu has the protocol.
"""

import http.client
import json
import os
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JOURNAL = "/v1.0-quipu/journal"
SHORT_WAIT_MS = 500  # that a run waits itself, before it ends to be called again
ATTEMPTS_TO_SEND = 3


class StepError(Exception):
    """How a step or a call failed, as it was recorded."""

    def __init__(self, message, type=""):
        super().__init__(message)
        self.type = type


class Final(Exception):
    """Raised by a step that is not worth another attempt."""


class Refusal(Exception):
    """Raised by a function, its last word: the execution fails, and its caller gets the status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Stop(BaseException):
    """The end of a run that waits, or is not the newest any more. It is no Exception: no function could handle it."""

    def __init__(self, places=()):
        super().__init__("the run has ended to wait")
        self.places = list(places)


class Broken(BaseException):
    """What a run cannot go on after; it is made again."""


class Call:
    """One run of an execution, or one branch of it. It belongs to one thread."""

    def __init__(self, headers, body, _of=None, _prefix=""):
        self.headers, self.body = headers, body
        self._prefix, self._next = _prefix, 0
        if _of is not None:
            self.id, self._run, self._journal = _of.id, _of._run, _of._journal
            return
        self.id = headers.get("Quipu-Execution", "")
        self._run = headers.get("Quipu-Run", "")
        if not self._run:
            raise RuntimeError("this is no call of a durable function: does quipu.yaml say durable: true?")
        self._journal = {}
        if headers.get("Quipu-Journal", "0") != "0":
            self._read()

    def json(self):
        """The body of the request, which is JSON."""
        try:
            return json.loads(self.body)
        except ValueError as problem:
            raise Refusal(400, str(problem)) from None

    def key(self):
        """Names what the next step does outside, the same in each run: for who can leave out doubles by it."""
        return f"{self.id}/{self._prefix}{self._next}"

    def step(self, name, do, attempts=1, backoff=0.1):
        """Do what lies outside, once. What it raises is recorded after that many attempts, and raised as a StepError."""
        return self._do(name, do, attempts, backoff, True)

    def sleep(self, seconds):
        """Go on after a while, whatever is restarted meanwhile."""
        self._begin({"id": self._place(), "kind": "sleep", "ms": int(seconds * 1000)})

    def wait_event(self, name, timeout=None):
        """The data of an event that somebody raises for this execution, also if that was before. Raises TimeoutError."""
        entry = {"id": self._place(), "kind": "event", "name": name}
        if timeout is not None:
            entry["ms"] = int(timeout * 1000)
        there = self._begin(entry)
        if there.get("timeout"):
            raise TimeoutError(f"no event {name} came in time")
        return _result(there)

    def invoke(self, function, value=None, path="/"):
        """Call another function with POST: a durable one as an execution of its own, an atomic one exactly once."""
        return _result(self._begin({"id": self._place(), "kind": "call", "name": function, "path": path, "input": value}))

    def parallel(self, *branches):
        """Run functions side by side, at most 1,000; each gets a Call of its own. Returns what they return, or raises the first error
        when all are over. The run ends when all that is left waits."""
        place = self._place()
        results, problems = [None] * len(branches), [None] * len(branches)

        def run(n, branch):
            try:
                results[n] = branch(Call(self.headers, self.body, self, f"{place}/{n}/"))
            except BaseException as problem:
                problems[n] = problem

        threads = [threading.Thread(target=run, args=pair) for pair in enumerate(branches)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stops = [p for p in problems if isinstance(p, Stop)]
        for problem in problems:
            if isinstance(problem, BaseException) and not isinstance(problem, (Exception, Stop)):
                raise problem
        if any(not s.places for s in stops):
            raise Stop()
        if stops:
            raise Stop(place for s in stops for place in s.places)
        for problem in problems:
            if problem is not None:
                raise problem
        return results

    def saga(self):
        return Saga(self)

    def _place(self):
        place = f"{self._prefix}{self._next}"
        self._next += 1
        return place

    def _do(self, name, do, attempts, backoff, keep):
        entry = {"id": self._place(), "kind": "step", "name": name}
        known = self._known(entry)
        if known:
            return _result(known)
        try:
            entry["result"] = _tried(do, attempts, backoff)
        except Exception as problem:
            if not keep:
                raise Broken(f"{name}: {problem}") from problem
            entry["error"] = {"type": getattr(problem, "type", "") or type(problem).__name__, "message": str(problem)}
        return _result(self._append(entry) or json.loads(json.dumps(entry)))

    def _known(self, entry):
        known = self._journal.get(entry["id"])
        if known and (known["kind"], known.get("name", "")) != (entry["kind"], entry.get("name", "")):
            return self._append(entry)  # which the platform refuses
        return known

    def _begin(self, entry):
        there = self._known(entry) or self._append(entry)
        if not there["done"]:
            there = self._ask("GET", f"{JOURNAL}/wait?id={entry['id']}&ms={SHORT_WAIT_MS}")
        if not there["done"]:
            raise Stop([entry["id"]])
        return there

    def _append(self, entry):
        return self._ask("POST", JOURNAL, json.dumps(entry).encode())

    def _read(self):
        start = 0
        while True:
            page = self._ask("GET", f"{JOURNAL}?from={start}")
            for entry in page["entries"] or []:
                self._journal[entry["id"]] = entry
            start = page.get("next")
            if not start:
                return

    def _ask(self, method, path, body=None):
        status, headers, text = _send(method, path, body, self._run)
        if headers.get("Quipu-Suspended"):
            raise Stop()
        if status in (200, 204):
            return json.loads(text) if text else None
        if b'"Q0822"' in text:  # another run goes on
            raise Stop()
        raise Broken(f"the journal answers {status}: {text[:500].decode(errors='replace')}")


class Saga:
    """Remembers how to undo what was done."""

    def __init__(self, call):
        self._call, self._undo = call, []

    def on_undo(self, name, undo):
        """Add what undoes the step before."""
        self._undo.append((name, undo))

    def undo(self, attempts=1, backoff=0.1):
        """Undo what was done, the last first, each as a step. What cannot be undone is no result: the run fails, and is made again."""
        while self._undo:
            name, undo = self._undo.pop()
            self._call._do(name, undo, attempts, backoff, False)


def _tried(do, attempts, backoff):
    for attempt in range(1, attempts + 1):
        try:
            return do()
        except Final:
            raise
        except Exception:
            if attempt == attempts:
                raise
            time.sleep(backoff * 2 ** (attempt - 1))


def _result(entry):
    if entry.get("error"):
        raise StepError(entry["error"]["message"], entry["error"].get("type", ""))
    return entry.get("result")


_connections = threading.local()


def _send(method, path, body, run):
    """Ask the node. An entry may be sent twice: it is in the journal once."""
    headers = {"Quipu-Run": run, "dapr-api-token": os.environ.get("DAPR_API_TOKEN", ""), "Content-Type": "application/json"}
    for attempt in range(1, ATTEMPTS_TO_SEND + 1):
        connection = getattr(_connections, "open", None)
        if connection is None:
            connection = _connections.open = http.client.HTTPConnection("127.0.0.1", int(os.environ["DAPR_HTTP_PORT"]))
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            _connections.open = None
            if attempt == ATTEMPTS_TO_SEND:
                raise Broken(f"the node does not answer: {problem}") from problem


def handle(headers, body, function):
    """Make one run: status, headers and body of the reply. For those who have a server already."""
    try:
        value = function(Call(headers, body))
    except Stop as stop:
        return 202, {"Quipu-Suspended": ",".join(stop.places) or "-"}, b""
    except Refusal as refusal:
        return refusal.status, {"Content-Type": "text/plain; charset=utf-8"}, str(refusal).encode()
    except (Exception, Broken) as problem:
        return 500, {"Content-Type": "text/plain; charset=utf-8"}, f"{type(problem).__name__}: {problem}".encode()
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads, request_queue_size = True, 128


def serve(function):
    """Serve calls of a durable function where the platform expects them."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body leave together

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, answer = handle(self.headers, body, function)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            self.wfile.flush()

        do_GET = do_PUT = do_DELETE = do_PATCH = do_POST

        def address_string(self):
            return "platform"

        def log_message(self, *args):
            pass

    if os.environ.get("QUIPU_SOCKET"):
        server = _UnixServer(os.environ["QUIPU_SOCKET"], Handler)
    else:
        server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    server.serve_forever()
