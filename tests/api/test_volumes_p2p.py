"""From one server to another: lines 86-93 of the volumes' acceptance list."""
import gzip
import os
import socket
import threading
from urllib.parse import quote

import pytest
from archives import ENCODINGS, Member, contents, directory, untar
from gardenlib import GUARD, Connection, parse_fields, request_bytes
from serverproc import SANITIZED, refused_start
from test_volumes_routes import assert_error
from volumelib import volume_path

FAILED = "failed to stream p2p out from volume"


class Peer:
    """Something that is sent a stream: it takes one request, and answers as the test says."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/volumes/target/stream-in?path=."
        self.conn = None

    def accept(self):
        self.listener.settimeout(GUARD)
        self.conn = Connection(None, accepted=self.listener.accept()[0])
        lines = self.conn.take_until(b"\r\n\r\n").decode().split("\r\n")
        self.request, self.headers = lines[0], parse_fields(lines[1:])
        return self

    def body(self):
        return self.conn.chunked()[0]

    def answer(self, status, body=b""):
        self.conn.send(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body))

    def close(self):
        if self.conn:
            self.conn.close()
        self.listener.close()


@pytest.fixture
def peer():
    one = Peer()
    yield one
    one.close()


@pytest.fixture
def send(volumes, volume):
    """Begin a stream from the volume: call the result for the answer."""
    def begin(url, path=".", encoding="gzip"):
        result = []
        thread = threading.Thread(target=lambda: result.append(volumes.p2p_out(volume.handle, path, url, encoding)),
                                  daemon=True)
        thread.start()

        def answer():
            thread.join(2 * GUARD)
            return result[0]
        return answer
    return begin


def text(reply):
    assert reply.status == 200, reply
    assert reply.headers["content-type"] == "plain/text" and reply.headers["x-content-type-options"] == "nosniff"
    return reply.body.decode().strip()


def test_86_the_url(volumes):
    reply = volumes.request("GET", "/p2p-url")
    assert (reply.status, reply.body) == (200, b"http://127.0.0.1:%d" % volumes.address[1])
    assert reply.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("pattern", ["no-such-interface", "^o$"])
def test_87_no_interface(start_server, pattern):
    one = start_server("--baggageclaim-p2p-interface-name-pattern", pattern)
    assert_error(one.volumes.request("GET", "/p2p-url"), 500,
                 exactly="failed to get p2p url, network interface list is empty")


def test_87_a_pattern_that_is_none(tmp_path):
    code, output = refused_start("--baggageclaim-p2p-interface-name-pattern", "[", directory=tmp_path)
    assert code == 1 and "--baggageclaim-p2p-interface-name-pattern" in output


@pytest.mark.parametrize("query", ["", "path=.&streamInURL=http%3A%2F%2Fx", "path=.&encoding=gzip",
                                   "streamInURL=http%3A%2F%2Fx&encoding=gzip",
                                   "path=&streamInURL=http%3A%2F%2Fx&encoding=gzip",
                                   "path=.&streamInURL=&encoding=gzip", "path=.&streamInURL=http%3A%2F%2Fx&encoding="])
def test_88_what_must_be_given(volumes, volume, query):
    assert_error(volumes.request("PUT", volume_path(volume.handle, f"/stream-p2p-out?{query}")), 400, FAILED)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_89_from_volume_to_volume(volumes, make_volume, encoding):
    source = make_volume().fill(directory("d"), Member("d/file", b"x", uid=7, gid=8), "file")
    whole, part = make_volume(), make_volume()
    url = volumes.p2p_url() + volume_path("{}", "/stream-in?path=.").replace("%7B%7D", "{}")
    assert text(volumes.p2p_out(source.handle, ".", url.format(whole.handle), encoding)) == "ok"
    assert whole.tree() == source.tree()
    assert text(volumes.p2p_out(source.handle, "d/file", url.format(part.handle), encoding)) == "ok"
    assert contents(part.tree()) == {"file": b"x"}


def test_89_what_is_sent(volume, peer, send):
    volume.fill("file")
    answer = send(peer.url)
    peer.accept()
    assert peer.request == "PUT /volumes/target/stream-in?path=. HTTP/1.1"
    assert peer.headers["content-encoding"] == "gzip" and peer.headers["transfer-encoding"] == "chunked"
    assert contents(untar(gzip.decompress(peer.body()))) == {"file": b"content of file"}
    peer.answer("204 No Content")
    assert text(answer()) == "ok"


@pytest.mark.skipif(SANITIZED, reason="it only waits, and release has done so")
def test_90_a_long_transfer(peer, send):
    """An empty line every 30 seconds, so that nobody in between takes the connection for dead."""
    answer = send(peer.url)
    peer.accept().body()
    timer = threading.Timer(32, peer.answer, ["204 No Content"])
    timer.start()
    reply = answer()
    timer.join()
    assert text(reply) == "ok" and reply.body.startswith(b"\n")


def test_91_a_missing_path(volumes, volume, peer):
    answer = text(volumes.p2p_out(volume.handle, "bogus", peer.url))
    assert answer.startswith(f"{FAILED}: ")
    assert "failed to compress source volume" in answer and "no such file or directory" in answer.lower()


def test_91_a_missing_volume(volumes, peer):
    reply = volumes.p2p_out("missing", ".", peer.url)
    assert reply.status == 404 or text(reply) == f"{FAILED}: volume does not exist"


def test_91_an_unknown_encoding(volumes, volume, peer):
    assert "unsupported stream encoding" in text(volumes.p2p_out(volume.handle, ".", peer.url, "unsupported"))


@pytest.mark.parametrize("status,body,expected", [
    ("500 Internal Server Error", b'{"error":"failed to stream in to volume"}\n',
     "p2p-stream-in 500: failed to stream in to volume"),
    ("403 Forbidden", b'{"error":"exceeded volume streaming limit of 9B"}\n', "exceeded volume streaming limit of 9B"),
    ("500 Internal Server Error", b"no document", "p2p-stream-in 500"), ("200 OK", b"", "p2p-stream-in 200"),
    ("302 Found", b"", "p2p-stream-in 302")])
def test_92_the_answer_of_the_peer(peer, send, status, body, expected):
    answer = send(peer.url)
    peer.accept().body()
    peer.answer(status, body)
    got = text(answer())
    assert got.startswith(f"{FAILED}: ") and expected in got


def test_92_an_answer_before_the_end(volume, peer, send):
    volume.fill(*[Member(f"f{n}", bytes(range(256)) * 4096) for n in range(16)])
    answer = send(peer.url, encoding="raw")
    peer.accept()
    peer.answer("404 Not Found", b'{"error":"failed to stream in to volume"}\n')
    assert "p2p-stream-in 404" in text(answer())


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://host.invalid/", "ftp://127.0.0.1/x", "no url",
                                 "file:///etc/passwd", "http://"])
def test_92_no_peer(volumes, volume, url):
    assert text(volumes.p2p_out(volume.handle, ".", url)).startswith(f"{FAILED}: ")


def test_92_a_peer_that_hangs_up(peer, send):
    answer = send(peer.url)
    peer.accept()
    peer.close()
    assert text(answer()).startswith(f"{FAILED}: ")


def test_93_the_caller_leaves(volumes, volume, peer):
    volume.fill(*[Member(f"f{n}", bytes(range(256)) * 4096) for n in range(16)])
    conn = volumes.connect()
    conn.send(request_bytes("PUT", volume_path(volume.handle, f"/stream-p2p-out?path=.&encoding=raw&streamInURL="
                                               f"{quote(peer.url, safe='')}"), body=b""))
    peer.accept()
    conn.close()
    with pytest.raises((EOFError, ConnectionResetError)):
        peer.body()


def test_a_peer_is_a_server_like_this_one(start_server, volumes, volume):
    """Between two of them, and the limit of the other one holds."""
    other = start_server("--baggageclaim-p2p-interface-name-pattern", "lo")
    volume.fill("file")
    handle = other.volumes.make()["handle"]
    url = other.volumes.p2p_url() + volume_path(handle, "/stream-in?path=.")
    assert text(volumes.p2p_out(volume.handle, ".", url)) == "ok"
    assert contents(other.volumes.tree(handle)) == {"file": b"content of file"}
    assert "exceeded volume streaming limit of 9B" in text(
        volumes.p2p_out(volume.handle, ".", url + "&limit=0.000009"))
    assert "p2p-stream-in 404" in text(volumes.p2p_out(volume.handle, ".", url.replace(handle, "missing")))


def test_without_libcurl_the_rest_works(start_server, peer, tmp_path):
    """It is loaded when it is first needed: then the answer says that it is not there."""
    (tmp_path / "libcurl.so.4").write_text("no library")
    server = start_server("--baggageclaim-p2p-target", "127.0.0.1", env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)})
    handle = server.volumes.make()["handle"]
    said = text(server.volumes.p2p_out(handle, ".", peer.url))
    assert said.startswith(f"{FAILED}: ") and "libcurl cannot be loaded" in said
    assert [line["data"]["library"] for line in server.log_lines() if "library-not-loaded" in line["message"]] == [
        "libcurl.so.4"]
    assert server.volumes.handles() == [handle]


@pytest.mark.parametrize("options,allowed", [
    ([], False), (["--baggageclaim-p2p-target", "10.0.0.0/8"], False),
    (["--baggageclaim-p2p-target", "10.0.0.0/8,127.0.0.1"], True),
    (["--baggageclaim-p2p-target", "::1"], False), (["--baggageclaim-p2p-target", "127.0.0.0/30"], True)])
def test_only_to_what_is_allowed(start_server, peer, options, allowed):
    """Without an interface there are no neighbours; targets are addresses, whatever they are called."""
    one = start_server(*options)
    handle = one.volumes.make()["handle"]
    assert one.volumes.request("GET", "/p2p-url").status == 500
    if not allowed:
        for url in (peer.url, peer.url.replace("127.0.0.1", "localhost")):
            assert "not in a network" in text(one.volumes.p2p_out(handle, ".", url))
        return
    replies = []
    thread = threading.Thread(target=lambda: replies.append(one.volumes.p2p_out(handle, ".", peer.url)))
    thread.start()
    peer.accept().body()
    peer.answer("204 No Content")
    thread.join()
    assert text(replies[0]) == "ok"


@pytest.mark.parametrize("options", [["--baggageclaim-p2p-target", "10.0.0.0/33"], ["--baggageclaim-p2p-target", "x"],
                                     ["--baggageclaim-p2p-interface-family", "5"]])
def test_options_that_cannot_be(tmp_path, options):
    code, output = refused_start(*options, directory=tmp_path)
    assert code == 1 and options[0] in output
