"""Rows of the matrix of failures about streams; the table is in README.md."""
import json
import os

from live import IS_LONG, nothing_left, probe, randomness, root, server, start_server  # noqa: F401 - first: it makes the modules below known

import oracle
from exact import Follower, start
from gardenlib import Connection, request_bytes, wait_until
from serverproc import NO_POOL

MIB = 1 << 20
ORPHANS = "i=0; while [ $i -lt %d ]; do (sleep 0 &) ; i=$((i+1)); done; echo made"


def descriptors(one):
    return len(os.listdir(f"/proc/{one.pid}/fd"))


def test_4_27_ten_thousand_orphans_are_reaped(start_server, tmp_path):  # noqa: F811
    one = start_server(*NO_POOL, directory=tmp_path)
    one.client.create("box")
    assert one.client.output("box", ORPHANS % (10000 if IS_LONG else 500)) == "made\n"

    def pids():
        return one.client.ok("GET", "/containers/box/metrics")["PidStat"]["Current"]

    wait_until(lambda: pids() <= 2, "only init is left")
    assert not [task for task in oracle.family(one).values() if task.state == "Z"]


def test_4_28_clients_that_vanish_at_every_byte(start_server, tmp_path):  # noqa: F811
    """Of a run: its process begins or not, and stays; no descriptor and no name is lost."""
    rng = randomness("vanish")
    one = start_server(*NO_POOL, directory=tmp_path)
    one.client.create("box")
    assert one.client.sh("box", "true")[0] == 0
    before = descriptors(one)
    request = request_bytes("POST", "/containers/box/processes", {"path": "/bin/sleep", "args": ["1000"]})
    for n_bytes in range(1, len(request) + 1, 1 if IS_LONG else 9):
        conn = Connection(one.client.address)
        conn.send(request[:n_bytes])
        conn.reset() if rng.random() < 0.5 else conn.close()
    conn = Connection(one.client.address)  # and while the answer comes
    conn.send(request)
    conn.take(1)
    conn.reset()
    wait_until(lambda: one.client.ok("GET", "/containers/box/info")["ProcessIDs"], "the process that was asked for")
    assert one.client.output("box", "echo well") == "well\n"
    one.client.stop("box", kill=True)
    wait_until(lambda: descriptors(one) <= before, "every descriptor is closed")


def test_4_30_many_idle_attaches(start_server, tmp_path):  # noqa: F811
    """They cost the server a thread and three descriptors each, and all of them end by FIN with the status."""
    n = 2000 if IS_LONG else 200
    one = start_server(*NO_POOL, directory=tmp_path)
    one.client.create("box")
    asking = one.client.run("box", {"id": "asks", "path": "/bin/sh", "args": ["-c", "read x; exit 3"]})
    before = descriptors(one)
    attaches = []
    for _ in range(n):
        conn = Connection(one.client.address)
        conn.send(request_bytes("GET", "/containers/box/processes/asks"))
        assert conn.head()[0] == 200
        conn.take_until(b"\n")
        attaches.append(conn)
    one.client.ok("GET", "/ping")
    one.kill()  # the shim ends them
    for conn in attaches:
        assert conn.rest() == b"" and conn.ended == "FIN"
        conn.close()
    asking.wait_ends()
    one.start()
    again = one.client.attach("box", "asks")
    again.stdin("x\n")
    assert again.wait() == 3
    wait_until(lambda: descriptors(one) <= before + 8, "descriptors")


def test_4_32_output_behind_an_exit_comes_once(start_server, tmp_path):  # noqa: F811
    """3 MiB that nobody had read when the process ended, the server killed, then twice an attach."""
    one = start_server(*NO_POOL, directory=tmp_path)
    one.client.create("box")
    size = 3 * MIB
    first = one.client.run("box", {"id": "done", "path": "/bin/sh", "args": ["-c", f"head -c {size} /dev/zero; exit 5"]}, streams=())
    assert first.wait_exit_line() == 5
    one.kill()
    one.start()
    late = one.client.attach("box", "done")
    assert (late.wait(), len(late.stdout)) == (5, size)
    later = one.client.attach("box", "done")
    assert (later.wait(), later.stdout) == (5, b"")


def test_4_33_a_grandchild_that_keeps_the_pipes(start_server, tmp_path):  # noqa: F811
    """The exit is told at once, the streams end soon after, and what the grandchild writes then stops nobody."""
    one = start_server(*NO_POOL, directory=tmp_path)
    one.client.create("box")
    script = "(while :; do echo noise; sleep 0.1; done) & echo mine; exit 8"
    process = one.client.run("box", {"id": "parent", "path": "/bin/sh", "args": ["-c", script]})
    assert process.wait() == 8
    assert b"mine\n" in process.stdout
    one.kill()
    one.start()
    assert one.client.attach("box", "parent").wait() == 8
    assert one.client.output("box", "ps | grep -c '[s]leep' > /dev/null; echo alive") == "alive\n"


def test_what_an_attach_is_told_is_the_same_after_each_restart(start_server, tmp_path, root):  # noqa: F811
    """The status, and why: kept by the shim for the container's life."""
    one = start_server(*NO_POOL, directory=tmp_path)
    one.client.create("box", rootfs=str(root))
    for name, script, status in (("plain", "exit 3", 3), ("killed", "kill -9 $$", 137)):
        assert one.client.sh("box", script, id=name)[0] == status
    properties = one.client.ok("GET", "/containers/box/properties")
    assert "signal" in properties["cloche.exit-reason"] or "9" in properties["cloche.exit-reason"]
    for _ in range(2):
        one.kill()
        one.start()
        assert one.client.attach("box", "plain").wait() == 3
        assert one.client.attach("box", "killed").wait() == 137
        again = one.client.ok("GET", "/containers/box/properties")
        assert again["cloche.exit-reason"] == properties["cloche.exit-reason"]
        assert json.loads(again["cloche.usage"]) == json.loads(properties["cloche.usage"])


def test_a_reset_ends_no_stdin_and_neither_does_our_death(start_server, tmp_path, root):  # noqa: F811
    one = start_server(*NO_POOL, directory=tmp_path)
    one.client.create("box", rootfs=str(root))
    start(one, "box", "feed", "acknowledge")
    for i in range(3):
        follower = Follower(one, "box", "feed")
        follower.control.send(follower.message(source=0, data=f"sync {i}\n"))
        assert follower.read_line() == b"sync %d" % i
        if i == 1:
            one.kill()
            assert b"".join(follower.rest()) == b"" and follower.exit_status() is None
            one.start()
        else:
            follower.control.reset()
            assert b"".join(follower.cut_by_fin()) == b""  # the server's FIN: it has seen ours, and the acknowledgement
    follower = Follower(one, "box", "feed")
    follower.control.half_close()  # a FIN does
    assert b"".join(follower.rest()) == b"end 0\n"
    assert follower.exit_status() == 0
