"""Clients that know which bytes their kernel has acknowledged: those they have got, and no others. Each reads its
receive queue to the end before it cuts a connection or finds it cut."""
import ctypes
import fcntl
import hashlib
import json
import socket
import struct
import termios
from urllib.parse import quote

import live  # noqa: F401 - first: it makes the module below known
from gardenlib import GUARD, Connection, request_bytes, wait_until

LINE_BYTES = 64
SO_ATTACH_FILTER = 26
READ_BYTES = 1 << 18


def lines(first, n):
    """n numbered lines as the probe prints them."""
    return b"".join(b"%063d\n" % i for i in range(first, first + n))


# A socket filter sees a packet from the TCP header on: what is longer than that header is dropped.
ONLY_HEADERS = b"".join(struct.pack("HBBI", *instruction) for instruction in (
    (0x30, 0, 0, 12),          # ldb [12]: the header's words, in the upper half
    (0x54, 0, 0, 0xf0),        # and #0xf0
    (0x74, 0, 0, 2),           # rsh #2: bytes
    (0x07, 0, 0, 0),           # tax
    (0x80, 0, 0, 0),           # ld #len
    (0x2d, 0, 1, 0),           # jgt x, next, over
    (0x06, 0, 0, 0),           # ret #0
    (0x06, 0, 0, 0xffffffff),  # ret #-1
))


def hear_only_acknowledgements(sock):
    """From now on the kernel drops all data that come for this socket before it looks at them."""
    program = ctypes.create_string_buffer(ONLY_HEADERS, len(ONLY_HEADERS))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                    struct.pack("HxxxxxxQ", len(ONLY_HEADERS) // 8, ctypes.addressof(program)))


def queued_bytes(sock):
    """Sent, and not acknowledged."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0]


class Source:
    """What the process writes, as far as it was asked for: numbered lines, end as given."""

    def __init__(self, n_lines, newline=b"\n"):
        self.n_lines, self.newline = n_lines, newline
        self.width = LINE_BYTES - 1 + len(newline)
        self.n_bytes = n_lines * self.width

    def piece(self, offset, n_bytes):
        first = offset // self.width
        n = min((offset + n_bytes - 1) // self.width + 1, self.n_lines) - first
        text = lines(first, n)
        if self.newline != b"\n":
            text = text.replace(b"\n", self.newline)
        skip = offset - first * self.width
        return text[skip:skip + n_bytes]

    def sha256(self):
        total, offset = hashlib.sha256(), 0
        while offset < self.n_bytes:
            total.update(self.piece(offset, 1 << 22))
            offset += 1 << 22
        return total.hexdigest()


class Collector:
    """Puts pieces together, and sees at once where they are not the source's."""

    def __init__(self, source):
        self.source, self.offset, self.sha256 = source, 0, hashlib.sha256()

    def add(self, data):
        expected = self.source.piece(self.offset, len(data))
        if data != expected:
            at = next((i for i, (a, b) in enumerate(zip(data, expected)) if a != b), len(expected))
            raise AssertionError(f"byte {self.offset + at}: got {bytes(data[at:at + 80])!r} instead of {expected[at:at + 80]!r}")
        self.offset += len(data)
        self.sha256.update(data)


class Follower:
    """One attach with its standard output, read by the caller."""

    def __init__(self, server, handle, process, buffer_bytes=None, opens=True):
        self.path = f"/containers/{handle}/processes/{quote(process, safe='')}"
        self.address, self.buffer_bytes = server.client.address, buffer_bytes
        self.control = Connection(self.address)
        self.control.send(request_bytes("GET", self.path))
        status, _ = self.control.head()
        assert status == 200, status
        first = json.loads(self.control.take_until(b"\n"))
        self.process = process
        self.stream_path = f"{self.path}/attaches/{first['stream_id']}/stdout"
        self.stream = self._open(self.stream_path) if opens else None

    def open(self):
        self.stream = self._open(self.stream_path)

    def _open(self, path):
        conn = Connection(self.address)
        if self.buffer_bytes:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer_bytes)
        conn.send(request_bytes("GET", path))
        status, _ = conn.head()
        assert status == 200, status
        return conn

    def read(self, n_bytes=READ_BYTES):
        """Up to n_bytes; b"" at the end, which must be a FIN."""
        if self.stream.buffer:
            data, self.stream.buffer = self.stream.buffer[:n_bytes], self.stream.buffer[n_bytes:]
            return data
        return self.stream.sock.recv(n_bytes)

    def read_line(self):
        while b"\n" not in self.stream.buffer:
            data = self.stream.sock.recv(READ_BYTES)
            assert data, f"the stream ended after {self.stream.buffer!r}"
            self.stream.buffer += data
        line, self.stream.buffer = self.stream.buffer.split(b"\n", 1)
        return line

    def rest(self):
        """To the end, piece by piece."""
        while data := self.read():
            yield data

    def cut_by_fin(self):
        """Says that it goes, and reads what is still on its way."""
        self.stream.half_close()
        yield from self.rest()
        self.close()

    def cut_by_rst(self):
        """Vanishes between two packets: what has arrived was read and acknowledged."""
        hear_only_acknowledgements(self.stream.sock)
        self.stream.sock.setblocking(False)
        yield from self._queued()
        self._have_acknowledged()
        yield from self._queued()
        self.stream.reset()
        self.control.reset()

    def _have_acknowledged(self):
        """A reset may overtake the acknowledgement before it, on its way through the queues of two processors. A byte
        says once more what we have got, and when it is acknowledged, that was heard."""
        self.stream.send(b"\n")
        wait_until(lambda: queued_bytes(self.stream.sock) == 0, "the server's TCP has heard us")

    def _queued(self):
        if self.stream.buffer:
            yield self.read(len(self.stream.buffer))
        while True:
            try:
                data = self.stream.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            yield data

    def exit_status(self):
        """After the end of the stream: what the control connection says, None if nothing. Its end must be a FIN."""
        rest = self.control.rest()
        assert self.control.ended == "FIN", self.control.ended
        self.close()
        messages = [json.loads(line) for line in rest.splitlines()]
        statuses = [m["exit_status"] for m in messages if "exit_status" in m]
        assert len(statuses) <= 1, messages
        return statuses[0] if statuses else None

    def message(self, **fields):
        return json.dumps({"process_id": self.process, **fields}).encode() + b"\n"

    def close(self):
        self.stream.close()
        self.control.close()


def start(server, handle, name, *args, tty=False):
    """Start the probe; who started it leaves at once, without having opened a stream."""
    conn = Connection(server.client.address, GUARD)
    spec = {"id": name, "path": "/bin/probe", "args": list(args)}
    if tty:
        spec["tty"] = {"window_size": {"columns": 200, "rows": 50}}
    conn.send(request_bytes("POST", f"/containers/{handle}/processes", spec))
    status, _ = conn.head()
    assert status == 201, conn.rest()
    conn.take_until(b"\n")
    conn.reset()
