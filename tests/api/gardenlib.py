"""A small Garden client on raw sockets: it parses HTTP by hand, so that the tests see exactly
what the server sent, and how it ended each connection."""
import json as jsonlib
import socket
import struct
import threading
import time
from typing import NamedTuple
from urllib.parse import quote, urlencode

GUARD = 60  # seconds until a wait is called a hang


class Reply(NamedTuple):
    status: int
    headers: dict  # names in lower case; repeated names are joined with ", "
    body: bytes
    trailers: dict = {}

    @property
    def json(self):
        return jsonlib.loads(self.body)


class Hijacked(Exception):
    """The server refused a run, an attach or a stream; .reply says how."""

    def __init__(self, reply):
        super().__init__(f"{reply.status} {reply.body!r}")
        self.reply = reply


class Connection:
    """One connection, read through a buffer; .ended is None, "FIN" or "RST"."""

    def __init__(self, address, timeout=GUARD, accepted=None):
        family = socket.AF_INET if accepted or isinstance(address, tuple) else socket.AF_UNIX
        self.sock = accepted or socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        if not accepted:
            self.sock.connect(address)
        if family == socket.AF_INET:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.ended = None
        self.reader = None
        self.is_left = False

    def read_by(self, work, *args):
        """Read it in a thread of its own from now on."""
        self.reader = threading.Thread(target=work, args=args, daemon=True)
        self.reader.start()

    def send(self, data):
        self.sock.sendall(data)

    def fill(self):
        """Read once; False when the connection has ended."""
        if self.ended or self.is_left:
            return False
        try:
            data = self.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            self.ended = "RST"
            return False
        if not data:
            self.ended = "FIN"
            return False
        self.buffer += data
        return True

    def take(self, n):
        while len(self.buffer) < n:
            if not self.fill():
                raise EOFError(f"{self.ended} after {self.buffer!r}, {n} bytes expected")
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def take_until(self, mark):
        while mark not in self.buffer:
            if not self.fill():
                raise EOFError(f"{self.ended} after {self.buffer!r}, {mark!r} expected")
        data, self.buffer = self.buffer.split(mark, 1)
        return data

    def rest(self):
        while self.fill():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def head(self):
        """The status and the headers of the next reply; interim replies are skipped."""
        lines = self.take_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ")[:2]
        assert version == "HTTP/1.1", lines[0]
        if status == "100":
            return self.head()
        return int(status), parse_fields(lines[1:])

    def reply(self, method="GET"):
        status, headers = self.head()
        trailers = {}
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body, trailers = self.chunked()
        elif "content-length" in headers:
            body = self.take(int(headers["content-length"]))
        else:
            body = self.rest()
        return Reply(status, headers, body, trailers)

    def next_chunk(self):
        """The next chunk of a chunked body; empty for the last, behind which trailers may follow."""
        size = int(self.take_until(b"\r\n").split(b";")[0], 16)
        if size == 0:
            return b""
        data = self.take(size)
        assert self.take(2) == b"\r\n", "a chunk does not end with CR LF"
        return data

    def trailers(self):
        lines = []
        while line := self.take_until(b"\r\n"):
            lines.append(line.decode("latin-1"))
        return parse_fields(lines)

    def chunked(self):
        chunks = []
        while chunk := self.next_chunk():
            chunks.append(chunk)
        return b"".join(chunks), self.trailers()

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def _leave(self, how):
        """A thread that still reads holds the socket open, and might even read the next one of the same number."""
        self.is_left = True
        try:
            self.sock.shutdown(how)
        except OSError:
            pass
        if self.reader not in (None, threading.current_thread()):
            self.reader.join(GUARD)
        self.sock.close()

    def close(self):
        self._leave(socket.SHUT_RDWR)

    def reset(self):
        """Vanish: the peer gets a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._leave(socket.SHUT_RD)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def parse_fields(lines):
    fields = {}
    for line in lines:
        name, value = line.split(":", 1)
        name, value = name.strip().lower(), value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def wait_until(condition, what, timeout=GUARD):
    """Poll with growing pauses, for what announces itself by no event."""
    deadline, pause = time.monotonic() + timeout, 0.002
    while not (result := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
    return result


def head_bytes(method, path, headers):
    lines = [f"{method} {path} HTTP/1.1"] + [f"{k}: {v}" for k, v in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def request_bytes(method, path, json=None, body=None, headers=None):
    """A whole request as the bytes that go on the wire."""
    if json is not None:
        body = jsonlib.dumps(json).encode()
    fields = {"Host": "api"}
    if body is not None:
        fields["Content-Type"] = "application/json"
        fields["Content-Length"] = len(body)
    fields.update(headers or {})
    return head_bytes(method, path, fields) + (body or b"")


class HttpClient:
    def __init__(self, address):
        self.address = address

    def connect(self, timeout=GUARD):
        return Connection(self.address, timeout)

    def request(self, method, path, json=None, body=None, headers=None, timeout=GUARD):
        headers = {"Connection": "close", **(headers or {})}
        with self.connect(timeout) as conn:
            try:
                conn.send(request_bytes(method, path, json, body, headers))
            except (ConnectionResetError, BrokenPipeError):
                pass  # an early answer may still be there to read
            reply = conn.reply(method)
            assert conn.rest() == b"" and conn.ended == "FIN", f"ended by {conn.ended}"
            return reply

    def raw(self, data, timeout=GUARD, half_close=False):
        """Send bytes as they are; everything that came back, and how the connection ended."""
        with self.connect(timeout) as conn:
            try:
                conn.send(data)
                if half_close:
                    conn.half_close()
            except (ConnectionResetError, BrokenPipeError):
                pass
            return conn.rest(), conn.ended

    def ok(self, method, path, json=None, **more):
        reply = self.request(method, path, json, **more)
        assert reply.status == 200, f"{method} {path}: {reply.status} {reply.body!r}"
        return reply.json


class Client(HttpClient):
    """Containers and their processes, as Garden's routes have them."""

    # Containers.
    def create(self, handle=None, **spec):
        if handle is not None:
            spec["handle"] = handle
        return self.ok("POST", "/containers", spec)["Handle"]

    def destroy(self, handle):
        return self.ok("DELETE", f"/containers/{quote(handle, safe='')}")

    def handles(self, query=""):
        return self.ok("GET", "/containers" + (f"?{query}" if query else ""))["Handles"]

    def info(self, handle):
        return self.ok("GET", f"/containers/{quote(handle, safe='')}/info")

    def stop(self, handle, kill=False):
        return self.ok("PUT", f"/containers/{handle}/stop", {"kill": kill})

    # Files.
    def files_path(self, handle, **query):
        return f"/containers/{handle}/files?{urlencode(query)}"

    def stream_in(self, handle, archive, destination="/", user="root"):
        path = self.files_path(handle, user=user, destination=destination)
        return self.request("PUT", path, body=archive, headers={"Content-Type": "application/x-tar"})

    def stream_out(self, handle, source, user="root"):
        return self.request("GET", self.files_path(handle, user=user, source=source))

    # Processes.
    def run(self, handle, spec, streams=("stdout", "stderr")):
        return Process(self, handle, "POST", f"/containers/{handle}/processes", spec, streams)

    def attach(self, handle, pid, streams=("stdout", "stderr")):
        path = f"/containers/{handle}/processes/{quote(pid, safe='')}"
        return Process(self, handle, "GET", path, None, streams)

    def run_refused(self, handle, spec):
        """The error reply of a run that must fail."""
        try:
            process = self.run(handle, spec)
        except Hijacked as refusal:
            return refusal.reply
        process.wait()
        raise AssertionError(f"the run was accepted: {process.stdout!r} {process.stderr!r}")

    def sh(self, handle, script, **spec):
        """Run a shell script without input: exit status, stdout, stderr."""
        return self.program(handle, "/bin/sh", ["-c", script], **spec)

    def program(self, handle, path, args=(), **spec):
        process = self.run(handle, {"path": path, "args": list(args), **spec})
        process.end_stdin()
        return process.wait(), process.stdout, process.stderr

    def output(self, handle, script, **spec):
        """The output of a shell script that must succeed, as text."""
        status, out, err = self.sh(handle, script, **spec)
        assert status == 0, f"{script}: {status} {out!r} {err!r}"
        return out.decode()

    def exec(self, handle, spec, query=""):
        return self.request("POST", f"/containers/{handle}/exec{query}", spec)


class Process:
    """A process with its control connection and, each read by a thread, its output streams."""

    def __init__(self, client, handle, method, path, spec, streams):
        self.client, self.handle = client, handle
        self.control = client.connect()
        self.control.send(request_bytes(method, path, spec))
        self.status_line, self.headers = self.control.head()
        if self.status_line not in (200, 201):
            body = self.control.take(int(self.headers["content-length"]))
            self.control.close()
            raise Hijacked(Reply(self.status_line, self.headers, body))
        first = jsonlib.loads(self.control.take_until(b"\n"))
        self.id, self.stream_id = first["process_id"], first["stream_id"]
        self.messages = [first]
        self.changed = threading.Condition()
        self.data = {}
        self.ends = {}
        self.connections = {}
        self.control.read_by(self._read_control)
        for name in streams:
            self.open(name)

    def open(self, name):
        """Open a connection to an output stream."""
        conn = self.client.connect()
        conn.send(request_bytes("GET", self.stream_path(name)))
        status, headers = conn.head()
        if status != 200:
            raise Hijacked(Reply(status, headers, conn.rest()))
        self.data[name] = bytearray()
        self.connections[name] = conn
        conn.read_by(self._read_stream, name, conn)

    def stream_path(self, name):
        return (f"/containers/{self.handle}/processes/{quote(self.id, safe='')}"
                f"/attaches/{self.stream_id}/{name}")

    def _read_control(self):
        try:
            while True:
                message = jsonlib.loads(self.control.take_until(b"\n"))
                with self.changed:
                    self.messages.append(message)
                    self.changed.notify_all()
        except (EOFError, OSError, ValueError) as end:
            self._ended("control", self.control, end)

    def _read_stream(self, name, conn):
        try:
            while conn.buffer or conn.fill():
                with self.changed:
                    self.data[name] += conn.buffer
                    conn.buffer = b""
                    self.changed.notify_all()
            end = None
        except (OSError, ValueError) as error:
            end = error
        self._ended(name, conn, end)

    def _ended(self, name, conn, end):
        with self.changed:
            self.ends[name] = conn.ended or repr(end)
            self.changed.notify_all()

    # Input.
    def message(self, **fields):
        self.control.send(jsonlib.dumps({"process_id": self.id, **fields}).encode() + b"\n")

    def stdin(self, text):
        self.message(source=0, data=text)

    def end_stdin(self):
        try:
            self.message(source=0)
        except (ConnectionResetError, BrokenPipeError):
            pass  # the process had ended already

    def signal(self, number):
        self.message(signal=number)

    def resize(self, columns, rows):
        self.message(tty={"window_size": {"columns": columns, "rows": rows}})

    # Output.
    @property
    def stdout(self):
        return bytes(self.data.get("stdout", b""))

    @property
    def stderr(self):
        return bytes(self.data.get("stderr", b""))

    def wait_for(self, condition, what, timeout=GUARD):
        with self.changed:
            assert self.changed.wait_for(condition, timeout), (
                f"never happened: {what}; messages {self.messages}, ends {self.ends}, "
                f"stdout ...{self.stdout[-200:]!r}, stderr ...{self.stderr[-200:]!r}")

    def wait_output(self, text, name="stdout", timeout=GUARD):
        self.wait_for(lambda: text in self.data[name], f"{text!r} on {name}", timeout)

    def wait_exit_line(self, timeout=GUARD):
        """The exit status as soon as it is told, before the streams have ended."""
        self.wait_for(lambda: any("exit_status" in m for m in self.messages), "exit", timeout)
        return next(m["exit_status"] for m in self.messages if "exit_status" in m)

    def wait_ends(self, timeout=GUARD):
        """Wait until every connection has ended; each must have ended by FIN."""
        names = {"control", *self.connections}
        self.wait_for(lambda: names <= self.ends.keys(), f"the end of {names}", timeout)
        assert all(end == "FIN" for end in self.ends.values()), self.ends
        self.close()

    def wait(self, timeout=GUARD):
        """The exit status, after everything has ended the way it should."""
        self.wait_ends(timeout)
        statuses = [m["exit_status"] for m in self.messages if "exit_status" in m]
        assert len(statuses) == 1, f"exit lines: {self.messages}"
        assert self.messages[-1] == {"process_id": self.id, "exit_status": statuses[0]}
        return statuses[0]

    def close(self):
        for conn in (self.control, *self.connections.values()):
            conn.close()

    def vanish(self):
        """Reset every connection, as a client that was killed behind a dead tunnel."""
        for conn in (self.control, *self.connections.values()):
            conn.reset()
