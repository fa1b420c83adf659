"""Design 4: the store is 0700 below nosuid,nodev. What volumes hold was made by containers, and no way into the store
makes it real on the host: its directory is closed to all but root, and the server works in a mount of its own."""
import contextlib
import os
import sqlite3
import stat
import subprocess

import oracle
import pytest
from archives import Member
from gardenlib import wait_until
from serverproc import SANITIZED, refused_start
from volumelib import cow

NOBODY = 65534


def store_of(server):
    return server.work / "volumes"


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def euid_of(program_fd):
    """Whose rights a user of the host has in the set-uid program behind a descriptor."""
    child = subprocess.Popen(["/proc/self/fd/%d" % program_fd, "-u"], pass_fds=(program_fd,), user=NOBODY,
                             group=NOBODY, stdout=subprocess.PIPE)
    return int(child.communicate()[0])


def descriptors_below(server):
    """The server's own descriptors of the store and of directories in it, by their link's text. Those of a mount that
    hangs nowhere have no path but the one from its root."""
    folder, found = f"/proc/{server.pid}/fd", {}
    store = os.stat(store_of(server))
    for name in oracle.listing(folder):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if os.path.samestat(os.stat(f"{folder}/{name}"), store):
                found[name] = os.readlink(f"{folder}/{name}")
    return found


def ours(server):
    """The way in that the server uses for its work."""
    (name,) = [name for name, target in descriptors_below(server).items() if target == "/"]
    return f"/proc/{server.pid}/fd/{name}"


@pytest.fixture
def hostile(server, volume):
    """A volume with a set-uid program of root's and a device node, as a privileged container can make them: its tree's
    name below the store."""
    with open("/usr/bin/id", "rb") as file:
        volume.fill(Member("id", file.read(), mode=0o4755))
    tree = store_of(server) / "live" / volume.handle / "volume"
    os.mknod(tree / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    return f"live/{volume.handle}/volume"


def test_set_uid_programs_give_nothing_in_the_servers_mount(server, hostile):
    with open(store_of(server) / hostile / "id", "rb") as by_path, open(f"{ours(server)}/{hostile}/id", "rb") as by_us:
        assert euid_of(by_path.fileno()) == 0, "this test can see a set-uid program at work"
        assert euid_of(by_us.fileno()) == NOBODY


def test_devices_cannot_be_opened_in_the_servers_mount(server, hostile):
    with open(store_of(server) / hostile / "null", "rb") as file:
        assert file.read() == b""
    with pytest.raises(PermissionError):
        open(f"{ours(server)}/{hostile}/null", "rb")


def test_users_of_the_host_do_not_get_in(server, hostile):
    assert mode_of(store_of(server)) == 0o700 and os.stat(store_of(server)).st_uid == 0
    result = subprocess.run(["stat", store_of(server) / "live"], user=NOBODY, group=NOBODY, capture_output=True, text=True)
    assert result.returncode == 1 and "Permission denied" in result.stderr


def test_nothing_is_mounted(server, hostile):
    """So nothing can be stale: neither for the host nor for the server."""
    for pid in ("self", server.pid):
        assert str(store_of(server)) not in oracle.read(f"/proc/{pid}/mountinfo")


def test_a_store_that_was_open_is_closed(start_server, tmp_path):
    server = start_server(directory=tmp_path)
    server.volumes.make("v")
    server.kill()
    os.chmod(store_of(server), 0o1755)  # as other workers make it
    server.start()
    assert mode_of(store_of(server)) == 0o700 and server.volumes.exists("v")
    (line,) = [line for line in server.log_lines() if line["message"] == "cloche.store-was-open"]
    assert line["data"]["mode"] == 0o1755


def test_a_store_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "work").mkdir(0o700)
    store = tmp_path / "work/volumes"
    store.mkdir(0o700)
    os.chown(store, NOBODY, NOBODY)
    code, text = refused_start(directory=tmp_path)
    assert code == 1 and f"{store}: belongs to user {NOBODY}" in text, text
    assert os.listdir(store) == []


@pytest.mark.skipif(SANITIZED, reason="the sanitizers' own calls would fail")
@pytest.mark.parametrize("call", ["open_tree", "mount_setattr"])
def test_without_mounts_it_says_so(start_server, deny, call, tmp_path):
    server = start_server("--baggageclaim-driver", "detect", prefix=(deny, call, "EPERM"), directory=tmp_path)
    (line,) = [line for line in server.log_lines() if line["message"] == "cloche.store-not-nosuid"]
    assert line["data"] == {"dir": str(store_of(server)), "errno": 1} | {
        key: value for key, value in line["data"].items() if key not in ("dir", "errno")}


# ---- what the record hears later

MAKING, LIVE = 0, 1


def states(server):
    """Of volumes, and the layers that are still to be moved."""
    with contextlib.closing(sqlite3.connect(store_of(server) / "state.db", timeout=30)) as db:
        return (dict(db.execute("SELECT handle, state FROM volumes")),
                [layer for (layer,) in db.execute("SELECT id FROM layers WHERE moved_from != 0")])


def refuse_notes(server, is_refused):
    with contextlib.closing(sqlite3.connect(store_of(server) / "state.db", timeout=30, isolation_level=None)) as db:
        if is_refused:
            db.execute("CREATE TRIGGER deaf BEFORE UPDATE OF state ON volumes BEGIN SELECT RAISE(ABORT, 'deaf'); END")
        else:
            db.execute("DROP TRIGGER deaf")


def make_and_copy(server):
    server.volumes.make("whole")
    server.volumes.fill("whole", "file")
    server.volumes.make("copy", cow("whole"))


def test_the_record_learns_what_is_done(start_server, tmp_path):
    """Nobody waits for it, and it is told again if it does not take it."""
    server = start_server(directory=tmp_path / "server")
    refuse_notes(server, True)
    make_and_copy(server)
    assert states(server)[0] == {"whole": MAKING, "copy": MAKING}
    refuse_notes(server, False)
    wait_until(lambda: states(server) == ({"whole": LIVE, "copy": LIVE}, []), "the record knows")


def test_the_end_of_the_server_is_a_moment_to_tell_it(start_server, tmp_path):
    server = start_server(directory=tmp_path / "server")
    make_and_copy(server)
    server.terminate()
    assert states(server) == ({"whole": LIVE, "copy": LIVE}, [])


def test_a_record_that_has_not_heard_of_it(start_server, tmp_path):
    """A kill comes first: the disk tells."""
    server = start_server(directory=tmp_path / "server")
    refuse_notes(server, True)
    make_and_copy(server)
    server.kill()
    refuse_notes(server, False)
    server.start()
    assert server.volumes.handles() == ["copy", "whole"]
    assert all(server.volumes.file(handle, "file") == b"content of file" for handle in ("copy", "whole"))
    wait_until(lambda: states(server) == ({"whole": LIVE, "copy": LIVE}, []), "the record knows")
    server.volumes.destroy_many(["whole", "copy"])
    wait_until(lambda: server.volume_files() == [], "all of it is gone")
