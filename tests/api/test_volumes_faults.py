"""What ends too early: clients in the middle of a stream, helpers, descriptors, the server itself. Whatever breaks off is
told, leaves nothing, and disturbs nobody else."""
import contextlib
import os
import resource
import signal
import socket
import threading
from urllib.parse import urlencode

import oracle
import pytest
from archives import Member, contents, decode, encode, tar, untar
from conftest import unique_name
from gardenlib import head_bytes, request_bytes, wait_until
from serverproc import NO_POOL, without_library
from test_volumes_routes import assert_error
from volumelib import HeldImport, Refused, cow, imported, volume_path

BIG = [Member(f"part-{n}", os.urandom(1 << 20)) for n in range(24)]  # more than pipes and sockets hold


def no_helpers(server):
    wait_until(lambda: not oracle.helpers(server), "no helper is left")


def at_work(server):
    """The helper and the process in it that has the archive."""
    return wait_until(lambda: len(found := oracle.helpers(server)) == 2 and found, "a helper is at work")


@pytest.fixture
def held(tmp_path):
    with HeldImport(tmp_path / "held.tgz") as one:
        yield one


def half(archive):
    return archive[:len(archive) // 2]


def test_without_its_library_an_archive_is_refused_and_all_else_works(start_server):
    server = start_server(prefix=without_library("libarchive.so.13"))
    server.volumes.make("v")
    reply = server.volumes.stream_in("v", tar(Member("file")))
    assert "libarchive is missing" in assert_error(reply, 500, "failed to stream in to volume")
    server.volumes.make("copy", cow("v"))
    assert server.volumes.handles() == ["copy", "v"] and set(contents(server.volumes.tree("v"))) <= {"."}


# ---- clients ---------------------------------------------------------------------------------------------------------

def test_headers_and_never_a_body(server, volumes, volume):
    """It waits as long as its client does, and nobody waits for it."""
    volume.fill("before")
    upload = volumes.upload(volume.handle, "never", "raw")
    at_work(server)
    volume.fill("beside")
    copy = volumes.make(None, cow(volume.handle))["handle"]
    assert {"before", "beside"} <= set(contents(volumes.tree(copy)))
    upload.close()
    no_helpers(server)
    assert {"before", "beside"} <= set(contents(volume.tree()))


def test_a_volume_is_destroyed_and_its_stream_never_comes(server, volumes):
    handle = volumes.make()["handle"]
    upload = volumes.upload(handle, None, "raw")
    at_work(server)
    volumes.destroy(handle)
    assert volumes.make(handle)["handle"] == handle
    assert contents(volumes.tree(handle)) == {}
    upload.close()
    volumes.destroy(handle)
    wait_until(lambda: not server.volume_files(), "the files of both are gone")


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("framing", ["chunk", "length"])
def test_a_client_leaves_in_the_middle_of_a_chunk(server, volumes, volume, framing, leave):
    fields = {"Host": "api", "Content-Encoding": "raw"}
    fields |= {"Transfer-Encoding": "chunked"} if framing == "chunk" else {"Content-Length": 100000}
    conn = volumes.connect()
    conn.send(head_bytes("PUT", volume_path(volume.handle, "/stream-in"), fields))
    conn.send((b"186a0\r\n" if framing == "chunk" else b"") + tar("file")[:700])
    at_work(server)
    getattr(conn, leave)()
    no_helpers(server)
    volume.fill("whole")
    assert volume.file("whole") == b"content of whole"


def test_more_than_the_archive(server, volumes, volume):
    """What comes behind the end mark is read away, however much; the stream ends when the client says so."""
    upload = volumes.upload(volume.handle, None, "raw")
    upload.send(tar("file"))
    for _ in range(64):
        upload.send(bytes(65536))
    at_work(server)
    assert upload.finish().status == 204
    assert contents(volume.tree()) == {"file": b"content of file"}


def test_a_reader_that_ends_its_own_side(server, volumes, volume):
    """A half-close behind the request is no farewell."""
    volume.fill(*BIG)
    for encoding in ("raw", "zstd"):
        with volumes.connect() as conn:
            conn.send(request_bytes("PUT", volume_path(volume.handle, "/stream-out"), body=b"",
                                    headers={"Accept-Encoding": encoding}))
            conn.half_close()
            reply = conn.reply("PUT")
        assert reply.status == 200
        assert contents(untar(decode(encoding, reply.body))) == {member.name: member.data for member in BIG}


# ---- helpers ---------------------------------------------------------------------------------------------------------

def kill_one(pids, which):
    """One of both, and the other one goes as well; whoever was stopped must go on for that."""
    os.kill(pids[which], signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: all(not (task := oracle.Task(pid)).alive or task.state == "Z" for pid in pids), "both are gone")


WHICH = pytest.mark.parametrize("which", [0, 1], ids=["outer", "inner"])


@WHICH
def test_the_helper_of_a_stream_in_is_killed(server, volumes, volume, which):
    for is_over in (False, True):
        upload = volumes.upload(volume.handle, None, "raw")
        upload.send(half(tar("file", "more")))
        kill_one(at_work(server), which)
        reply = upload.finish() if is_over else upload.send_parts(bytes(65536) for _ in range(100))
        assert_error(reply, 500, "failed to stream in to volume")
    volume.fill("whole")
    assert volume.file("whole") == b"content of whole"


@WHICH
def test_the_helper_of_a_stream_out_is_killed(server, volumes, volume, which):
    """What is not whole does not end as if it were."""
    volume.fill(*BIG)
    with volumes.download(volume.handle) as stream:
        stream.next()
        kill_one(at_work(server), which)
        with pytest.raises(EOFError):
            stream.rest()
    no_helpers(server)
    assert len(contents(volume.tree())) == len(BIG)


@WHICH
@pytest.mark.parametrize("how", ["create", "start"])
def test_the_helper_of_an_import_is_killed(server, volumes, held, how, which):
    handle, refusals = unique_name("import"), []

    def create():
        try:
            volumes.create(handle, held.strategy)
        except Refused as refused:
            refusals.append(refused.reply)

    creator = threading.Thread(target=create) if how == "create" else None
    if creator:
        creator.start()
        held.hold(server)
    else:
        held.begin(server, handle)
    kill_one(at_work(server), which)
    if creator:
        creator.join()
    else:
        refusals.append(volumes.poll_until_done(handle))
        assert volumes.forget(handle).status == 204
    assert_error(refusals[0], 500, "failed to create volume")
    assert not volumes.exists(handle)
    wait_until(lambda: not server.volume_files(), "nothing of it is left")
    volumes.create(handle)


# ---- descriptors -----------------------------------------------------------------------------------------------------

class FewDescriptors:
    """A server that can open so many more, and no other."""

    def __init__(self, server):
        self.server, self.pid = server, server.pid
        self.limits = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)

    def leave(self, n):
        """It takes the lowest number that is free: between those in use, too. The spare one, to refuse clients with,
        is among those: a server that has lost it gets it back when it accepts somebody."""
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self.limits)
        assert self.server.volumes.request("GET", "/volumes/none").status == 404
        used = {int(name) for name in os.listdir(f"/proc/{self.pid}/fd")}
        free = [number for number in range(max(used) + n + 2) if number not in used]
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (free[n], self.limits[1]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self.limits)


def attempt(work):
    """A status; 503 is the answer of a server that cannot even accept, at times with a reset behind it."""
    try:
        return work()
    except Refused as refused:
        return refused.reply.status
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return 503


def test_descriptors_run_short(start_server, tmp_path):
    server = start_server(*NO_POOL)
    volumes, archive = server.volumes, encode("gzip", tar("file"))
    volumes.make("base")
    volumes.fill("base", "file")
    (tmp_path / "archive.tgz").write_bytes(archive)
    source = imported(tmp_path / "archive.tgz")
    works = {"in": lambda: volumes.stream_in("base", archive).status,
             "out": lambda: volumes.stream_out("base").status,
             "import": lambda: volumes.create("imported", source) and 201,
             "copy": lambda: volumes.create("copied", cow("base")) and 201,
             "destroy": lambda: volumes.request("DELETE", "/volumes/copied").status}
    no_helpers(server)
    before = oracle.open_files(server.pid)
    statuses = {name: set() for name in works}
    with FewDescriptors(server) as few:
        for n in range(14):
            for name, work in works.items():
                few.leave(n)
                statuses[name].add(attempt(work))
            volumes_left = {"copied", "imported"}
            few.leave(50)
            volumes.destroy_many(sorted(volumes_left))
    print(statuses)
    for name, found in statuses.items():
        assert found <= {200, 201, 204, 404, 500, 503}, (name, found)
        assert 500 in found or name in ("copy", "destroy"), (name, found)
        assert found & {200, 201, 204}, (name, found)
    for name, work in works.items():
        assert work() in (200, 201, 204), name
    assert contents(volumes.tree("base")) == {"file": b"content of file"}
    volumes.destroy_many(["imported"])
    no_helpers(server)
    wait_until(lambda: sorted(path.name for path in server.volume_files()) and not oracle.difference(
        {"files": before}, {"files": oracle.open_files(server.pid)}), "no descriptor is left open")


def test_deletions_wait_for_descriptors(start_server):
    """What could not be deleted is, when it can be."""
    server = start_server(*NO_POOL)
    server.volumes.make("one")
    server.volumes.fill("one", "d/e/f/file")
    dead = server.work / "volumes/dead"
    with FewDescriptors(server) as few, server.volumes.connect() as conn:
        conn.send(request_bytes("GET", "/volumes/one"))
        assert conn.reply().status == 200
        few.leave(0)
        conn.send(request_bytes("DELETE", "/volumes/one"))
        assert conn.reply("DELETE").status == 204
        wait_until(lambda: any(line.get("message") == "cloche.dead-not-deleted" for line in server.log_lines()),
                   "it could not be deleted")
        assert os.listdir(dead)
    wait_until(lambda: not server.volume_files(), "it is gone")


# ---- the server ------------------------------------------------------------------------------------------------------

def ends(server):
    """TERM, with something at work that would never end: exit 0, and no helper stays."""
    helpers = oracle.helpers(server)
    server.terminate()
    wait_until(lambda: not any(oracle.Task(pid).alive for pid in helpers), "the helpers have ended")


def starts_again(server, expected):
    server.start()
    assert {handle: set(contents(server.volumes.tree(handle))) for handle in server.volumes.handles()} == expected


def test_term_during_uploads(start_server, tmp_path):
    """One that has sent nothing, one half of it, one all but the end, one that does not stop sending."""
    server = start_server(directory=tmp_path / "server")
    for n in range(4):
        server.volumes.make(f"v{n}")
        server.volumes.fill(f"v{n}", "before")
    archive = tar("file")
    uploads = [server.volumes.upload(f"v{n}", None, "raw") for n in range(4)]
    uploads[1].send(archive[:700])
    uploads[2].send(archive)
    sender = threading.Thread(target=uploads[3]._send_parts, args=(iter(lambda: bytes(65536), None),), daemon=True)
    uploads[3].send(archive)
    sender.start()
    wait_until(lambda: len(oracle.helpers(server)) == 8, "all helpers are at work")
    ends(server)
    for upload in uploads:
        upload.close()
    sender.join()
    server.start()
    for n in range(4):
        assert contents(server.volumes.tree(f"v{n}"))["before"] == b"content of before"


@pytest.mark.parametrize("which", ["in", "in-over", "out"])
def test_term_while_a_helper_hangs(start_server, tmp_path, which):
    server = start_server(directory=tmp_path / "server")
    server.volumes.make("one")
    server.volumes.fill("one", *BIG)
    if which == "out":
        stream = server.volumes.download("one")
    else:
        stream = server.volumes.upload("one", None, "raw")
        stream.send(tar("more")[:512])
    for pid in at_work(server):
        os.kill(pid, signal.SIGSTOP)
    if which == "in":  # more than the pipe holds
        threading.Thread(target=stream._send_parts, args=([bytes(1 << 20)] * 64,), daemon=True).start()
    elif which == "in-over":
        stream.send_last()
    ends(server)
    stream.close()
    server.start()
    assert {member.name for member in BIG} <= set(contents(server.volumes.tree("one")))


@pytest.mark.parametrize("pace", ["paused", "reading"])
def test_term_during_downloads(start_server, tmp_path, pace):
    server = start_server(directory=tmp_path / "server")
    server.volumes.make("one")
    server.volumes.fill("one", *BIG)
    streams = [server.volumes.download("one", encoding=encoding) for encoding in ("raw", "gzip")]
    broken = []

    def read(stream):
        try:
            stream.rest()
        except EOFError:
            broken.append(stream)

    readers = [threading.Thread(target=read, args=(stream,)) for stream in streams]
    if pace == "reading":
        for stream, reader in zip(streams, readers):
            stream.next()
            reader.start()
    ends(server)
    if pace == "paused":
        for reader in readers:
            reader.start()
    for reader in readers:
        reader.join()
    assert pace == "reading" or len(broken) == len(streams)
    starts_again(server, {"one": {member.name for member in BIG}})


def test_term_while_a_peer_says_nothing(start_server, tmp_path):
    server = start_server("--baggageclaim-p2p-target", "127.0.0.0/8", directory=tmp_path / "server")
    server.volumes.make("one")
    server.volumes.fill("one", *BIG)
    with socket.create_server(("127.0.0.1", 0)) as peer, server.volumes.connect() as conn:
        query = urlencode({"path": ".", "encoding": "raw", "streamInURL": "http://%s:%d/in" % peer.getsockname()})
        conn.send(request_bytes("PUT", volume_path("one", f"/stream-p2p-out?{query}"), body=b""))
        assert conn.head()[0] == 200
        caller, _ = peer.accept()
        with caller:
            ends(server)
    starts_again(server, {"one": {member.name for member in BIG}})


@pytest.mark.parametrize("how", ["create", "start"])
def test_term_during_an_import(start_server, tmp_path, held, how):
    server = start_server(directory=tmp_path / "server")
    server.volumes.make("before")
    replies = []

    def create():
        try:
            server.volumes.create("imported", held.strategy)
        except Refused as refused:
            replies.append(refused.reply)

    creator = threading.Thread(target=create) if how == "create" else None
    if creator:
        creator.start()
        held.hold(server)
    else:
        held.begin(server, "imported")
    ends(server)
    if creator:
        creator.join()
        assert_error(replies[0], 500, "failed to create volume")
        assert b"the server stops" in replies[0].body
    starts_again(server, {"before": set()})
    wait_until(lambda: not os.listdir(server.work / "volumes/init"), "nothing of it is left")


def test_term_with_imports_in_a_queue(start_server, tmp_path, held):
    """More than are made at a time, some of them cancelled."""
    server = start_server(directory=tmp_path / "server")
    held.begin(server, "v0")
    for n in range(1, 30):
        assert server.volumes.start(f"v{n}", held.strategy).status == 201
    wait_until(lambda: held.stop_pairs(server) == 8, "eight are at work")
    for n in (0, 29):
        assert server.volumes.forget(f"v{n}").status == 204
    ends(server)
    server.start()
    for handle in server.volumes.handles():  # those that were too fast
        assert set(contents(server.volumes.tree(handle))) == set(held.names)
