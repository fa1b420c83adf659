"""A client of both APIs that adds as little time of its own as Python can: plain sockets, no library."""
import contextlib
import ctypes
import fcntl
import json
import os
import socket
import time


class Connection:
    """One TCP connection; unread bytes stay in `buffer`."""

    def __init__(self, address, network=None):
        """network: a descriptor of the network namespace that the address belongs to, if that is not ours."""
        with inside(network):
            self.socket = socket.create_connection(address, timeout=600)  # an import of 1,000,000 files
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def close(self):
        self.socket.close()

    def send(self, method, path, body=None, close=False):
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: api\r\nContent-Length: {len(data)}\r\n"
        if close:
            head += "Connection: close\r\n"
        self.socket.sendall(head.encode() + b"\r\n" + data)

    def until(self, mark):
        while mark not in self.buffer:
            got = self.socket.recv(65536)
            if not got:
                raise EOFError(f"the connection ended after {self.buffer[:200]!r}")
            self.buffer += got
        part, self.buffer = self.buffer.split(mark, 1)
        return part

    def head(self):
        head = self.until(b"\r\n\r\n").decode().lower()
        return int(head.split(" ", 2)[1]), head

    def body(self):
        """The bytes of a plain answer that says well done; nobody looks into them."""
        status, head = self.head()
        length = 0 if status == 204 else int(head.split("content-length:", 1)[1].split("\r\n", 1)[0])
        space = bytearray(length)
        have = min(length, len(self.buffer))
        space[:have], self.buffer = self.buffer[:have], self.buffer[have:]
        while have < length:
            got = self.socket.recv_into(memoryview(space)[have:])
            if not got:
                raise EOFError("the connection ended inside a document")
            have += got
        if not 200 <= status < 300:
            raise RuntimeError(f"status {status}: {space.decode()}")
        return bytes(space)

    def document(self):
        body = self.body()
        return json.loads(body) if body else None

    def call(self, method, path, body=None, close=False):
        self.send(method, path, body, close)
        return self.document()


CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(network):
    """This thread, for so long, in another network namespace; None: stay."""
    if network is None:
        yield
        return
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(network, CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), "enter the network namespace")
        yield
    finally:
        libc.setns(ours, CLONE_NEWNET)
        os.close(ours)


class Garden:
    def __init__(self, address, network=None):
        self.address, self.network = address, network

    def connect(self):
        return Connection(self.address, self.network)

    def call(self, method, path, body=None):
        """Like the Go client: a connection for each plain call."""
        connection = self.connect()
        try:
            return connection.call(method, path, body, close=True)
        finally:
            connection.close()

    def create(self, handle, **spec):
        self.call("POST", "/containers", {"handle": handle, **spec})

    def destroy(self, handle):
        self.call("DELETE", f"/containers/{handle}")

    def handles(self):
        return self.call("GET", "/containers")["Handles"]

    @staticmethod
    def line(connection):
        return json.loads(connection.until(b"\n"))

    def start(self, handle, path, *args, **more):
        """Starts a process; returns its connection and the first message, which names process and stream."""
        connection = self.connect()
        connection.send("POST", f"/containers/{handle}/processes", {"path": path, "args": args, **more})
        status, _ = connection.head()
        if status != 201:
            raise RuntimeError(f"run: status {status}: {connection.buffer!r}")
        return connection, self.line(connection)

    def wait(self, connection):
        """The exit status; returns when it is known, as a client does that wants no output."""
        while True:
            message = self.line(connection)
            if "exit_status" in message:
                connection.close()
                return message["exit_status"]
            if "error" in message:
                raise RuntimeError(message["error"])

    def run(self, handle, path, *args):
        connection, _ = self.start(handle, path, *args)
        return self.wait(connection)

    def stdout(self, handle, ids):
        """The connection that carries the standard output of the process that `start` named."""
        connection = self.connect()
        attach = f"/containers/{handle}/processes/{ids['process_id']}/attaches/{ids['stream_id']}"
        connection.send("GET", attach + "/stdout")
        status, _ = connection.head()
        if status != 200:
            raise RuntimeError(f"stdout: status {status}")
        return connection


class Volumes:
    """The volume API on a kept connection, and streams on connections of their own."""

    def __init__(self, address, network=None):
        self.address, self.network = address, network
        self.connection, self.used_at = None, 0

    @property
    def kept(self):
        """A new one after a pause, in which a server may end those that do nothing."""
        if self.connection and time.monotonic() - self.used_at > 5:
            self.close()
        self.connection, self.used_at = self.connection or Connection(self.address, self.network), time.monotonic()
        return self.connection

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def create(self, handle, strategy=None, **more):
        return self.kept.call("POST", "/volumes", {"handle": handle, "strategy": strategy or {"type": "empty"}, **more})

    def copy(self, handle, parent):
        return self.create(handle, {"type": "cow", "volume": parent})

    def import_(self, handle, path):
        return self.create(handle, {"type": "import", "path": str(path)})

    def destroy(self, handle):
        self.kept.call("DELETE", f"/volumes/{handle}")

    def destroy_many(self, handles):
        self.kept.call("DELETE", "/volumes/destroy", handles)

    def list(self):
        """The bytes of it: what reading JSON costs in Python is not the server's."""
        self.kept.send("GET", "/volumes")
        return self.kept.body()

    def relay(self, source, target, encoding):
        """All of one volume into another: as chunks come out they go in, without passing through this process. An answer
        that is broken off lacks its last chunk, and is refused on the other side."""
        out, into = (Connection(self.address, self.network) for _ in range(2))
        head = "Host: api\r\nConnection: close\r\n"
        out.socket.sendall(f"PUT /volumes/{source}/stream-out?path=. HTTP/1.1\r\n{head}Content-Length: 0\r\n"
                           f"Accept-Encoding: {encoding}\r\n\r\n".encode())
        status, fields = out.head()
        if status != 200 or "transfer-encoding: chunked" not in fields:
            raise RuntimeError(f"stream-out: {fields}")
        into.socket.sendall(f"PUT /volumes/{target}/stream-in?path=. HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n"
                            f"Content-Encoding: {encoding}\r\n\r\n".encode() + out.buffer)
        n_bytes = len(out.buffer) + splice_all(out.socket, into.socket)
        into.body()
        out.close()
        into.close()
        return n_bytes


def splice_all(source, target, size=1 << 20):
    """From socket to socket until the end, by a pipe. Returns how many bytes."""
    read_fd, write_fd = os.pipe()
    total = 0
    try:
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, size)
        for end in (source, target):
            end.settimeout(None)  # a timeout makes it non-blocking, which splice would report
        while got := os.splice(source.fileno(), write_fd, size, flags=os.SPLICE_F_MOVE):
            total += got
            while got:
                got -= os.splice(read_fd, target.fileno(), got, flags=os.SPLICE_F_MOVE | os.SPLICE_F_MORE)
    finally:
        os.close(read_fd)
        os.close(write_fd)
    return total
