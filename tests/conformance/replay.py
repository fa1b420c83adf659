"""Replays a recording against a server: sends the client's bytes on as many connections in the
recorded order, waits for the recorded answer before the next step, puts the ids that this server
gives in place of the recorded ones, and compares. What may differ stands in differences.py."""
import json
import re
import socket

import archives
import differences
from gardenlib import Connection
from recording import parse_head

FRAMING = ("content-type", "transfer-encoding", "connection")


class Mismatch(AssertionError):
    pass


def compare(want, got, where, key=None):
    """Compare two JSON values: keys, types, and values but for those that vary."""
    if key in differences.FILLED_KEYS and want is None and isinstance(got, (list, dict)):
        return
    if isinstance(want, str):
        want = differences.OTHER_WORDS.get(want, want)
    if type(want) is not type(got):
        raise Mismatch(f"{where}: {key}: {want!r} expected, not {got!r}")
    if isinstance(want, dict):
        want = {k: v for k, v in want.items() if not differences.is_absent_property(k)}
        got = {k: v for k, v in got.items() if k not in differences.ADDED_PROPERTIES}
        if want.keys() != got.keys():
            raise Mismatch(f"{where}: {key}: keys {sorted(want)} expected, not {sorted(got)}")
        for name in want:
            compare(want[name], got[name], where, name)
    elif isinstance(want, list):
        if key in differences.UNORDERED_KEYS:
            want, got = sorted(want), sorted(got)
        if len(want) != len(got):
            raise Mismatch(f"{where}: {key}: {want!r} expected, not {got!r}")
        for pair in zip(want, got):
            compare(*pair, where)
    elif want != got and key not in differences.VARYING_KEYS:
        raise Mismatch(f"{where}: {key}: {want!r} expected, not {got!r}")


def compare_error(answer, got, where):
    message = got.get("Message", "")
    if not re.fullmatch(answer.message, message, re.DOTALL):
        raise Mismatch(f"{where}: a message like {answer.message!r} expected, not {got!r}")
    compare({"Type": answer.type, "Message": message, "Handle": answer.handle, "ProcessID": "",
             "Binary": ""}, got, where)


def entries(chunks):
    """The archive in the chunks, without its times, which are those of the replay."""
    data = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        data += rest[:int(size, 16)]
        chunks = rest[int(size, 16) + 2:]
    return [member._replace(mtime=0, uname="", gname="", pax={}) for member in archives.members(data)]


class ReplayConnection:
    """One connection, with what the recording wants on it and what has come."""

    def __init__(self, replay, number):
        self.replay, self.number = replay, number
        self.wire = Connection(replay.address)
        self.request, self.body = None, b""
        self.wanted = b""
        self.is_reset = False  # by this side: nothing more can be seen
        self.answer = differences.answer_for(replay.name, number)
        self.output = differences.output_for(replay.name, number)
        self.exit_statuses = differences.exit_statuses_for(replay.name, number)

    @property
    def where(self):
        request = self.request.start if self.request else "no request"
        return f"{self.replay.name}, connection {self.number}, {request}"

    # The client's side.
    def send(self, data):
        if not self.request:
            data = self.translate_request(data)
            self.request, self.body = parse_head(data)
        else:
            data = self.replay.translate_ids(data)
        try:
            self.wire.send(data)
        except (BrokenPipeError, ConnectionResetError):
            if not self.wire.ended:  # behind the server's end anything may be refused
                raise

    def translate_request(self, data):
        """A recorded request as this server is to get it; untouched where nothing has to change."""
        head, _, body = data.partition(b"\r\n\r\n")
        line, _, fields = head.partition(b"\r\n")
        line = b" ".join(self.replay.translate_target(word) for word in line.split(b" "))
        if line.startswith(b"POST /containers "):
            spec = self.replay.rewrite_create(json.loads(body))
            if spec:
                body = json.dumps(spec).encode() + b"\n"
                fields = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), fields)
        return line + b"\r\n" + fields + b"\r\n\r\n" + body

    def end(self, reset):
        if reset:
            self.wire.reset()
            self.is_reset = True
            return
        try:
            self.wire.half_close()
        except OSError:
            pass  # the server has ended it too, and nothing is left of it

    # The server's side.
    def expect(self, data):
        self.wanted += data
        while not self.has_enough() and self.fill():
            pass
        self.check_head()
        self.learn_ids()

    def expect_end(self):
        if self.is_reset:
            return
        while self.fill():
            pass
        if self.wire.ended != "FIN":
            raise Mismatch(f"{self.where}: ended by {self.wire.ended}")
        if self.wanted:
            self.check_head()
            self.check_body()

    def expect_open(self):
        """The recorded server left the connection open: this one has not ended it by now."""
        self.check_body()
        self.wire.sock.setblocking(False)
        try:
            left = self.wire.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        raise Mismatch(f"{self.where}: {'more bytes' if left else 'ended'}, which is not recorded")

    def fill(self):
        try:
            return self.wire.fill()
        except socket.timeout:
            raise Mismatch(f"{self.where}: nothing followed {self.wire.buffer!r}; recorded is "
                           f"{self.wanted!r}") from None

    def has_enough(self):
        head, got = parse_head(self.wire.buffer)
        wanted_head, want = parse_head(self.wanted)
        if not head:
            return False
        if head.kind == "document":
            return len(got) >= head.length
        if wanted_head.kind == "archive":
            return got.endswith(b"\r\n0\r\n\r\n")
        if wanted_head.kind == "control":
            return got.count(b"\n") >= want.count(b"\n")
        return len(got) >= min(len(want), len(self.wanted_output(want)))

    def wanted_output(self, recorded):
        return recorded if self.output is None else self.output

    def wanted_head(self):
        """Status line, framing headers and whether there is a Content-Length."""
        if not self.answer:
            head, _ = parse_head(self.wanted)
            return head.start, head.headers, head.length is not None
        headers = {"content-type": "application/json"}
        if "connection" in self.request.headers:
            headers["connection"] = self.request.headers["connection"]
        return f"HTTP/1.1 {self.answer.status}", headers, True

    def check_head(self):
        head, _ = parse_head(self.wire.buffer)
        if not head:
            raise Mismatch(f"{self.where}: {self.wire.ended} after {self.wire.buffer!r}")
        start, headers, has_length = self.wanted_head()
        if head.start != start:
            raise Mismatch(f"{self.where}: {start!r} expected, not {self.wire.buffer!r}")
        for name in FRAMING:
            if headers.get(name) != head.headers.get(name):
                raise Mismatch(f"{self.where}: {name} is {head.headers.get(name)!r}, "
                               f"not {headers.get(name)!r}")
        if (head.length is not None) != has_length:
            raise Mismatch(f"{self.where}: Content-Length {'missing' if has_length else 'given'}")

    def check_body(self):
        head, got = parse_head(self.wire.buffer)
        wanted_head, want = parse_head(self.wanted)
        if head.kind == "document" and (len(got) != head.length or not got.endswith(b"\n")):
            raise Mismatch(f"{self.where}: not one document and a newline: {head} {got!r}")
        if self.answer:
            compare_error(self.answer, json.loads(got), self.where)
        elif wanted_head.kind == "archive":
            if entries(got) != entries(want):
                raise Mismatch(f"{self.where}: {entries(want)} expected, not {entries(got)}")
        elif wanted_head.kind == "output":
            if got != self.wanted_output(want):
                raise Mismatch(f"{self.where}: {self.wanted_output(want)!r} expected, not {got!r}")
        else:
            got = [json.loads(line) for line in got.splitlines()]
            want = [self.translate_document(line) for line in want.splitlines()]
            if self.exit_statuses and got and got[-1].get("exit_status") in self.exit_statuses:
                want[-1]["exit_status"] = got[-1]["exit_status"]
            compare(want, got, self.where)

    def translate_document(self, line):
        """A recorded document with this server's ids in it."""
        document = json.loads(line)
        for key in ("process_id", "stream_id", "Handle"):
            if key in document:
                document[key] = self.replay.ids.get(document[key], document[key])
        return document

    def learn_ids(self):
        """Ids that the server chose: any stream's, and what the client left to it."""
        wanted_head, want = parse_head(self.wanted)
        if self.answer or wanted_head.kind in ("output", "archive") or wanted_head.status >= 300:
            return
        _, got = parse_head(self.wire.buffer)
        want, got = json.loads(want.splitlines()[0]), json.loads(got.splitlines()[0])
        chosen = {"stream_id"}
        if self.request.method == "POST":
            sent = json.loads(self.body)
            chosen |= {key for key, wish in (("process_id", "id"), ("Handle", "handle"))
                       if wish not in sent}
        for key in chosen & want.keys() & got.keys():
            if not isinstance(got[key], str):
                raise Mismatch(f"{self.where}: {key} is {got[key]!r}")
            self.replay.ids[want[key]] = got[key]


class Replay:
    def __init__(self, recording, address, rewrite_create):
        self.recording, self.name = recording, recording.name
        self.address, self.rewrite_create = address, rewrite_create
        self.ids = {}  # as recorded -> as given by this server
        self.connections = {}

    def run(self):
        try:
            for event in self.recording.events:
                if not differences.is_left_out(self.name, event.conn):
                    self.step(event)
            for number, connection in self.connections.items():
                if not self.recording.closes(number):
                    connection.expect_open()
        finally:
            for connection in self.connections.values():
                connection.wire.close()

    def step(self, event):
        if event.conn not in self.connections:
            self.connections[event.conn] = ReplayConnection(self, event.conn)
        connection = self.connections[event.conn]
        if event.by_client and event.ends:
            connection.end(event.reset)
        elif event.by_client:
            connection.send(event.data)
        elif event.ends:
            connection.expect_end()
        else:
            connection.expect(event.data)

    def translate_target(self, target):
        """Part by part: recorded stream ids are plain numbers, which may occur anywhere."""
        parts = target.decode().split("/")
        return "/".join(self.ids.get(part, part) for part in parts).encode()

    def translate_ids(self, data):
        """Long ids in what goes over a control connection."""
        for recorded, given in self.ids.items():
            if len(recorded) == 36:
                data = data.replace(recorded.encode(), given.encode())
        return data
