"""Archives that go: lines 74-85 of the volumes' acceptance list."""
import os
import tarfile

import oracle
import pytest
import roots
from archives import ENCODINGS, Member, contents, directory, encode, members, symlink, untar
from gardenlib import wait_until
from test_volumes_routes import assert_error

FAILED = "failed to stream out from volume"
NO_FILE = "no such file or directory"
MIB = 1 << 20
each_encoding = pytest.mark.parametrize("encoding", ENCODINGS)


def place_on_disk(server, volume):
    """Where the files of a volume lie that nothing was ever copied from or to."""
    return server.work / "volumes/live" / volume.handle / "volume"


@pytest.fixture
def big(volume):
    """More than what is under way between the server and a client that does not read; it does not shrink either."""
    return volume.fill(*[Member(f"part-{n:02}", os.urandom(MIB)) for n in range(24)])


@pytest.mark.parametrize("privileged", [False, True])
def test_74_a_file(make_volume, privileged):
    one = make_volume(privileged=privileged)
    one.fill(Member("d/file", b"words", mode=0o640, uid=1234, gid=5678, mtime=10 ** 9), Member("mine", b"x"))
    for path in ("d/file", "/d/file", "./d/file"):
        reply = one.client.stream_out(one.handle, path)
        (member,) = members(reply.body)
        assert (member.name, member.data, member.mode, member.owner, member.mtime, member.uname, member.gname) == (
            "file", b"words", 0o640, (1234, 5678), 10 ** 9, "", "")
    (member,) = one.tree("mine").values()
    assert member.owner == (0, 0)


@each_encoding
@pytest.mark.parametrize("path", [None, "", ".", "/", "./"])
def test_75_a_directory(volumes, volume, encoding, path):
    volume.fill(directory("sub"), "sub/some-file", "other-file")
    found = members(volumes.stream_out(volume.handle, path, encoding).body)
    assert {member.name.rstrip("/") for member in found} == {".", "./sub", "./sub/some-file", "./other-file"}
    assert found[0].name in (".", "./")
    assert {member.data for member in found if member.kind == tarfile.REGTYPE} == {
        b"content of sub/some-file", b"content of other-file"}


@pytest.mark.skipif(os.cpu_count() < 2, reason="needs more than one processor")
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_several_threads_compress(server, volumes, big, encoding):
    with volumes.download(big.handle, encoding=encoding) as stream:
        assert stream.status == 200
        wait_until(lambda: any(len(os.listdir(f"/proc/{pid}/task")) > 1 for pid in oracle.helpers(server)),
                   "a helper has more than one thread")
        stream.rest()


@pytest.mark.parametrize("path", ["sub", "/sub", "sub/", "./sub/."])
def test_75_a_directory_below_the_root(volumes, volume, path):
    volume.fill(directory("sub", mode=0o700), "sub/some-file")
    found = members(volumes.stream_out(volume.handle, path).body)
    assert {member.name.rstrip("/") for member in found} == {".", "./some-file"} and found[0].mode == 0o700


@pytest.mark.parametrize("path", ["missing", "file/below", "d/missing", "dangling", "loop", "d/../missing"])
def test_76_a_missing_path(volumes, volume, path):
    volume.fill("file", directory("d"), symlink("dangling", "nowhere"), symlink("loop", "loop"))
    reply = volumes.stream_out(volume.handle, path)
    if path == "loop" and reply.status == 500:
        assert_error(reply, 500, FAILED)
        return
    assert_error(reply, 404, exactly=NO_FILE)


@pytest.mark.parametrize("path", [None, "missing"])
def test_77_a_missing_volume(volumes, path):
    text = assert_error(volumes.stream_out("missing", path), 404, FAILED)
    assert text != NO_FILE


@pytest.mark.parametrize("encoding", ["unsupported", None, "", "gzip, deflate", "GZIP", "gzip;q=1"])
def test_78_unknown_encoding(volumes, volume, encoding):
    for path in (None, "missing"):  # it is looked at first
        assert_error(volumes.stream_out(volume.handle, path, encoding), 400, FAILED)


@pytest.mark.parametrize("encoding,kind", [("gzip", "application/x-gzip"), ("zstd", "application/octet-stream"),
                                           ("s2", "application/octet-stream"), ("raw", "application/octet-stream")])
def test_78_the_head(volumes, volume, encoding, kind):
    reply = volumes.stream_out(volume.handle, encoding=encoding)
    assert (reply.status, reply.headers["content-type"]) == (200, kind)
    assert "content-encoding" not in reply.headers


def test_79_from_volume_to_volume(volumes, make_volume):
    source = make_volume().fill(Member("root's", b"1"), Member("other", b"2", uid=7, gid=8, mode=0o4711))
    for encoding in ENCODINGS:
        for privileged in (False, True):
            target = make_volume(privileged=privileged)
            with volumes.download(source.handle, ".", encoding) as stream:
                data = stream.rest()
            assert volumes.stream_in(target.handle, data, ".", encoding).status == 204
            assert target.tree() == source.tree()


def test_80_sockets_are_left_out(server, volume):
    volume.fill("file", directory("d"))
    roots.EVIL_KINDS["socket"](place_on_disk(server, volume) / "d/socket", None)
    assert contents(volume.tree()) == {"file": b"content of file", "d": b""}


@pytest.mark.parametrize("change", ["delete", "shrink", "grow", "replace"])
def test_81_files_that_change_while_they_are_read(server, volumes, big, change):
    place = place_on_disk(server, big)
    with volumes.download(big.handle) as stream:
        data = stream.next()
        for name in os.listdir(place):
            path = place / name
            if change == "delete":
                path.unlink()
            elif change == "shrink":
                os.truncate(path, 1000)
            elif change == "grow":
                os.truncate(path, 2 * MIB)
            else:
                path.unlink()
                path.symlink_to("/etc/passwd")
        data += stream.rest()
    tree = untar(data)
    sizes = {len(member.data) for name, member in tree.items() if name != "." and member.kind == tarfile.REGTYPE}
    assert sizes <= {MIB} if change == "delete" else sizes <= {0, 1000, MIB, 2 * MIB}
    assert all(b"root:" not in member.data[:100] for member in tree.values())


@each_encoding
def test_82_a_failure_behind_the_head(server, volumes, big, encoding):
    """The connection is broken off, so that nobody takes what came for the whole."""
    with volumes.download(big.handle, encoding=encoding) as stream:
        assert stream.status == 200 and stream.next()
        working = oracle.helpers(server)
        assert working
        oracle.kill_all(working)
        with pytest.raises(EOFError):
            stream.rest()
    server.check()
    assert len(big.tree()) == 25


@each_encoding
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_83_a_client_that_has_seen_enough(server, volumes, big, encoding, leave):
    stream = volumes.download(big.handle, encoding=encoding)
    assert stream.next()
    assert oracle.helpers(server)
    getattr(stream.conn, leave)()
    wait_until(lambda: not oracle.helpers(server), "nobody reads the volume any more")
    big.destroy()
    wait_until(lambda: server.volume_files() == [], "its files are gone")


@pytest.mark.parametrize("path", ["../../../../etc/passwd", "/etc/passwd", "out/passwd", "out", "up/etc/passwd",
                                  "../volume/file", "proc/self/root/etc/passwd"])
def test_84_nothing_outside_is_served(volumes, volume, path):
    volume.fill("file", symlink("out", "/etc"), symlink("up", "../" * 30), symlink("proc", "/proc"))
    reply = volumes.stream_out(volume.handle, path)
    assert reply.status in (404, 500) and b"root:" not in reply.body, reply


def test_84_links_end_within_the_volume(volume):
    volume.fill(directory("etc"), Member("etc/passwd", b"the volume's own"), symlink("out", "/etc"),
                symlink("up", "../../.."))
    for path in ("../../etc/passwd", "/etc/passwd", "out/passwd", "up/etc/passwd"):
        assert volume.file(path) == b"the volume's own"


def test_85_a_link_to_a_file(volumes, volume):
    volume.fill(directory("d"), Member("d/b", b"words", mode=0o751, uid=5, gid=6), symlink("a", "d/b"),
                symlink("c", "a"))
    for name in ("a", "c"):
        (member,) = members(volumes.stream_out(volume.handle, name).body)
        assert (member.name, member.kind, member.data, member.mode, member.owner) == (
            name, tarfile.REGTYPE, b"words", 0o751, (5, 6))
    assert volume.tree()["a"].target == "d/b"  # within a directory they stay links


def test_85_a_link_to_a_directory(volumes, volume):
    volume.fill(directory("d"), "d/file", symlink("link", "d"))
    found = members(volumes.stream_out(volume.handle, "link").body)
    assert {member.name.rstrip("/") for member in found} == {".", "./file"}


def test_what_has_no_end_is_no_stream(server, volumes, volume):
    """A fifo or a device at the path itself would never end."""
    os.mkfifo(place_on_disk(server, volume) / "fifo")
    with volumes.download(volume.handle, "fifo") as stream:
        if stream.status == 200:
            (member,) = members(stream.rest())
            assert member.kind == tarfile.FIFOTYPE
        else:
            assert stream.status in (404, 500)


def test_names_of_any_bytes(server, volume):
    names = [b"n" * 255, b"\xff\xfe-not-utf-8", "ü😀".encode(), b" space ", b"new\nline", b"-dash", b"back\\slash", b"*"]
    place = os.fsencode(place_on_disk(server, volume))
    for name in names:
        with open(os.path.join(place, name), "wb") as file:
            file.write(name)
    for encoding in ENCODINGS:
        tree = volume.tree(encoding=encoding)
        assert {name.encode("utf-8", "surrogateescape"): member.data for name, member in tree.items()
                if name != "."} == {name: name for name in names}


def test_sparse_files_are_whole(server, volume):
    path = place_on_disk(server, volume) / "sparse"
    with open(path, "wb") as file:
        file.seek(3 * MIB)
        file.write(b"end")
    assert volume.file("sparse") == bytes(3 * MIB) + b"end"


def test_many_readers(volumes, volume):
    """Each has a stream of its own, at its own speed."""
    volume.fill(*[Member(f"file-{n}", os.urandom(MIB)) for n in range(8)])
    expected = volume.tree()
    streams = [volumes.download(volume.handle) for _ in range(12)]
    begun = [stream.next() for stream in streams]
    for start, stream in zip(begun, streams):
        assert untar(start + stream.rest()) == expected
        stream.close()


def test_a_long_way_down(server, volume):
    """Deeper than any path can be named."""
    depth, here = 1500, os.open(place_on_disk(server, volume), os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert len(volume.tree()) == depth + 1


def test_the_source_of_a_copy_streams_as_before(volumes, make_volume):
    parent = make_volume().fill(directory("d"), "d/file", "file")
    before = parent.tree()
    copy = make_volume(parent=parent)
    copy.fill(Member("file", b"changed"))
    assert parent.tree() == before
    data = encode("gzip", volumes.stream_out(copy.handle).body)
    other = make_volume()
    assert volumes.stream_in(other.handle, data).status == 204
    assert other.tree() == copy.tree()
