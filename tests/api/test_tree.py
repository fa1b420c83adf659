"""The helper `cloche tree`: round trips, hostile archives, GNU tar as the measure, copies, confinement. No server."""
import io
import os
import random
import shutil
import stat
import subprocess
import tarfile
import time

import pytest

import treelib
from gardenlib import wait_until
from treelib import (BAD_ARCHIVE, DONE, END, FAILED, NO_PATH, Grower, archive, directory, entry, hardlink, pack,
                     padded, pax, raw_header, run, snapshot, symlink, unpack)


@pytest.fixture
def store(tmp_path):
    """A store with the directories v and w."""
    top = tmp_path / "store"
    for name in ("v", "w"):
        (top / name).mkdir(parents=True)
    yield top
    subprocess.run(["rm", "-rf", top], check=True)  # deeper than Python would go


def overlay(store, name, with_upper=True):
    """Two lower layers and an upper one."""
    for part in ("low", "lower", "upper", "work"):
        (store / f"{name}-{part}").mkdir(exist_ok=True)
    lower = f"lower={name}-low:{name}-lower"
    return [lower, f"upper={name}-upper", f"work={name}-work"] if with_upper else [lower]


def same(one, other):
    """The entries that differ, for a message that can be read."""
    return {name: (one.get(name), other.get(name)) for name in one.keys() | other.keys()
            if one.get(name) != other.get(name)}


# ---- there and back

@pytest.mark.parametrize("encoding", treelib.ENCODINGS)
@pytest.mark.parametrize("seed", range(3))
def test_round_trip(store, encoding, seed):
    Grower(store / "v", seed)
    assert unpack(store, pack(store, "tree=v", encoding=encoding), "tree=w", encoding=encoding) == DONE
    assert not same(snapshot(store / "v"), snapshot(store / "w"))


def test_threads_make_the_same(store):
    for number in range(5):
        (store / "v" / str(number)).write_bytes(os.urandom(100000) * 10)
    status, out, _ = run(store, "out", "tree=v", "path=", "encoding=gzip", "threads=4")
    assert status == DONE and unpack(store, out, "tree=w", encoding="gzip") == DONE
    assert not same(snapshot(store / "v"), snapshot(store / "w"))


def test_round_trip_through_overlays(store):
    Grower(store / "v", 100)
    (store / "o-lower").mkdir()
    (store / "o-lower/kept").write_text("of the lower layer")
    data = pack(store, "tree=v")
    assert unpack(store, data, *overlay(store, "o")) == DONE
    again = pack(store, *overlay(store, "o"))
    assert unpack(store, again, "tree=w") == DONE
    assert (store / "w/kept").read_text() == "of the lower layer"
    (store / "w/kept").unlink()
    os.utime(store / "w", ns=(0, os.stat(store / "v").st_mtime_ns))
    assert not same(snapshot(store / "v"), snapshot(store / "w"))


def test_layers_are_seen_merged_and_not_written(store):
    arguments = overlay(store, "o", with_upper=False)
    (store / "o-low/a").write_text("above")
    (store / "o-lower/a").write_text("below")
    (store / "o-lower/b").write_text("hidden")
    os.mknod(store / "o-low/b", stat.S_IFCHR, 0)
    with tarfile.open(fileobj=io.BytesIO(pack(store, *arguments))) as tar:
        assert tar.getnames() == [".", "./a"]
        assert tar.extractfile("./a").read() == b"above"
    status, _, text = run(store, "in", *arguments, "path=", "encoding=raw")
    assert (status, text) == (FAILED, "only to be read without upper=\n")


def test_one_layer_alone(store):
    (store / "v/a").write_text("x")
    assert tarfile.open(fileobj=io.BytesIO(pack(store, "lower=v"))).getnames() == [".", "./a"]


def test_holes_stay_holes(store):
    for name, pieces, size in (("none", (), 1 << 24), ("start", (0,), 1 << 24), ("end", ((1 << 24) - 4096,), 1 << 24),
                               ("many", range(0, 1 << 24, 1 << 16), (1 << 24) + 100)):
        with open(store / "v" / name, "wb") as file:
            for at in pieces:
                file.seek(at)
                file.write(b"data")
            file.truncate(size)
    data = pack(store, "tree=v")
    assert len(data) < 1 << 21
    assert unpack(store, data, "tree=w") == DONE
    assert not same(snapshot(store / "v", blocks=True), snapshot(store / "w", blocks=True))
    shutil.rmtree(store / "w")
    (store / "w").mkdir()
    subprocess.run(["tar", "-C", store / "w", "-x"], input=data, check=True)
    assert not same(snapshot(store / "v", times=False), snapshot(store / "w", times=False))


@pytest.mark.parametrize("name, n_levels", [("d", 4000), ("n" * 255, 600)])
def test_deep_trees(store, name, n_levels):
    fds = [os.open(store / "v", os.O_RDONLY)]
    for _ in range(n_levels):
        os.mkdir(name, dir_fd=fds[-1])
        fds.append(os.open(name, os.O_RDONLY, dir_fd=fds.pop()))
    with open(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fds[-1]), "w") as file:
        file.write("at the end of a long way")
    os.utime(fds[-1], ns=(5, 5))
    os.close(fds.pop())
    assert unpack(store, pack(store, "tree=v"), "tree=w") == DONE
    (store / "c").mkdir()
    assert run(store, "copy", "tree=c", "from=w")[0] == DONE
    for top in ("w", "c"):
        fd = os.open(store / top, os.O_RDONLY)
        for _ in range(n_levels):
            below = os.open(name, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        assert os.stat(fd).st_mtime_ns == 5 and os.listdir(fd) == ["file"]
        os.close(fd)
    assert run(store, "size", "tree=c")[1].split()[1] == b"%d" % (n_levels + 2)
    assert run(store, "chown", "tree=c", "uid=1", "gid=2")[0] == DONE


def test_many_names_and_many_files(store):
    for number in range(3000):
        (store / "v" / f"{number}-{'x' * (number % 200)}").write_text(str(number))
    assert unpack(store, pack(store, "tree=v"), "tree=w") == DONE
    assert not same(snapshot(store / "v"), snapshot(store / "w"))


def test_times_of_directories_that_come_first(store):
    data = archive(directory("a", mtime=5), directory("a/b", mtime=6), directory("c", mtime=7), entry("a/b/f"),
                   entry("c/f"), entry("a/f"), directory("a/b/d", mtime=8))
    assert unpack(store, data, "tree=w") == DONE
    assert [os.stat(store / "w" / name).st_mtime for name in ("a", "a/b", "c", "a/b/d")] == [5, 6, 7, 8]


# ---- what is packed

def headers(data):
    return [(info.name, info.type) for info in tarfile.open(fileobj=io.BytesIO(data))]


def test_line_75_names_of_a_directory(store):
    (store / "v/d/e").mkdir(parents=True)
    (store / "v/d/e/f").write_text("x")
    for path in (store / "v/d").rglob("*"):
        os.utime(path, (5, 5))
    os.utime(store / "v/d", (5, 5))
    data = pack(store, "tree=v", path="d")
    names = [data[at:at + 100].rstrip(b"\0") for at in range(0, 4 * 512, 512)]
    assert names == [b"./", b"./e/", b"./e/f", b"x"]
    assert len(pack(store, "tree=v")) % 10240 == 0


@pytest.mark.parametrize("path", ["d/file", "/d/file", "d/file/", "./d//file", "../d/file", "link", "d/absolute", "up/d/file"])
def test_line_74_and_85_one_file(store, path):
    (store / "v/d").mkdir()
    (store / "v/d/file").write_text("content")
    (store / "v/link").symlink_to("d/file")
    (store / "v/d/absolute").symlink_to("/link")
    (store / "v/up").symlink_to("../../../..")
    os.chown(store / "v/d/file", 7, 8)
    with tarfile.open(fileobj=io.BytesIO(pack(store, "tree=v", path=path))) as tar:
        (info,) = tar.getmembers()
        assert (info.name, info.type, info.uid, info.gid) == (path.rstrip("/").split("/")[-1], b"0", 7, 8)
        assert (info.uname, info.gname) == ("", "")
        assert tar.extractfile(info).read() == b"content"


@pytest.mark.parametrize("path", ["missing", "file/below", "dangling", "evil", "../../../../etc/passwd", "d/missing/x"])
def test_line_76_and_84_no_such_path(store, path):
    (store / "v/d").mkdir()
    (store / "v/file").write_text("content")
    (store / "v/dangling").symlink_to("nowhere")
    (store / "v/evil").symlink_to("/etc/passwd")
    status, out, text = run(store, "out", "tree=v", f"path={path}", "encoding=raw")
    assert (status, out) == (NO_PATH, b"") and "no such file or directory" in text


def test_line_80_sockets_and_whiteouts_are_left_out(store):
    os.mknod(store / "v/socket", stat.S_IFSOCK | 0o644)
    os.mknod(store / "v/whiteout", stat.S_IFCHR, 0)
    os.mknod(store / "v/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(store / "v/fifo")
    assert sorted(headers(pack(store, "tree=v"))) == [(".", b"5"), ("./fifo", b"6"), ("./null", b"3")]


def test_line_81_files_that_change(store):
    """The helper stands still in a pipe that nobody reads, behind a large file, while those after it change."""
    (store / "v/first").write_bytes(b"f" * (8 << 20))
    (store / "v/d/gone").mkdir(parents=True)
    (store / "v/d/e").mkdir()
    for name in ("vanishes", "shrinks", "grows", "stays"):
        (store / "v/d" / name).write_bytes(b"x" * 20000)
    os.link(store / "v/d/vanishes", store / "v/d/e/other name")
    helper = treelib.start(store, "out", "tree=v", "path=", "encoding=raw", stdout=subprocess.PIPE,
                           stdin=subprocess.DEVNULL)
    data = helper.stdout.read(1)
    (store / "v/d/vanishes").unlink()
    os.truncate(store / "v/d/shrinks", 100)
    with open(store / "v/d/grows", "ab") as file:
        file.write(b"y" * 50000)
    (store / "v/d/gone").rmdir()
    data += helper.stdout.read()
    assert helper.wait() == DONE, helper.stderr.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert sorted(tar.getnames()) == [".", "./d", "./d/e", "./d/e/other name", "./d/grows", "./d/shrinks",
                                          "./d/stays", "./first"]
    assert unpack(store, data, "tree=w") == DONE


SHIM = """
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
ssize_t pread(int fd, void *data, size_t n, off_t at)
{
	static int calls;
	ssize_t (*real)(int, void *, size_t, off_t) = dlsym(RTLD_NEXT, "pread");
	if (++calls <= 2)
		return real(fd, data, n > 5000 ? 5000 : n, at);
	errno = EIO;
	return calls % 2 ? -1 : 0;
}
ssize_t splice(int from, off_t *at, int to, off_t *to_at, size_t n, unsigned flags)
{
	errno = EIO; /* a file that cannot be moved is read, and reading says why it cannot be */
	return -1;
}
"""


def test_line_82_a_read_error_ends_the_stream(store, tmp_path):
    (store / "v/file").write_bytes(b"x" * 3000000)
    source, shim = tmp_path / "shim.c", tmp_path / "shim.so"
    source.write_text(SHIM)
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", shim, source], check=True)
    if treelib.PROGRAM.parent.name != "release":
        pytest.skip("a sanitizer wants to be loaded first")
    status, out, text = run(store, "out", "tree=v", "path=", "encoding=raw", env={"LD_PRELOAD": str(shim)})
    assert (status, text) == (FAILED, "read ./file: Input/output error\n")
    assert unpack(store, out, "tree=w") == BAD_ARCHIVE


def test_line_83_a_reader_that_goes_away(store):
    for number in range(20):
        (store / "v" / str(number)).write_bytes(b"x" * (1 << 20))
    helper = treelib.start(store, "out", "tree=v", "path=", "encoding=raw", stdout=subprocess.PIPE,
                           stdin=subprocess.DEVNULL)
    helper.stdout.read(512)
    helper.stdout.close()
    assert helper.wait(20) == FAILED and b"Broken pipe" in helper.stderr.read()


# ---- where it is unpacked to

@pytest.mark.parametrize("path, place", [("", ""), (".", ""), ("/", ""), ("./", ""), ("..", ""), ("a..b", "ab"),
                                         ("a/../b", "a/b"), ("/a//b/./c/", "a/b/c"), ("....", ""), ("d/e", "d/e"),
                                         ("in/e", "d/e"), ("abs/e", "d/e"), ("up/e", "e")])
def test_line_56_and_64_target(store, path, place):
    (store / "v/d").mkdir()
    (store / "v/in").symlink_to("d")
    (store / "v/abs").symlink_to("/d")
    (store / "v/up").symlink_to("../../../")
    assert unpack(store, archive(entry("some-file", b"x")), "tree=v", path=path) == DONE
    assert (store / "v" / place / "some-file").read_bytes() == b"x"
    made = os.stat(store / "v" / place)
    assert (stat.S_IMODE(made.st_mode), made.st_uid) == (0o755, 0)


@pytest.mark.parametrize("path", ["file", "file/below", "dangling", "dangling/x", "evil", "x" * 256, "y/" * 3000])
def test_line_70_target_that_is_no_directory(store, path):
    (store / "v/file").write_text("untouched")
    (store / "v/dangling").symlink_to("nowhere")
    (store / "v/evil").symlink_to("/etc/passwd")
    before = (store / "v/file").read_text()
    assert unpack(store, archive(entry("some-file", b"x")), "tree=v", path=path) == FAILED
    assert (store / "v/file").read_text() == before


def test_line_66_owners_are_numbers(store):
    assert unpack(store, archive(entry("f", uid=1234, gid=1234, uname="root", gname="root")), "tree=v") == DONE
    assert os.stat(store / "v/f").st_uid == os.stat(store / "v/f").st_gid == 1234


def test_a_full_disk_says_so(tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "cloche-test", mount], check=True)
    try:
        (mount / "v").mkdir()
        status, _, text = run(mount, "in", "tree=v", "path=", "encoding=raw",
                              stdin=archive(entry("big", b"x" * 200000)))
        assert (status, text) == (FAILED, "big: No space left on device\n")
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.parametrize("arguments", [[], ["nothing", "tree=v"], ["in", "tree=v", "encoding=raw"], ["in", "path=", "encoding=raw"],
                                       ["in", "tree=v", "tree=w", "path=", "encoding=raw"], ["size", "tree=v", "x=1"],
                                       ["in", "tree=v", "path=", "encoding=lzma"], ["size", "tree=../x"], ["size", "tree=gone"],
                                       ["size", "tree=link"], ["size", "tree=/etc"], ["size", "lower=v", "upper=w"],
                                       ["chown", "tree=v", "uid=4294967295", "gid=0"], ["copy", "tree=v", "from=gone"],
                                       ["copy", "tree=v", "from=w", "follow"]])
def test_arguments_that_make_no_sense(store, arguments):
    (store / "link").symlink_to("v")
    assert run(store, *(arguments or [""]))[0] == FAILED


# ---- bad archives

@pytest.mark.parametrize("encoding", treelib.ENCODINGS)
@pytest.mark.parametrize("data", [b"", b"x", b"This is an invalid tar file!", bytes(range(256)) * 40, b"\0" * 511],
                         ids=["empty", "byte", "text", "bytes", "zeros cut"])
def test_line_62_no_archive(store, data, encoding):
    assert unpack(store, data, "tree=v", encoding=encoding) == BAD_ARCHIVE


def test_line_71_every_cut_is_noticed(store):
    (store / "v/d").mkdir()
    for number in range(4):
        (store / f"v/d/{number}").write_bytes(b"z" * 700 * number)
    data = pack(store, "tree=v").rstrip(b"\0")
    data += b"\0" * (-len(data) % 512)
    for end in range(0, len(data) + 1, 512):
        for cut in {max(end - 1, 0), end}:
            if cut % 10240 or not cut:
                assert unpack(store, data[:cut], "tree=w") == BAD_ARCHIVE, cut
    assert unpack(store, data + b"\0" * 512, "tree=w") == DONE


@pytest.mark.parametrize("data, status", [
    (b"\0" * 1024, DONE), (b"\0" * 10240, DONE), (archive(entry("a")) + b"garbage" * 1000, DONE),
    (archive(entry("a")) + b"\0" * 100000, DONE), ((raw_header(b"a", 512) + b"x" * 512) * 10, DONE),
    ((raw_header(b"a", 512) + b"x" * 512) * 9, BAD_ARCHIVE)],
    ids=["two zero blocks", "a zero record", "garbage behind", "zeros behind", "a whole record", "no end"])
def test_ends(store, data, status):
    assert unpack(store, data, "tree=v") == status


def test_auto_encoding(store):
    (store / "v/a").write_text("x")
    for encoding in treelib.ENCODINGS:
        shutil.rmtree(store / "w")
        (store / "w").mkdir()
        assert unpack(store, pack(store, "tree=v", encoding=encoding), "tree=w", encoding="auto") == DONE
        assert (store / "w/a").read_text() == "x"


# ---- hostile archives

@pytest.fixture
def sentinel(tmp_path, store):
    """A directory outside of the tree that nothing may change; links to it are in the tree already."""
    outside = tmp_path / "sentinel"
    outside.mkdir(mode=0o700)
    (outside / "file").write_text("untouched")
    os.utime(outside / "file", ns=(1, 1))
    os.utime(outside, ns=(1, 1))
    (store / "v/old-link").symlink_to(outside)
    (store / "v/old-file-link").symlink_to(outside / "file")
    before = snapshot(outside)
    yield outside
    assert not same(snapshot(outside), before)
    assert sorted(os.listdir(store)) == ["v", "w"] and not os.listdir(store / "w")


LONG = "/".join(["l" * 255] * 16)


def hostile(out):
    """id: (entries, exit status or None for either)"""
    up = "../" * 20 + out[1:]
    return {
        "dots": ([entry("../x", b"x")], BAD_ARCHIVE),
        "dots inside": ([entry("a/../../x", b"x")], BAD_ARCHIVE),
        "dots behind dot": ([entry("./../x", b"x")], BAD_ARCHIVE),
        "dots and slashes": ([entry("a//..//x", b"x")], BAD_ARCHIVE),
        "only dots": ([directory("..")], BAD_ARCHIVE),
        "absolute": ([entry(out + "/x", b"x")], DONE),
        "absolute over": ([entry(out + "/file", b"x")], DONE),
        "link then file": ([symlink("d", out), entry("d/x", b"x")], BAD_ARCHIVE),
        "link up then file": ([symlink("d", up), entry("d/x", b"x")], BAD_ARCHIVE),
        "link to parent": ([symlink("d", ".."), directory("d/x")], DONE),
        "old link": ([entry("old-link/x", b"x")], BAD_ARCHIVE),
        "old file link": ([entry("old-file-link", b"x")], DONE),
        "directory over link": ([symlink("d", out), directory("d", mode=0o777), entry("d/x", b"x")], DONE),
        "directory over old link": ([directory("old-link", mode=0o777), entry("old-link/x", b"x")], DONE),
        "link over directory": ([directory("d", mode=0o777), symlink("d", out)], DONE),
        "link over full directory": ([directory("d"), entry("d/x"), symlink("d", out)], BAD_ARCHIVE),
        "file over link": ([symlink("d", out + "/file"), entry("d", b"x")], DONE),
        "hard link through link": ([symlink("d", out), hardlink("h", "d/file"), entry("h", b"x")], BAD_ARCHIVE),
        "hard link to link": ([symlink("d", out + "/file"), hardlink("h", "d"), entry("h", b"x")], DONE),
        "hard link to link, mode": ([symlink("d", out + "/file"), hardlink("h", "d", mode=0o777)], DONE),
        "hard link absolute": ([hardlink("h", out + "/file")], BAD_ARCHIVE),
        "hard link up": ([hardlink("h", up + "/file")], BAD_ARCHIVE),
        "hard link to itself": ([hardlink("h", "h")], BAD_ARCHIVE),
        "hard link to itself, there": ([entry("h", b"x"), hardlink("h", "h")], DONE),
        "hard link to directory": ([directory("d"), hardlink("h", "d")], None),
        "link chain": ([symlink(f"c{n}", f"c{n + 1}") for n in range(41)] + [symlink("c41", out), entry("c0/x")],
                       BAD_ARCHIVE),
        "root is a link": ([symlink(".", out)], BAD_ARCHIVE),
        "root is a link, slash": ([symlink("./", out)], BAD_ARCHIVE),
        "root is a file": ([entry("/", b"x")], BAD_ARCHIVE),
        "root is a hard link": ([hardlink(".", "old-link")], BAD_ARCHIVE),
        "root is a device": ([entry("./", type=tarfile.CHRTYPE)], BAD_ARCHIVE),
        "no name": ([entry("", b"x")], BAD_ARCHIVE),
        "long name": ([entry("n" * 256, b"x")], BAD_ARCHIVE),
        "long path": ([entry("a/" * 2500 + "x", b"x")], DONE),
        "long path and link": ([symlink("d", "/" + LONG), directory(LONG), entry("d/x", b"x"),
                                symlink(LONG + "/out", out), entry(LONG + "/out/x")], BAD_ARCHIVE),
        "twins": ([entry("f", b"1"), entry("f", b"22"), entry("F", b"3"), entry("\u00e4"), entry("a\u0308")], DONE),
        "owner -1": ([entry("f", uid=2**32 - 1)], BAD_ARCHIVE),
        "owner too large": ([entry("f", gid=2**32)], BAD_ARCHIVE),
    }


@pytest.mark.parametrize("case", list(hostile("/x")))
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_t_i4_5_6_hostile_archives(store, sentinel, case, format):
    entries, expected = hostile(str(sentinel))[case]
    status = unpack(store, archive(*entries, format=format), "tree=v")
    assert status in (DONE, BAD_ARCHIVE) and expected in (None, status)
    assert stat.S_ISDIR(os.lstat(store / "v").st_mode)


def test_t_i4_every_order(store, sentinel):
    entries, _ = hostile(str(sentinel))["link then file"]
    mixed = [*entries, symlink("e", "../" * 20), directory("d", mode=0o777), directory("e"), entry("d", b"x"),
             entry("e/d", b"y"), hardlink("h", "d"), hardlink("d", "old-file-link"), symlink("h", "/"),
             entry("h", b"z"), entry("old-link/file", b"x")]
    for seed in range(100):
        random.Random(seed).shuffle(mixed)
        status, _, text = run(store, "in", "tree=v", "path=", "encoding=raw", stdin=archive(*mixed))
        assert status in (DONE, BAD_ARCHIVE), text


def test_links_that_lead_inside_are_followed_and_stay(store):
    data = archive(directory("lib"), symlink("lib64", "lib"), entry("lib64/x", b"x"), symlink("abs", "/lib"),
                   entry("abs/y", b"y"), symlink("odd", "./lib//../lib"))
    assert unpack(store, data, "tree=v") == DONE
    assert sorted(os.listdir(store / "v/lib")) == ["x", "y"]
    assert os.readlink(store / "v/odd") == "./lib//../lib"


def test_t_i9_privileges_in_metadata(store):
    names = {"SCHILY.xattr.trusted.overlay.redirect": "/../../etc", "SCHILY.xattr.security.capability": "junk",
             "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.user.fine": "yes",
             "SCHILY.xattr.security.ima": "x"}
    kept = {key: value for key, value in names.items() if "capability" not in key}
    data = archive(entry("f", pax_headers=kept), entry("d", type=tarfile.DIRTYPE, pax_headers=kept),
                   entry("c", type=tarfile.CHRTYPE, devmajor=1, devminor=3), entry("w", type=tarfile.CHRTYPE),
                   entry("b", type=tarfile.BLKTYPE, devmajor=8), entry("suid", mode=0o6755))
    status, _, text = run(store, "in", "tree=v", "path=", "encoding=raw", stdin=data)
    assert (status, text) == (DONE, "3 devices were left out\n")
    assert sorted(os.listdir(store / "v")) == ["d", "f", "suid"]
    for name in ("f", "d"):
        assert treelib.attributes(store / "v" / name) == {"user.fine": b"yes"}
    assert stat.S_IMODE(os.stat(store / "v/suid").st_mode) == 0o6755
    assert unpack(store, archive(entry("f", pax_headers=names)), "tree=w") == BAD_ARCHIVE


DATA = b"d" * 512
PAX_CASES = {
    "size for a file without one": pax([(b"size", b"512")]) + raw_header(b"f", 0) + DATA,
    "size against a file's own": pax([(b"size", b"512")]) + raw_header(b"f", 1024) + DATA,
    "twice the same key": pax([(b"size", b"5"), (b"size", b"512")]) + raw_header(b"f", 0) + DATA,
    "long name behind pax": pax([(b"mtime", b"1")]) + raw_header(b"././@LongLink", 5, b"L") + padded(b"long\0")
    + raw_header(b"f", 512) + DATA,
    "long name before pax": raw_header(b"././@LongLink", 5, b"L") + padded(b"long\0") + pax([(b"mtime", b"1")])
    + raw_header(b"f", 512) + DATA,
    "global": pax([(b"mtime", b"1")], b"g") + raw_header(b"f", 512) + DATA,
    "directory with a size": raw_header(b"d", 0, b"5") + raw_header(b"f", 512) + DATA,
}


@pytest.mark.parametrize("case", list(PAX_CASES))
def test_t_i7_same_entries_as_others(store, tmp_path, case):
    data = PAX_CASES[case] + raw_header(b"last", 512) + DATA + END
    status = unpack(store, data, "tree=v")
    other = tmp_path / "other"
    other.mkdir()
    tar = subprocess.run(["tar", "-C", other, "-x"], input=data, stderr=subprocess.PIPE)
    assert status == DONE and tar.returncode == 0, tar.stderr
    assert not same(snapshot(store / "v", times=False), snapshot(other, times=False))
    with tarfile.open(fileobj=io.BytesIO(data)) as python:
        assert {info.name for info in python} == set(os.listdir(store / "v"))


@pytest.mark.parametrize("data", [
    raw_header(b"x", 20, b"x") + padded(b"not a pax record at all") + raw_header(b"f"),
    raw_header(b"x", 20, b"x") + padded(b"99 path=too-long\n") + raw_header(b"f"),
    pax([(b"path", b"first")]) + pax([(b"path", b"second")]) + raw_header(b"f"), raw_header(b"x", 1 << 30, b"x"), pax([(b"path", b"x")]), raw_header(b"f", 0)[:148] + b"000000\0 " + b"\0" * 356,
    raw_header(b"f").replace(b"00000000000\0", b"\xff" * 12, 1), raw_header(b"././@LongLink", 1 << 30, b"L"),
    pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"10")])
    + raw_header(b"f", 1024) + padded(b"1\n0\n512\n") + DATA,
    pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9" * 18)])
    + raw_header(b"f", 1024) + padded(b"1\n9000000000000000000\n512\n") + DATA],
    ids=["no record", "record cut", "two headers", "huge pax", "pax for nothing", "checksum", "negative size", "huge name",
         "sparse over its size", "sparse out of range"])
def test_t_i7_8_damaged_headers(store, data):
    started = time.monotonic()
    assert unpack(store, data + END, "tree=v") == BAD_ARCHIVE
    assert time.monotonic() - started < 10


# ---- GNU tar is the measure, and bsdtar

def is_utf8(name):
    try:
        return bool(name.decode()) or True
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize("format", ["gnu", "oldgnu", "posix", "ustar", "v7", "python-gnu", "python-pax"])
@pytest.mark.parametrize("sparse", [[], ["-S"]], ids=["", "sparse"])
@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_same_tree_as_others(store, tmp_path, program, format, sparse):
    """Differences of bsdtar: names in pax headers that are no UTF-8 are an error to it, and the top's time is not kept."""
    if sparse and format in ("ustar", "v7"):
        return  # GNU tar has no sparse files there
    Grower(store / "v", 7, 60)
    for path in [*(store / "v").rglob("*"), store / "v"]:
        if not path.is_symlink():
            for name in os.listxattr(path):
                os.removexattr(path, name)
        os.utime(path, (5, 5), follow_symlinks=False)
        if format in ("ustar", "v7"):  # which cannot say larger ones
            os.chown(path, 5, 6, follow_symlinks=False)
    made, other = tmp_path / "made.tar", tmp_path / "other"
    if format.startswith("python"):
        with tarfile.open(made, "w", format={"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}[format[7:]],
                          errors="surrogateescape") as tar:
            tar.add(store / "v", ".")
    else:
        subprocess.run(["tar", "-C", store / "v", f"--format={format}", "-cf", made, *sparse, "."],
                       stderr=subprocess.PIPE)  # says 2 for the names that the format cannot hold
    other.mkdir()
    done = subprocess.run([program, "-C", other, "-xpf", made], stderr=subprocess.PIPE)
    assert done.returncode == 0 or program == "bsdtar", done.stderr
    assert unpack(store, made.read_bytes(), "tree=w") == DONE
    different = same(snapshot(other), snapshot(store / "w"))
    if program == "bsdtar":
        different = {name for name in different if name != b"." and is_utf8(name)}
    assert not different
    assert len(os.listdir(other)) > 5


def test_gnu_tar_and_python_unpack_ours(store, tmp_path):
    Grower(store / "v", 8)
    data = pack(store, "tree=v")
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["tar", "-C", other, "--xattrs", "--xattrs-include=*", "-x"], input=data, check=True,
                   stderr=subprocess.PIPE)
    ours, theirs = snapshot(store / "v"), snapshot(other)
    for tree in (ours, theirs):
        for one in tree.values():  # which it wants to hear of in a way of its own
            one["xattrs"].pop("system.posix_acl_access", None)
            one["xattrs"].pop("system.posix_acl_default", None)
    assert not same(ours, theirs)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        assert len(tar.getmembers()) == len(ours)


# ---- copies

@pytest.mark.parametrize("seed", range(3))
def test_copy_of_a_layer(store, seed):
    Grower(store / "v", seed)
    os.mknod(store / "v/whiteout", stat.S_IFCHR, 0)
    os.link(store / "v/whiteout", store / "v/another")
    os.mknod(store / "v/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (store / "v/opaque").mkdir()
    os.setxattr(store / "v/opaque", "trusted.overlay.opaque", b"y")
    (store / "v/moved").symlink_to("x")
    os.setxattr(store / "v/moved", "trusted.overlay.origin", b"abc", follow_symlinks=False)
    assert run(store, "copy", "tree=w", "from=v")[::2] == (DONE, "")
    assert not same(snapshot(store / "v", blocks=True), snapshot(store / "w", blocks=True))


def test_copy_of_a_path_of_the_machine(store, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    Grower(source, 5)
    before = snapshot(source)
    (source / "dir").mkdir()
    os.setxattr(source / "dir", "trusted.overlay.opaque", b"y")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.utime(source, ns=(0, before[b"."]["mtime"]))
    assert run(store, "copy", "tree=w", f"from={source}")[::2] == (DONE, "")
    copied = snapshot(store / "w")
    assert "trusted.overlay.opaque" not in copied.pop(b"./dir")["xattrs"]
    assert not same(before, copied)


def test_copy_that_follows_links(store, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "d").mkdir(parents=True)
    (out / "sub").mkdir(parents=True)
    (out / "sub/cert").write_text("outside")
    (out / "script").write_text("run")
    (out / "script").chmod(0o755)
    (source / "d/relative").symlink_to("../../out/sub/cert")
    (source / "absolute").symlink_to(out / "script")
    (source / "directory").symlink_to(out / "sub")
    (source / "chain").symlink_to("d/relative")
    (source / "loop").symlink_to("loop")
    (source / "into-itself").symlink_to(source)
    (source / "dangling").symlink_to("/nowhere")
    status, _, text = run_many_lines(store, "copy", "tree=w", f"from={source}", "follow")
    assert status == DONE and sorted(line.split(":")[0] for line in text.splitlines()) == ["dangling", "into-itself", "loop"]
    found = {str(path.relative_to(store / "w")): path.read_text() for path in (store / "w").rglob("*") if path.is_file()}
    assert found == {"d/relative": "outside", "absolute": "run", "directory/cert": "outside", "chain": "outside"}
    assert not any(path.is_symlink() for path in (store / "w").rglob("*"))
    assert stat.S_IMODE(os.stat(store / "w/absolute").st_mode) == 0o755


def run_many_lines(store, *arguments):
    helper = treelib.start(store, *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    out, err = helper.communicate()
    return helper.returncode, out, err.decode()


def test_chown_keeps_what_the_kernel_would_take(store, tmp_path):
    Grower(store / "v", 9)
    outside = tmp_path / "outside"
    outside.write_text("")
    (store / "v/link").symlink_to(outside)
    before = snapshot(store / "v")
    assert run(store, "chown", "tree=v", "uid=70000", "gid=5")[0] == DONE
    after = snapshot(store / "v")
    assert {one.pop("owner") for one in after.values()} == {(70000, 5)}
    for one in before.values():
        one.pop("owner")
    assert not same(before, after)
    assert os.stat(outside).st_uid == 0


def test_size(store):
    (store / "v/a").write_bytes(b"x" * 100000)
    os.link(store / "v/a", store / "v/b")
    (store / "v/d").mkdir()
    with open(store / "v/d/sparse", "wb") as file:
        file.truncate(1 << 30)
    expected = sum(os.lstat(path).st_blocks * 512 for path in (store / "v", store / "v/a", store / "v/d", store / "v/d/sparse"))
    assert run(store, "size", "tree=v")[1] == b"%d 5\n" % expected


# ---- confinement

def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def parser_of(helper):
    """The process that reads the archive: the helper's child."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with open(f"/proc/{helper.pid}/task/{helper.pid}/children") as file:
            children = file.read().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError("no child")


CAPS = {"chown": 0, "dac_override": 1, "dac_read_search": 2, "fowner": 3, "fsetid": 4, "setfcap": 31}


def test_confined_before_the_first_byte(store):
    (store / "v/mine").write_text("")
    helper = treelib.start(store, "in", "tree=v", "path=", "encoding=raw", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    parser = parser_of(helper)
    try:
        wait_until(lambda: status_of(parser)["Seccomp"] == "2", "the parser alone has a filter", 15)
        for pid in (parser, helper.pid):
            status = status_of(pid)
            mask = sum(1 << CAPS[name] for name in ("chown", "dac_override", "fowner", "fsetid", "setfcap"))
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == mask
            assert int(status["CapBnd"], 16) == int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
            assert status["NoNewPrivs"] == "1"
            assert (status["Seccomp"] == "2") == (pid != helper.pid), "the parser alone has a filter"
            names = ["mnt", "net", "ipc", "uts"] + (["pid"] if pid != helper.pid else [])
            for name in names:
                assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), name
            assert os.listdir(f"/proc/{pid}/root") == ["mine"]
            with open(f"/proc/{pid}/mountinfo") as file:
                (mount,) = file.read().splitlines()
            assert {"nosuid", "nodev", "noexec"} <= set(mount.split()[5].split(","))
            with open(f"/proc/{pid}/limits") as file:
                (limit,) = [line.split() for line in file if line.startswith("Max open files")]
            assert limit[3] == limit[4]
            targets = {os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd")}
            assert targets <= {"pipe", "/"}, targets
        assert helper.communicate(archive(entry("f")))[0] == b"" and helper.returncode == DONE
    finally:
        helper.kill()


def test_a_reader_cannot_write(store):
    (store / "v/big").write_bytes(b"x" * (8 << 20))
    helper = treelib.start(store, "out", "tree=v", "path=", "encoding=raw", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        pid = parser_of(helper)
        assert int(status_of(pid)["CapEff"], 16) == 1 << CAPS["dac_read_search"]
        with open(f"/proc/{pid}/mountinfo") as file:
            assert "ro" in file.read().split()[5].split(",")
    finally:
        helper.kill()
        helper.wait()


def test_the_parser_dies_with_the_helper(store):
    helper = treelib.start(store, "in", "tree=v", "path=", "encoding=raw", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pid = parser_of(helper)
    helper.kill()
    helper.wait()
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")
