"""Recorded traffic of unmodified clients: the files in recordings/, and the HTTP in them.

A file has "calls", what the program asked of its client library and what that gave back, and
"events": {"ms", "conn", "from", "data"}, the bytes in their order, merged per direction;
connections are numbered as they were opened. "<EOF>" is a FIN, or a RST where "from" ends in
"reset"."""
import json
from pathlib import Path
from typing import NamedTuple

from gardenlib import parse_fields

RECORDINGS = Path(__file__).parent / "recordings"
END = b"<EOF>"


class Event(NamedTuple):
    conn: int
    by_client: bool
    data: bytes  # empty for an end
    ends: bool
    reset: bool


class Head(NamedTuple):
    start: str  # the request line or the status line
    headers: dict  # names in lower case

    @property
    def method(self):
        return self.start.split(" ")[0]

    @property
    def target(self):
        return self.start.split(" ")[1]

    @property
    def status(self):
        return int(self.start.split(" ")[1])

    @property
    def length(self):
        """The Content-Length, None where there is none."""
        length = self.headers.get("content-length")
        return None if length is None else int(length)

    @property
    def kind(self):
        """What follows a reply's head: a document, an archive in chunks, lines of a control connection, or
        output."""
        if self.length is not None:
            return "document"
        if self.headers.get("content-type") == "application/octet-stream":
            return "archive"
        return "control" if self.headers.get("content-type") == "application/json" else "output"


class Recording(NamedTuple):
    name: str
    events: list

    def connections(self):
        """The numbers of its connections, in the order of their opening."""
        return sorted({event.conn for event in self.events})

    def bytes_of(self, conn, by_client):
        """All that one side sent on a connection."""
        return b"".join(e.data for e in self.events if e.conn == conn and e.by_client == by_client)

    def closes(self, conn):
        """Whether the server ended the connection."""
        return any(e.conn == conn and e.ends and not e.by_client for e in self.events)


def parse_event(event):
    side, _, reset = event["from"].partition(" ")
    data = event["data"].encode()
    ends = data == END
    return Event(event["conn"], side == "client", b"" if ends else data, ends, reset == "reset")


def load(path):
    document = json.loads(path.read_text())
    return Recording(path.stem, [parse_event(event) for event in document["events"]])


def load_all(folder):
    return [load(path) for path in sorted((RECORDINGS / folder).glob("*.json"))]


def parse_head(data):
    """The head that data begins with and what is behind it; None while the head is not complete."""
    head, mark, rest = data.partition(b"\r\n\r\n")
    if not mark:
        return None, data
    lines = head.decode("latin-1").split("\r\n")
    return Head(lines[0], parse_fields(lines[1:])), rest
