"""SIGKILL in the middle of something: after the next start every volume is whole or absent, and nothing else is left.
Delays are random; CLOCHE_SEED repeats a run, CLOCHE_CRASHES sets how many there are."""
import gzip
import os
import random
import threading
import time

import oracle
import pytest
from archives import Member, contents, directory, tar
from gardenlib import wait_until
from volumelib import EMPTY, HeldImport, cow, imported

CRASHES = int(os.environ.get("CLOCHE_CRASHES", "8"))
SEED = int(os.environ.get("CLOCHE_SEED", str(random.randrange(1 << 30))))
WHOLE = {f"d/file-{n}": f"content of d/file-{n}".encode() for n in range(60)}
MEMBERS = [directory("d"), *WHOLE]


class Worker(threading.Thread):
    """Makes, fills and destroys volumes until the server is gone. What it knows of each, .known has by handle:
    (strategy, state); "making", "filling" and "destroying" are things nobody answered."""

    def __init__(self, server, name, number, strategies):
        super().__init__(daemon=True)
        self.volumes, self.label = server.volumes, name
        self.random = random.Random(f"{SEED} {number}")
        self.strategies = strategies
        self.known, self.failure = {}, None

    def run(self):
        try:
            for n in range(10000):
                self.step(f"{self.label}-{n}")
        except (OSError, EOFError, ValueError):
            pass  # the server is gone
        except Exception as failure:  # noqa: BLE001 - the test looks at it
            self.failure = failure

    def step(self, handle):
        kind = self.random.choice(list(self.strategies))
        self.known[handle] = (kind, "making")
        make = self.random.choice((self.volumes.make, self.volumes.create))
        make(handle, self.strategies[kind])
        self.known[handle] = (kind, "made")
        if self.random.random() < 0.5:
            self.known[handle] = (kind, "filling")
            reply = self.volumes.stream_in(handle, tar("more"), encoding="raw")
            assert reply.status == 204, reply
            self.known[handle] = (kind, "filled")
        if self.random.random() < 0.5:
            self.known[handle] = (kind, "destroying")
            self.volumes.destroy(handle)
            self.known[handle] = (kind, "destroyed")


def check(server, handle, kind, state, listed):
    """One volume, after the start that followed the crash."""
    expected = {} if kind == "empty" else {"d": b"", **WHOLE}
    if state == "destroyed":
        assert handle not in listed, f"{handle} was destroyed and is back"
        return
    if handle not in listed:
        assert state in ("making", "destroying"), f"{handle} ({kind}, {state}) is lost"
        assert server.volumes.request("GET", f"/volumes/{handle}").status == 404
        return
    found = contents(server.volumes.tree(handle))
    more = found.pop("more", None)
    assert found == expected, f"{handle} ({kind}, {state}): {set(found) ^ set(expected)}"
    assert more == b"content of more" or state != "filled"


def look_after_a_crash(server, known, hand_made):
    wait_until(lambda: not any(os.listdir(server.work / "volumes" / name) for name in ("init", "dead")),
               "init/ and dead/ are empty")
    listed = set(server.volumes.handles())
    assert "base" in listed
    assert contents(server.volumes.tree("base")) == {"d": b"", **WHOLE}
    for handle, (kind, state) in known.items():
        check(server, handle, kind, state, listed)
    strangers = listed - set(known) - {"base", "by-hand"}
    assert not strangers, strangers
    assert (hand_made / "precious").read_text() == "nobody else has it"


@pytest.fixture
def crashing(start_server, tmp_path):
    """A server with a base volume, a directory that somebody put into live/, and what there is to import."""
    server = start_server(directory=tmp_path / "server")
    server.volumes.make("base")
    server.volumes.fill("base", *MEMBERS)
    hand_made = server.work / "volumes/live/by-hand"
    hand_made.mkdir()
    (hand_made / "precious").write_text("nobody else has it")
    source = tmp_path / "source/d"
    source.mkdir(parents=True)
    for name, data in WHOLE.items():
        (tmp_path / "source" / name).write_bytes(data)
    (tmp_path / "source.tgz").write_bytes(gzip.compress(tar(*MEMBERS)))
    server.strategies = {"empty": EMPTY, "import": imported(tmp_path / "source"), "copy": cow("base"),
                         "archive": imported(tmp_path / "source.tgz")}
    server.hand_made = hand_made
    yield server
    (hand_made / "precious").unlink()
    hand_made.rmdir()


@pytest.mark.parametrize("kind", ["all", "empty", "import", "copy", "archive"])
def test_killed_at_any_moment(crashing, kind):
    server = crashing
    strategies = server.strategies if kind == "all" else {kind: server.strategies[kind]}
    print("seed", SEED)
    delays = random.Random(f"{SEED} {kind}")
    for n in range(CRASHES):
        workers = [Worker(server, f"w{n}-{i}", f"{kind} {n} {i}", strategies) for i in range(3)]
        for worker in workers:
            worker.start()
        time.sleep(delays.uniform(0.01, 0.3))
        server.kill()
        for worker in workers:
            worker.join()
        server.start()
        known = {handle: fact for worker in workers for handle, fact in worker.known.items()}
        assert [worker.failure for worker in workers] == [None] * 3
        look_after_a_crash(server, known, server.hand_made)
        server.volumes.destroy_many([handle for handle in known if handle in server.volumes.handles()])
    server.check()


def test_111_killed_while_something_is_made(crashing, tmp_path):
    """At a moment when it is certain to be half made."""
    server = crashing
    with HeldImport(tmp_path / "rootfs.tgz") as held:
        held.begin(server, "half")
        server.kill()
    assert os.listdir(server.work / "volumes/init") == ["half"]
    server.start()
    look_after_a_crash(server, {"half": ("import", "making")}, server.hand_made)
    assert not server.volumes.exists("half")
    server.volumes.make("half", cow("base"))
    assert contents(server.volumes.tree("half")) == {"d": b"", **WHOLE}


def test_killed_twice_on_the_way_up(crashing):
    """A start is a thing that can be killed as well."""
    server = crashing
    delays = random.Random(f"{SEED} up")
    for n in range(CRASHES):
        for i in range(5):
            server.volumes.make(f"v{n}-{i}", cow("base"))
        server.volumes.destroy_many([f"v{n}-{i}" for i in range(3)])
        server.kill()
        server.start_process()
        time.sleep(delays.uniform(0, 0.05))
        server.kill()
        server.start()
        look_after_a_crash(server, {f"v{n}-{i}": ("copy", "destroyed" if i < 3 else "made") for i in range(5)} | {
            f"v{m}-{i}": ("copy", "made") for m in range(n) for i in (3, 4)}, server.hand_made)


def test_a_parent_that_is_frozen_when_the_server_is_killed(crashing):
    """A first copy moves the parent's tree to where both share it."""
    server = crashing
    delays = random.Random(f"{SEED} frozen")
    for n in range(CRASHES):
        parents = [f"parent-{n}-{i}" for i in range(8)]
        for handle in parents:
            server.volumes.make(handle)
            server.volumes.fill(handle, Member("file", handle.encode()))

        def copy_all(volumes=server.volumes, parents=tuple(parents)):
            try:
                for handle in parents:
                    volumes.make(f"copy-of-{handle}", cow(handle))
                    volumes.stream_in(handle, tar(Member("more", b"x")), encoding="raw")
            except (OSError, EOFError, ValueError):
                pass

        thread = threading.Thread(target=copy_all)
        thread.start()
        time.sleep(delays.uniform(0.001, 0.06))
        server.kill()
        thread.join()
        server.start()
        listed = server.volumes.handles()
        for handle in parents:
            assert server.volumes.file(handle, "file") == handle.encode()
            if f"copy-of-{handle}" in listed:
                assert contents(server.volumes.tree(f"copy-of-{handle}")) == {"file": handle.encode()}
            server.volumes.fill(handle, "again")
        server.volumes.destroy_many([handle for handle in listed if handle not in ("base", "by-hand")])


def test_helpers_end_with_the_server(crashing):
    server = crashing
    upload = server.volumes.upload("base", None, "raw")
    upload.send(tar(Member("half", bytes(100000)))[:50000])
    working = wait_until(lambda: oracle.helpers(server), "a helper is at work")
    server.kill()
    wait_until(lambda: not any(oracle.Task(pid).alive for pid in working), "it has ended too")
    upload.close()
    server.start()
    assert contents(server.volumes.tree("base", "d")) == {name[2:]: data for name, data in WHOLE.items()}


def test_an_attached_volume_over_crashes(crashing):
    server = crashing
    server.volumes.make("used", cow("base"))
    mount = {"src_path": server.volumes.get("used")["path"], "dst_path": "/v", "mode": 1}
    server.client.create("box", bind_mounts=[mount])
    for n in range(CRASHES // 2):
        server.client.output("box", f"echo {n} >/v/n")
        server.volumes.make(f"copy-{n}", cow("used"))
        server.kill()
        server.start()
        assert server.volumes.file("used", "n") == b"%d\n" % n
        assert contents(server.volumes.tree(f"copy-{n}")) == {"d": b"", **WHOLE, "n": b"%d\n" % n}
    server.client.destroy("box")
    server.volumes.destroy_many([handle for handle in server.volumes.handles() if handle != "base"])
