"""A client of the volume API on raw sockets, for all its routes. What streams carry is made and read in archives.py."""
import os
import re
import signal
import threading
from urllib.parse import quote, urlencode

import oracle
from archives import Member, decode, encode, tar, untar
from gardenlib import GUARD, HttpClient, Reply, head_bytes, wait_until

EMPTY = {"type": "empty"}


def cow(parent):
    return {"type": "cow", "volume": parent}


def imported(path, follow_symlinks=False):
    return {"type": "import", "path": str(path), "follow_symlinks": follow_symlinks}


class Refused(Exception):
    """A volume could not be had; .reply says why."""

    def __init__(self, reply):
        super().__init__(f"{reply.status} {reply.body!r}")
        self.reply = reply


def volume_path(handle, rest=""):
    return f"/volumes/{quote(handle, safe='')}{rest}"


def future_path(handle):
    return f"/volumes-async/{quote(handle, safe='')}"


def spec_document(handle, strategy, more):
    spec = {"strategy": strategy, "properties": None, **more}
    return spec if handle is None else {"handle": handle, **spec}


class VolumeClient(HttpClient):
    def done(self, method, path, json=None, **more):
        """A request that is answered without a body."""
        reply = self.request(method, path, json, **more)
        assert (reply.status, reply.body) == (204, b""), f"{method} {path}: {reply.status} {reply.body!r}"
        return reply

    # Volumes.
    def list(self, query=""):
        return self.ok("GET", "/volumes" + (f"?{query}" if query else ""))

    def handles(self, query=""):
        return [volume["handle"] for volume in self.list(query)]

    def get(self, handle):
        return self.ok("GET", volume_path(handle))

    def exists(self, handle):
        reply = self.request("GET", volume_path(handle))
        assert reply.status in (200, 404), reply
        return reply.status == 200

    def create(self, handle=None, strategy=EMPTY, **more):
        """Make a volume while the request waits."""
        reply = self.request("POST", "/volumes", spec_document(handle, strategy, more))
        if reply.status != 201:
            raise Refused(reply)
        return reply.json

    def destroy(self, handle):
        return self.done("DELETE", volume_path(handle))

    def destroy_many(self, handles):
        return self.done("DELETE", "/volumes/destroy", handles)

    def cleanup(self):
        return self.done("POST", "/volumes/cleanup-orphans")

    # Futures.
    def start(self, handle, strategy=EMPTY, **more):
        return self.request("POST", "/volumes-async", spec_document(handle, strategy, more))

    def poll(self, handle):
        return self.request("GET", future_path(handle))

    def poll_until_done(self, handle):
        while (reply := self.poll(handle)).status == 204:
            pass  # the server holds each poll until there is something to say
        return reply

    def forget(self, handle):
        return self.request("DELETE", future_path(handle))

    def make(self, handle=None, strategy=EMPTY, **more):
        """Make a volume as Concourse does: start, poll until done, forget."""
        reply = self.start(handle, strategy, **more)
        if reply.status != 201:
            raise Refused(reply)
        handle = reply.json["handle"]
        reply = self.poll_until_done(handle)
        assert self.forget(handle).status == 204
        if reply.status != 200:
            raise Refused(reply)
        return reply.json

    # Properties and the flag.
    def set_property(self, handle, name, value):
        return self.done("PUT", volume_path(handle, f"/properties/{quote(name, safe='')}"), {"value": value})

    def privileged(self, handle):
        return self.ok("GET", volume_path(handle, "/privileged"))

    def set_privileged(self, handle, value):
        return self.done("PUT", volume_path(handle, "/privileged"), {"value": value})

    # Streams.
    def upload(self, handle, path=None, encoding="gzip", limit=None):
        return Upload(self, handle, path, encoding, limit)

    def stream_in(self, handle, data, path=None, encoding="gzip", limit=None):
        """Send bytes that are encoded already: the answer."""
        return self.upload(handle, path, encoding, limit).send_all(data)

    def fill(self, handle, *members, path=None, encoding="raw"):
        """Unpack members of an archive in a volume; it must work."""
        reply = self.stream_in(handle, encode(encoding, tar(*members)), path, encoding)
        assert (reply.status, reply.body) == (204, b""), reply

    def download(self, handle, path=None, encoding="raw"):
        return Download(self, handle, path, encoding)

    def stream_out(self, handle, path=None, encoding="raw"):
        """A whole stream: the answer with the body decoded if it went well."""
        with self.download(handle, path, encoding) as stream:
            body = stream.rest()
        if stream.status == 200:
            body = decode(encoding, body)
        return Reply(stream.status, stream.headers, body)

    def tree(self, handle, path=None, encoding="raw"):
        """What a volume holds, by name."""
        reply = self.stream_out(handle, path, encoding)
        assert reply.status == 200, reply
        return untar(reply.body)

    def file(self, handle, path):
        """The content of one file."""
        (member,) = self.tree(handle, path).values()
        return member.data

    # From one server to another.
    def p2p_url(self):
        reply = self.request("GET", "/p2p-url")
        assert reply.status == 200, reply
        return reply.body.decode()

    def p2p_out(self, handle, path=".", url="", encoding="gzip"):
        query = urlencode({"path": path, "streamInURL": url, "encoding": encoding})
        return self.request("PUT", volume_path(handle, f"/stream-p2p-out?{query}"), timeout=2 * GUARD)


class HeldImport:
    """An import that does not end before the test wants it: what unpacks its archive is stopped."""

    def __init__(self, path):
        self.names = [f"file-{n}" for n in range(4000)]  # enough to be seen at work
        path.write_bytes(encode("gzip", tar(*[Member(name) for name in self.names])))
        self.strategy = imported(path)
        self.stopped = []

    def begin(self, server, handle):
        """Start it, and stop it on its way."""
        others = set(oracle.helpers(server))
        reply = server.volumes.start(handle, self.strategy)
        assert reply.status == 201, reply
        self.hold(server, others)
        assert not server.volumes.exists(handle), "it was too fast"

    def hold(self, server, others=frozenset()):
        """Stop one that somebody else has started."""
        wait_until(lambda: self.stop_pairs(server, others), "a helper is at work")

    def stop_pairs(self, server, others=frozenset()):
        """Stop what is at work now; how many helpers are stopped. Only those that read already: before, one may not
        yet be in its program, or not know yet that it is to end with its parent."""
        for pid in set(oracle.children(server.pid)) - set(others) - set(self.stopped):
            below = oracle.children(pid)
            if below and all(re.search("^rchar: [1-9]", oracle.read(f"/proc/{one}/io"), re.M) for one in below):
                for one in (pid, *below):
                    self._signal(one, signal.SIGSTOP)
                    self.stopped.append(one)
        return len(self.stopped) // 2

    def _signal(self, pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def end(self):
        """Let it go on."""
        for pid in self.stopped:
            self._signal(pid, signal.SIGCONT)
        self.stopped = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Upload:
    """A stream-in, chunk by chunk."""

    def __init__(self, client, handle, path=None, encoding="gzip", limit=None):
        query = {name: value for name, value in (("limit", limit), ("path", path)) if value is not None}
        target = volume_path(handle, "/stream-in") + (f"?{urlencode(query)}" if query else "")
        fields = {"Host": "api", "Connection": "close", "Transfer-Encoding": "chunked"}
        if encoding is not None:
            fields["Content-Encoding"] = encoding
        self.conn = client.connect()
        self.conn.send(head_bytes("PUT", target, fields))

    def send(self, data):
        if data:
            self.conn.send(b"%x\r\n%b\r\n" % (len(data), data))

    def send_last(self):
        self.conn.send(b"0\r\n\r\n")

    def _send_parts(self, parts):
        try:
            for part in parts:
                self.send(part)
            self.send_last()
        except OSError:
            pass  # refused before the end: the answer says why

    def send_parts(self, parts):
        """Send chunks while the answer is waited for, as Go's client does."""
        sender = threading.Thread(target=self._send_parts, args=(parts,), daemon=True)
        sender.start()
        try:
            return self.reply()
        finally:
            sender.join(GUARD)

    def send_all(self, data, chunk=65536):
        return self.send_parts(data[at:at + chunk] for at in range(0, len(data), chunk))

    def finish(self):
        self.send_last()
        return self.reply()

    def reply(self):
        try:
            return self.conn.reply("PUT")
        finally:
            self.conn.close()

    def close(self):
        self.conn.close()


class Download:
    """A stream-out, read as the test likes."""

    def __init__(self, client, handle, path=None, encoding="raw"):
        target = volume_path(handle, "/stream-out") + (f"?{urlencode({'path': path})}" if path is not None else "")
        fields = {"Host": "api", "Connection": "close", "Content-Length": 0}
        if encoding is not None:
            fields["Accept-Encoding"] = encoding
        self.conn = client.connect()
        self.conn.send(head_bytes("PUT", target, fields))
        self.status, self.headers = self.conn.head()

    def next(self):
        """Some bytes more of a chunked body, empty at its end."""
        assert self.headers.get("transfer-encoding") == "chunked", self.headers
        return self.conn.next_chunk()

    def rest(self):
        """What is left. Fails with EOFError when the server has broken off."""
        if self.headers.get("transfer-encoding") != "chunked":
            return self.conn.take(int(self.headers["content-length"]))
        body, _ = self.conn.chunked()
        assert self.conn.rest() == b"" and self.conn.ended == "FIN", self.conn.ended
        return body

    def close(self):
        self.conn.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
