"""Archives that come: lines 56-73 of the volumes' acceptance list."""
import gzip
import os
import subprocess
import tarfile
import threading

import pytest
from archives import ENCODINGS, SNAPPY_START, Member, contents, directory, encode, fifo, hardlink, masked_crc, symlink, tar
from conftest import unique_name
from gardenlib import wait_until
from test_volumes_routes import assert_error
from volumelib import VolumeClient, volume_path

FAILED = "failed to stream in to volume"
each_encoding = pytest.mark.parametrize("encoding", ENCODINGS)


@each_encoding
def test_56_each_encoding(volumes, volume, encoding):
    reply = volumes.stream_in(volume.handle, encode(encoding, tar("some-file")), "dest-path", encoding)
    assert (reply.status, reply.body) == (204, b"")
    assert contents(volume.tree()) == {"dest-path": b"", "dest-path/some-file": b"content of some-file"}
    made = volume.tree()["dest-path"]
    assert (made.mode, made.owner) == (0o755, (0, 0))


@each_encoding
def test_56_a_large_one(volumes, volume, encoding):
    data = os.urandom(1 << 20) + bytes(1 << 20) if encoding != "s2" else os.urandom(1 << 18)
    volume.fill(Member("big", data), *[f"file-{n}" for n in range(200)], encoding=encoding)
    tree = volume.tree(encoding="zstd")
    assert tree["big"].data == data and len(tree) == 202


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_56_large_ones_and_what_is_between_them(volumes, volume, form):
    """Most of a large file does not pass through the helper, what is around it does: all ways in which the two can meet."""
    sizes = (1 << 18, (1 << 18) + 1, (1 << 19) - 512, 1 << 19, (1 << 19) + 511, 700_001, 1 << 20, (3 << 20) + 513)
    pool = os.urandom(max(sizes) + 8)
    files = {f"{'long/' * (30 * (n % 2))}file-{n}": pool[n:n + size] for n, size in enumerate(sizes)}
    members = [Member(name, data) for name, data in files.items()]
    between = [f"small-{n}" for n in range(5)]
    archive = tar(*members, *between, *(Member(f"again/{m.name}", m.data) for m in members[::-1]), "last", form=form)
    assert volumes.upload(volume.handle, encoding="raw").send_all(archive, chunk=100_003).status == 204
    tree = volume.tree()
    assert all(tree[top + name].data == data for name, data in files.items() for top in ("", "again/"))
    assert all(tree[name].data == f"content of {name}".encode() for name in [*between, "last"])


def test_56_chunks_of_any_size(volumes, volume):
    data = encode("gzip", tar("file"))
    for n, size in enumerate((1, 7, 511, 512, 513, len(data))):
        upload = volumes.upload(volume.handle, f"d{n}")
        assert upload.send_all(data, chunk=size).status == 204
        assert volume.file(f"d{n}/file") == b"content of file"


def test_56_a_body_with_a_length(volumes, volume):
    archive = tar("file")
    reply = volumes.request("PUT", volume_path(volume.handle, "/stream-in"), body=archive,
                            headers={"Content-Encoding": "raw"})
    assert (reply.status, reply.body) == (204, b"")
    assert volume.file("file") == b"content of file"


def snappy_chunk(kind, data, plain):
    body = masked_crc(plain).to_bytes(4, "little") + data
    return bytes([kind]) + len(body).to_bytes(3, "little") + body


def test_57_snappy_with_a_compressed_chunk(volumes, volume):
    archive = tar("file")
    # A run of one byte: a literal and copies one back. The rest is stored.
    zeros = bytes(60)
    literal_and_copy = bytes([60, 0, 0, 58 << 2 | 2, 1, 0])
    assert archive.endswith(zeros)
    rest = archive[:-60]
    stream = SNAPPY_START + snappy_chunk(1, rest, rest) + b"\xfe\x03\x00\x00abc" + snappy_chunk(
        0, literal_and_copy, zeros)
    assert volumes.stream_in(volume.handle, stream, encoding="s2").status == 204
    assert volume.file("file") == b"content of file"


@each_encoding
def test_58_over_the_limit(volumes, volume, encoding):
    reply = volumes.stream_in(volume.handle, encode(encoding, tar("some-file")), "dest-path", encoding, "0.000009")
    assert_error(reply, 403, exactly="exceeded volume streaming limit of 9B")
    assert not any("some-file" in name for name in volume.tree())


def test_59_over_a_limit_in_megabytes(volumes, volume):
    archive = tar(Member("big", os.urandom(3 << 20)))
    reply = volumes.stream_in(volume.handle, archive, encoding="raw", limit="1")
    assert_error(reply, 403, exactly="exceeded volume streaming limit of 1MB")
    reply = volumes.stream_in(volume.handle, archive, encoding="raw", limit="2.5")
    assert_error(reply, 403, exactly="exceeded volume streaming limit of 2MB")


def test_59_the_limit_counts_what_is_on_the_wire(volumes, volume):
    data = encode("gzip", tar(Member("zeros", bytes(4 << 20))))
    assert volumes.stream_in(volume.handle, data, limit="1").status == 204
    assert len(volume.file("zeros")) == 4 << 20


@pytest.mark.parametrize("limit", ["-1", "x", "1x", "--1", "1 MB"])
def test_60_no_limit_at_all(volumes, volume, limit):
    for handle in (volume.handle, "missing"):  # it is looked at first
        reply = volumes.stream_in(handle, encode("gzip", tar("file")), limit=limit)
        assert_error(reply, 400, exactly=f"invalid limit {limit}")
    assert contents(volume.tree()) == {}


@pytest.mark.parametrize("limit", ["0.000000", "0", "", "0.0000001", "1e3", "1000000000"])
def test_61_unlimited(volumes, volume, limit):
    volumes.fill(volume.handle)
    assert volumes.stream_in(volume.handle, encode("gzip", tar("file")), limit=limit).status == 204


BAD = [b"This is an invalid tar file!", b"", b"x" * 5000]


@each_encoding
@pytest.mark.parametrize("text", BAD, ids=["text", "nothing", "x"])
def test_62_no_archive(volumes, volume, encoding, text):
    assert_error(volumes.stream_in(volume.handle, text, encoding=encoding), 400, FAILED)
    assert_error(volumes.stream_in(volume.handle, encode(encoding, text), encoding=encoding), 400, FAILED)
    assert contents(volume.tree()) == {}


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "s2"])
def test_62_garbage_behind_the_encoding(volumes, volume, encoding):
    data = encode(encoding, tar("file")) + b"\x05trailing garbage"
    assert_error(volumes.stream_in(volume.handle, data, encoding=encoding), 400, FAILED)


def test_62_what_follows_the_end_mark_does_not_matter(volumes, volume):
    assert volumes.stream_in(volume.handle, tar("file") + b"trailing" * 200, encoding="raw").status == 204
    assert volume.file("file") == b"content of file"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_62_streams_in_several_parts(volumes, volume, encoding):
    archive = tar("file", "more")
    data = b"".join(encode(encoding, archive[at:at + 1000]) for at in range(0, len(archive), 1000))
    assert volumes.stream_in(volume.handle, data, encoding=encoding).status == 204
    assert set(contents(volume.tree())) == {"file", "more"}


@pytest.mark.parametrize("encoding", ["unsupported", None, "", "GZIP", "gzip, raw", "identity"])
def test_63_unknown_encoding(volumes, volume, encoding):
    assert_error(volumes.stream_in(volume.handle, b"", encoding=encoding), 400, FAILED)
    assert_error(volumes.stream_in("missing", b"", encoding=encoding), 404, FAILED)


@pytest.mark.parametrize("path", [None, "", ".", "/", "./", "//", "..", "/./", "../.."])
def test_64_the_root(volume, path):
    volume.fill("file", path=path)
    assert contents(volume.tree()) == {"file": b"content of file"}


@pytest.mark.parametrize("path,place", [("a/b", "a/b"), ("/a/b/", "a/b"), ("./a//b", "a/b"), ("../a", "a"),
                                        ("a..b", "ab"), ("ü x", "ü x"), ("a/../b", "a/b")])
def test_64_below_the_root(volume, path, place):
    volume.fill("file", path=path)
    assert volume.file(f"{place}/file") == b"content of file"


@pytest.mark.parametrize("privileged", [False, True])
def test_65_root_in_an_archive(make_volume, privileged):
    """Owners on disk are canonical here: a container sees root, whatever the flag says."""
    one = make_volume(privileged=privileged).fill(Member("root's", b"x"), Member("other", b"x", uid=1234, gid=5678),
                                                  Member("nobody's", b"x", uid=65534, gid=65534))
    tree = one.tree()
    assert [tree[name].owner for name in ("root's", "other", "nobody's")] == [(0, 0), (1234, 5678), (65534, 65534)]


def test_66_numbers_win_over_names(volume):
    volume.fill(Member("file", b"x", uid=1234, gid=1234, uname="root", gname="root"))
    assert volume.tree()["file"].owner == (1234, 1234)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6711, 0o1777, 0o000, 0o600])
def test_67_modes(make_volume, mode):
    for privileged in (False, True):
        one = make_volume(privileged=privileged)
        one.fill(Member("file", b"x", mode=mode, uid=5, gid=6), directory("dir", mode=mode))
        tree = one.tree()
        assert (tree["file"].mode, tree["dir"].mode, tree["file"].owner) == (mode, mode, (5, 6))


def test_68_every_kind(volume):
    long_name, long_target = "d/" + "n" * 250, "t" * 300
    volume.fill(directory("d"), Member("d/file", b"x" * 1000), hardlink("hard", "d/file"), symlink("soft", "d/file"),
                fifo("fifo", mode=0o640), Member(long_name, b"long"), symlink("long-link", long_target),
                Member("/absolute", b"made relative"), Member("./dotted", b"dotted"))
    tree = volume.tree()
    assert tree["fifo"].kind == tarfile.FIFOTYPE and tree["fifo"].mode == 0o640
    assert tree[long_name].data == b"long" and tree["long-link"].target == long_target
    assert tree["absolute"].data == b"made relative" and tree["dotted"].data == b"dotted"
    linked = {tree["hard"].target or "hard", tree["d/file"].target or "d/file"}
    assert len({name.removeprefix("./") for name in linked}) == 1
    volume.fill(Member("soft", b"no link any more"), Member("fifo", b"no fifo any more"), directory("d", mode=0o700))
    tree = volume.tree()
    assert tree["soft"].data == b"no link any more" and tree["fifo"].data == b"no fifo any more"
    assert tree["d"].mode == 0o700 and long_name in tree


def test_68_pax_headers(volumes, volume):
    name, long_name = "ü-\udcff", "p/" * 60 + "end"
    archive = tar(Member(name, b"x", uid=3_000_000, gid=4_000_000, pax={"comment": "of no matter"}),
                  Member(long_name, b"y"), form=tarfile.PAX_FORMAT)
    assert volumes.stream_in(volume.handle, archive, encoding="raw").status == 204
    tree = volume.tree()
    assert tree[name].owner == (3_000_000, 4_000_000) and tree[long_name].data == b"y"


@pytest.mark.parametrize("form", ["gnu", "posix", "ustar", "v7"])
def test_68_what_gnu_tar_makes(tmp_path, volumes, volume, form):
    with open(tmp_path / "sparse", "wb") as file:
        for at in (0, 1 << 20, 5 << 20):
            file.seek(at)
            file.write(b"data at %d" % at)
        file.truncate(6 << 20)
    (tmp_path / "plain").write_text("plain")
    sparse = ["--sparse"] if form in ("gnu", "posix") else []
    archive = subprocess.run(["tar", "-c", "-C", tmp_path, f"--format={form}", *sparse, "."], stdout=subprocess.PIPE,
                             check=True).stdout
    assert not sparse or len(archive) < 1 << 20
    assert volumes.stream_in(volume.handle, encode("gzip", archive)).status == 204
    assert volume.file("sparse") == (tmp_path / "sparse").read_bytes()
    assert volume.file("plain") == b"plain"


def inode(path):
    """What nobody changes by reading."""
    found = os.stat(path)
    return found.st_ino, found.st_mode, found.st_uid, found.st_nlink, found.st_mtime_ns, found.st_ctime_ns


def outside_is_untouched(path):
    return sorted(os.listdir(path)) == ["file"] and (path / "file").read_text() == "outside"


@pytest.mark.parametrize("name,members", [
    ("up", ["../x"]), ("up-deep", ["a/../../x"]), ("up-far", ["../" * 30 + "{}/x"]), ("absolute", ["{}/x"]),
    ("by-link", [symlink("l", "{}"), "l/x"]), ("by-relative-link", [symlink("l", "../" * 30 + "{}"), "l/x"]),
    ("overwrite", [symlink("l", "{}/file"), Member("l", b"inside")]),
    ("hard-link", [hardlink("l", "{}/file"), Member("l", b"inside")]),
    ("hard-link-up", [hardlink("l", "../" * 30 + "{}/file")]),
    ("link-for-a-directory", [directory("d"), symlink("d", "{}"), "d/x"]),
    ("root-as-a-link", [symlink(".", "{}"), "x"]), ("mode-by-link", [symlink("l", "{}"), directory("l", mode=0o777)])])
def test_69_nothing_outside_changes(tmp_path, volumes, volume, name, members):
    (tmp_path / "file").write_text("outside")
    before = inode(tmp_path / "file")
    place = str(tmp_path)[1:]
    members = [m.format(tmp_path) if isinstance(m, str) else
               m._replace(target=m.target.format(place if m.target.startswith("..") else tmp_path)) for m in members]
    reply = volumes.stream_in(volume.handle, tar(*members), encoding="raw")
    assert reply.status in (204, 400)
    assert outside_is_untouched(tmp_path) and inode(tmp_path / "file") == before
    if name.startswith("up"):
        assert_error(reply, 400, FAILED)


def test_69_a_link_in_the_path_of_the_stream(tmp_path, volumes, volume):
    volume.fill(symlink("out", str(tmp_path)), directory("d"), symlink("in", "d"))
    volumes.stream_in(volume.handle, tar("file"), "out", "raw")
    assert os.listdir(tmp_path) == []
    volume.fill("file", path="in")
    assert volume.file("d/file") == b"content of file"


def test_70_a_file_in_the_place_of_the_directory(volumes, volume):
    volume.fill("file")
    for path in ("file", "file/below"):
        reply = volumes.stream_in(volume.handle, encode("gzip", tar("more")), path)
        assert_error(reply, 500, FAILED)
    assert contents(volume.tree()) == {"file": b"content of file"}


@each_encoding
def test_71_a_stream_that_is_cut_short(volumes, volume, encoding):
    data = encode(encoding, tar("file", Member("more", os.urandom(3000))))
    end = len(data.rstrip(b"\0")) - 100 if encoding == "raw" else len(data) - 3
    for n in (end // 3, end):
        assert_error(volumes.stream_in(volume.handle, data[:n], encoding=encoding), 400, FAILED)


def test_71_every_cut_of_a_raw_archive(volumes, volume):
    """Without an end mark it is no archive; behind the first block of it nothing can be missed."""
    archive = tar("file", directory("d"), "d/more")
    whole = archive.rstrip(b"\0")
    for n in (*range(1, len(whole), 300), 700):
        reply = volumes.stream_in(volume.handle, archive[:n], encoding="raw")
        assert_error(reply, 400, FAILED)


def test_71_a_cut_in_a_large_file(volumes, volume):
    reply = volumes.stream_in(volume.handle, tar(Member("large", bytes(3 << 20)))[:2 << 20], encoding="raw")
    assert_error(reply, 400, FAILED)
    assert "large: the stream ends in the middle of it" in reply.json["error"]


@pytest.mark.parametrize("size", [1, 1 << 20, 4 << 20])
def test_a_large_file_of_another_size_than_its_header_says(volumes, volume, size):
    archive = tar(Member("large", bytes(2 << 20), pax={"GNU.sparse.realsize": str(size)}), form=tarfile.PAX_FORMAT)
    reply = volumes.stream_in(volume.handle, archive + bytes(4 << 20), encoding="raw")
    assert_error(reply, 400, FAILED)
    assert "large: its content is not of the size that its header says" in reply.json["error"]


def test_71_a_chunked_body_that_is_cut_short(volumes, volume):
    archive = tar("file")
    for n in (0, 600, len(archive)):
        upload = volumes.upload(volume.handle, f"d{n}", "raw")
        upload.send(archive[:n])
        upload.conn.half_close()
        rest = upload.conn.rest()
        upload.close()
        assert not rest.startswith(b"HTTP/1.1 204"), (n, rest)


def parts_of_a_long_stream():
    yield tar("file")[:1024]
    for _ in range(1024):
        yield bytes(65536)


@pytest.mark.parametrize("status,handle,limit", [(404, "missing", None), (403, None, "0.001"), (400, None, "-1")])
def test_72_an_answer_before_the_stream_ends(volumes, volume, status, handle, limit):
    """As Go's client does it: sending and reading at once. It must read the answer, not a reset."""
    upload = volumes.upload(handle or volume.handle, None, "raw", limit)
    reply = upload.send_parts(parts_of_a_long_stream())
    assert reply.status == status


def test_72_an_answer_about_a_bad_archive(volumes, volume):
    upload = volumes.upload(volume.handle, None, "gzip")
    assert_error(upload.send_parts(b"no gzip" * 10000 for _ in range(500)), 400, FAILED)


def test_73_destroy_during_a_stream(server, volumes):
    for n in range(4):
        handle = volumes.make(unique_name())["handle"]
        upload = volumes.upload(handle, None, "raw")
        upload.send(tar("file")[:1024] if n % 2 else b"")
        volumes.destroy(handle)
        assert not volumes.exists(handle)
        upload.send(tar("more"))
        try:
            assert upload.finish().status in (204, 400, 404, 500)
        except (EOFError, OSError):
            pass  # broken off, which is an end as well
        wait_until(lambda: server.volume_files() == [], "its files are gone")
    server.check()


def test_a_client_that_vanishes(server, volumes, volume):
    for n in range(6):
        upload = volumes.upload(volume.handle, None, ENCODINGS[n % 4])
        upload.send(encode(ENCODINGS[n % 4], tar("file", Member("x", os.urandom(9000))))[:2000])
        upload.conn.reset() if n % 2 else upload.close()
    volume.fill("whole")
    assert volume.file("whole") == b"content of whole"
    server.check()


def test_two_streams_into_one_volume(volumes, volume):
    clients = [VolumeClient(volumes.address) for _ in range(4)]
    replies = [None] * 4

    def stream(n):
        archive = tar(*[f"{n}/file-{i}" for i in range(100)])
        replies[n] = clients[n].stream_in(volume.handle, encode("gzip", archive)).status

    threads = [threading.Thread(target=stream, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [204] * 4
    assert len([name for name in volume.tree() if "file-" in name]) == 400


def test_streams_go_into_a_copy_as_into_a_plain_volume(make_volume):
    parent = make_volume().fill(directory("d", mode=0o700), "d/file", symlink("l", "d"), Member("x", b"old"))
    copy = make_volume(parent=parent)
    copy.fill(directory("d", mode=0o750), Member("x", b"new"), "d/more", Member("l", b"now a file"))
    tree = copy.tree()
    assert contents(tree) == {"d": b"", "d/file": b"content of d/file", "d/more": b"content of d/more", "x": b"new",
                              "l": b"now a file"}
    assert tree["d"].mode == 0o750
    assert parent.tree()["l"].target == "d" and parent.file("x") == b"old"


@pytest.mark.parametrize("count", [3000])
def test_many_small_files(volume, count):
    volume.fill(*[Member(f"d{n % 20}/file-{n}", b"%d" % n) for n in range(count)], encoding="gzip")
    tree = volume.tree(encoding="gzip")
    assert sum(member.kind == tarfile.REGTYPE for member in tree.values()) == count


def test_bombs_end_at_the_limit_of_the_wire(volumes, volume):
    """A gigabyte of zeros in a megabyte: the limit is on what comes, the rest is the disk's."""
    data = gzip.compress(tar(Member("zeros", bytes(64 << 20))))
    assert volumes.stream_in(volume.handle, data, limit="0.01").status == 403
