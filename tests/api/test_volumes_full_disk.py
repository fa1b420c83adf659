"""A full disk: line 115 of the volumes' acceptance list. The work directory is on a small file system of its own."""
import os
import subprocess

import pytest
from archives import Member, contents, directory, tar
from gardenlib import wait_until
from serverproc import Server
from test_volumes_routes import assert_error
from volumelib import EMPTY, Refused, cow, imported

NO_SPACE = ("No space left on device", "database or disk is full")


def run(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


class SmallDisk:
    """An ext4 of 32 MiB on a loop device."""

    def __init__(self, top, n_inodes):
        self.image, self.top = top / "image", top / "disk"
        self.top.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(32 << 20)
        assert run("mkfs.ext4", "-q", "-m", 0, "-N", n_inodes, self.image)[0] == 0
        code, text = run("mount", "-o", "loop", self.image, self.top)
        if code != 0:
            pytest.skip(f"no loop devices here: {text.strip()}")
        self.filler = self.top / "filler"
        self.filler.mkdir()

    def fill_bytes(self):
        """Not a byte is left."""
        size = 1 << 20
        with open(self.filler / "bytes", "ab", buffering=0) as file:
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2

    def fill_inodes(self):
        try:
            for n in range(100000):
                (self.filler / f"inode-{n}").touch()
        except OSError:
            pass

    def free(self):
        for path in self.filler.iterdir():
            path.unlink()

    def unmount(self):
        code, text = run("umount", self.top)
        assert code == 0, text


@pytest.fixture(params=["bytes", "inodes"])
def disk(request, tmp_path):
    one = SmallDisk(tmp_path, 1000 if request.param == "inodes" else 4000)
    one.fill = one.fill_bytes if request.param == "bytes" else one.fill_inodes
    yield one
    one.unmount()


@pytest.fixture
def full_server(disk, volumes, tmp_path):
    """With a few volumes, and then no room for more. (It asks for volumes: no server without them.)"""
    one = Server(directory=disk.top, log=tmp_path / "log")  # where there is room
    try:
        one.volumes.make("parent")
        one.volumes.fill("parent", directory("d"), "d/file", "file")
        one.volumes.make("copy", cow("parent"))
        one.volumes.fill("copy", "own")
        one.volumes.make("plain")
        one.volumes.fill("plain", Member("file", os.urandom(1 << 20)))
        disk.expected = {handle: one.volumes.tree(handle) for handle in one.volumes.handles()}
        disk.fill()
        yield one
    finally:
        disk.free()
        one.finish()


def assert_no_space(reply):
    text = assert_error(reply, 500)
    assert any(cause in text for cause in NO_SPACE), text


def assert_unharmed(server, disk, *gone):
    expected = {handle: tree for handle, tree in disk.expected.items() if handle not in gone}
    assert {handle: server.volumes.tree(handle) for handle in server.volumes.handles()} == expected
    server.check()


@pytest.mark.parametrize("kind", ["empty", "import", "archive"])
def test_115_nothing_can_be_made(full_server, disk, tmp_path, kind):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(os.urandom(100000))
    (tmp_path / "source.tar").write_bytes(tar("file", Member("big", os.urandom(100000))))
    strategy = {"empty": EMPTY, "import": imported(tmp_path / "source"),
                "archive": imported(tmp_path / "source.tar")}[kind]
    for n in range(40):  # a free block or two may be left, for the first ones
        reply = full_server.volumes.request("POST", "/volumes", {"handle": f"new-{n}", "strategy": strategy})
        if reply.status != 201:
            break
        disk.expected[f"new-{n}"] = full_server.volumes.tree(f"new-{n}")
    assert_no_space(reply)
    with pytest.raises(Refused) as refused:
        full_server.volumes.make("later", strategy)
    assert_no_space(refused.value.reply)
    assert_unharmed(full_server, disk)
    disk.free()
    full_server.volumes.make("later", strategy)
    full_server.volumes.make("new-0" if "new-0" not in disk.expected else "another", strategy)


def test_115_nothing_can_be_copied(full_server, disk):
    failures = 0
    for n in range(60):
        reply = full_server.volumes.request("POST", "/volumes", {"handle": f"new-{n}", "strategy": cow("parent")})
        if reply.status != 201:
            assert_no_space(reply)
            failures += 1
            break
        disk.expected[f"new-{n}"] = full_server.volumes.tree(f"new-{n}")
    assert failures
    assert_unharmed(full_server, disk)


def test_115_nothing_can_be_streamed_in(full_server, disk):
    members = [Member(f"file-{n}", os.urandom(20000)) for n in range(100)]
    for handle in ("plain", "copy", "parent"):
        assert_no_space(full_server.volumes.stream_in(handle, tar(*members), "new", "raw"))
    for handle in ("plain", "copy", "parent"):
        found, expected = contents(full_server.volumes.tree(handle)), contents(disk.expected[handle])
        assert {name: data for name, data in found.items() if not name.startswith("new")} == expected
    full_server.check()
    disk.free()
    assert full_server.volumes.stream_in("plain", tar(*members), "new", "raw").status == 204


def test_115_what_is_there_can_be_read(full_server, disk):
    assert_unharmed(full_server, disk)
    assert full_server.volumes.privileged("plain") is False


def test_115_destroy_makes_room(full_server, disk):
    full_server.volumes.destroy("plain")
    wait_until(lambda: not list(full_server.work.glob("volumes/d*/*")), "its files are gone")
    assert_unharmed(full_server, disk, "plain")
    full_server.volumes.make("new")
    full_server.volumes.fill("new", Member("file", os.urandom(100000)))
    full_server.volumes.destroy_many(["parent", "copy", "new"])
    assert full_server.volumes.list() == []


def test_115_a_start_with_a_full_disk(full_server, disk):
    full_server.kill()
    full_server.start()
    assert_unharmed(full_server, disk)
    full_server.volumes.destroy("plain")
    full_server.kill()
    full_server.start()
    wait_until(lambda: not list(full_server.work.glob("volumes/d*/*")), "its files are gone")
    assert_unharmed(full_server, disk, "plain")


def test_115_a_container_that_fills_the_disk(full_server, disk):
    disk.free()
    full_server.client.create("box", bind_mounts=[
        {"src_path": full_server.volumes.get("copy")["path"], "dst_path": "/v", "mode": 1}])
    status, _, err = full_server.client.sh("box", "dd if=/dev/zero of=/v/zeros bs=1M count=100")
    assert status != 0 and b"No space left on device" in err
    reply = full_server.volumes.stream_in("plain", tar(Member("x", os.urandom(3 << 20))), "new", "raw")
    assert_no_space(reply)
    with pytest.raises(Refused) as refused:
        for n in range(20):
            full_server.volumes.make(f"copy-{n}", cow("copy"))
    assert_no_space(refused.value.reply)
    full_server.client.destroy("box")
    full_server.volumes.destroy("copy")
    wait_until(lambda: not list(full_server.work.glob("volumes/d*/*")), "its files are gone")
    full_server.volumes.make("new")
