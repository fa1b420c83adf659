"""A Garden client that adds as little time of its own as Python can: plain sockets, no library."""
import json
import socket


class Connection:
    """One TCP connection; unread bytes stay in `buffer`."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=60)
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

    def document(self):
        status, head = self.head()
        length = int(head.split("content-length:", 1)[1].split("\r\n", 1)[0])
        while len(self.buffer) < length:
            got = self.socket.recv(65536)
            if not got:
                raise EOFError("the connection ended inside a document")
            self.buffer += got
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        if not 200 <= status < 300:
            raise RuntimeError(f"status {status}: {body.decode()}")
        return json.loads(body)

    def call(self, method, path, body=None, close=False):
        self.send(method, path, body, close)
        return self.document()


class Garden:
    def __init__(self, address):
        self.address = address

    def call(self, method, path, body=None):
        """Like the Go client: a connection for each plain call."""
        connection = Connection(self.address)
        try:
            return connection.call(method, path, body, close=True)
        finally:
            connection.close()

    def create(self, handle):
        self.call("POST", "/containers", {"handle": handle})

    def destroy(self, handle):
        self.call("DELETE", f"/containers/{handle}")

    def handles(self):
        return self.call("GET", "/containers")["Handles"]

    def start(self, handle, path, *args):
        """Starts a process; returns its connection and the first message, which names process and stream."""
        connection = Connection(self.address)
        connection.send("POST", f"/containers/{handle}/processes", {"path": path, "args": args})
        status, _ = connection.head()
        if status != 201:
            raise RuntimeError(f"run: status {status}: {connection.buffer!r}")
        return connection, json.loads(connection.until(b"\n"))

    def wait(self, connection):
        """The exit status; returns when it is known, as a client does that wants no output."""
        while True:
            message = json.loads(connection.until(b"\n"))
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
        connection = Connection(self.address)
        attach = f"/containers/{handle}/processes/{ids['process_id']}/attaches/{ids['stream_id']}"
        connection.send("GET", attach + "/stdout")
        status, _ = connection.head()
        if status != 200:
            raise RuntimeError(f"stdout: status {status}")
        return connection
