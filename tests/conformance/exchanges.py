"""Recorded calls of both APIs, recordings/concourse: what Concourse's web, its sweeper and its worker said to each
other while a person used it. A file has "events": {"ms", "conn", "port", "from", "data"}, the bytes in their order;
"<EOF>" and "<RST>" are ends, and what is long or binary stands there as "<n bytes, sha256 ...>"."""
import json
import re
from typing import NamedTuple

from recording import RECORDINGS, Head, parse_head

PLACEHOLDER = re.compile(rb"<\d+ bytes, sha256 [0-9a-f]+>")
ENDS = ("<EOF>", "<RST>")


class Exchange(NamedTuple):
    """One request and its answer."""
    recording: str
    conn: int
    request: Head
    body: bytes
    answer: Head
    document: bytes  # None: it is not in the recording

    @property
    def is_stream(self):
        return "/stream-" in self.request.target

    @property
    def has_body(self):
        """Whether there is more to the answer than a head."""
        return self.answer.status not in (204, 304)

    def __str__(self):
        return f"{self.recording}, connection {self.conn}, {self.request.start}"


def take_body(head, rest):
    """The body that belongs to a head, None for a placeholder, and what follows it."""
    if placeholder := PLACEHOLDER.match(rest):
        return None, rest[placeholder.end():]
    if head.headers.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            line, _, rest = rest.partition(b"\r\n")
            size = int(line, 16)
            body, rest = body + rest[:size], rest[size + 2:]
            if size == 0:
                return body, rest
    length = head.length or 0
    return rest[:length], rest[length:]


def take_message(data, is_answer):
    head, rest = parse_head(data)
    assert head, data[:200]
    if is_answer and head.status == 204:
        return head, b"", rest
    return head, *take_body(head, rest)


class Recorded:
    """The two directions of a connection: requests are put together with their answers."""

    def __init__(self, name, conn):
        self.name, self.conn = name, conn
        self.answers = b""
        self.requests = []

    def hear_client(self, data):
        """Go's client sends a request as a whole, or in two pieces where its body is a stream."""
        if re.match(rb"[A-Z]+ /", data):
            self.requests.append(data)
        elif self.requests:
            self.requests[-1] += data

    def exchanges(self):
        rest = self.answers
        for request in self.requests:
            if not rest:
                return
            head, body, _ = take_message(request, False)
            answer, document, rest = take_message(rest, True)
            yield Exchange(self.name, self.conn, head, body, answer, document)


def load_events(path):
    return json.loads(path.read_text())["events"]


def load_exchanges(path, port=7788, but_for=()):
    """The exchanges on a port in the order of their requests, but for those of some connections."""
    connections, order = {}, []
    for event in load_events(path):
        data = event["data"]
        if data in ENDS or event["port"] != port or event["conn"] in but_for:
            continue
        one = connections.setdefault(event["conn"], Recorded(path.stem, event["conn"]))
        if event["from"] == "client":
            one.hear_client(data.encode())
            order.append((event["conn"], len(one.requests) - 1))
        else:
            one.answers += data.encode()
    found = {(conn, n): exchange for conn, one in connections.items() for n, exchange in enumerate(one.exchanges())}
    return [found[place] for place in dict.fromkeys(order) if place in found]


def web_recordings():
    return sorted((RECORDINGS / "concourse").glob("*.json"))


def all_exchanges():
    """Those of the volume API by recording, in the order of the recordings."""
    return {path.stem: load_exchanges(path) for path in web_recordings()}
