"""Recorded traffic of Concourse's web as steps: plain calls, which are made when they were begun, and hijacked
connections, which are opened, written to, ended or left at the recorded places."""
import re
from typing import NamedTuple

from exchanges import ENDS, load_events, load_exchanges
from recording import parse_head

HIJACKED = re.compile(r"(POST /containers/[^/]+/processes|GET /containers/[^/]+/processes/[^ ]+) HTTP")

# Connections that were open before a recording began: where they began.
CONTINUED = {
    ("06-hijack-with-program", 7): ("05-task-that-runs-long", 45),
    ("07-abort", 2): ("05-task-that-runs-long", 45),
    ("07-abort", 3): ("05-task-that-runs-long", 44),
    ("07-abort", 4): ("05-task-that-runs-long", 46),
    ("11-web-killed-and-back", 1): ("10-hijack-on-a-terminal", 44),
    ("11-web-killed-and-back", 2): ("10-hijack-on-a-terminal", 45),
    ("11-web-killed-and-back", 3): ("10-hijack-on-a-terminal", 46),
    ("12-sweeps-later", 1): ("11-web-killed-and-back", 15),
}


class Step(NamedTuple):
    """kind is call, open, wait (output has come), input, end (by the server) or leave (by the client)."""
    kind: str
    key: tuple  # recording and connection, where the connection began
    data: object  # of a call the exchange, else bytes


def hijacked_connections(events):
    """Those whose request was accepted."""
    asked, refused = set(), set()
    for event in events:
        if event["from"] == "client" and HIJACKED.match(event["data"]):
            asked.add(event["conn"])
        elif event["conn"] in asked and re.match(r"HTTP/1\.1 [45]", event["data"]):
            refused.add(event["conn"])
    return asked - refused


def load_steps(path):
    events, name = load_events(path), path.stem
    hijacked = hijacked_connections(events) | {conn for recording, conn in CONTINUED if recording == name}
    calls = {}
    for port in (7777, 7788):
        for exchange in load_exchanges(path, port, hijacked):
            calls.setdefault(exchange.conn, []).append(exchange)
    ended = set()
    for event in events:
        conn, data, by_client = event["conn"], event["data"], event["from"] == "client"
        key = CONTINUED.get((name, conn), (name, conn))
        if conn in hijacked:
            kind = step_kind(data, by_client, key in ended)
            ended |= {key} if kind in ("end", "leave") else set()
            if kind:
                yield Step(kind, key, data.encode())
        elif by_client and re.match("[A-Z]+ /", data) and calls.get(conn):
            yield Step("call", key, calls[conn].pop(0))


def step_kind(data, by_client, is_ended):
    if data in ENDS:
        return None if is_ended else "leave" if by_client else "end"
    if not by_client:
        return "wait"
    return "open" if HIJACKED.match(data) else "input"


def recorded_streams(paths):
    """What the recorded server sent on each hijacked connection, behind the head: all of it stands in the recording in
    which the connection began, and what came later in the later one as well."""
    streams = {}
    for path in paths:
        events = load_events(path)
        hijacked = hijacked_connections(events)
        for event in events:
            if event["conn"] in hijacked and event["from"] == "server" and event["data"] not in ENDS:
                key = path.stem, event["conn"]
                streams[key] = streams.get(key, b"") + event["data"].encode()
    return {key: parse_head(data) for key, data in streams.items()}
