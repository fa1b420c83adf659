"""Volumes that are made while nobody waits: lines 46-55 of the volumes' acceptance list."""
import concurrent.futures
import contextlib
import sqlite3
import time

import oracle
import pytest
from archives import contents
from conftest import unique_name
from gardenlib import wait_until
from serverproc import SANITIZED
from test_volumes_routes import assert_error
from volumelib import EMPTY, HeldImport, cow, imported


@pytest.fixture
def held(tmp_path):
    with HeldImport(tmp_path / "rootfs.tgz") as one:
        yield one


@pytest.fixture
def pending(server, volumes, held):
    """The handle of a volume whose import does not end yet."""
    handle = unique_name("pending")
    held.begin(server, handle)
    yield handle
    held.end()
    if volumes.poll_until_done(handle).status != 404:
        volumes.forget(handle)
    volumes.destroy_many([handle])


def test_46_a_long_import_is_answered_at_once(volumes, held, pending):
    other = unique_name()
    reply = volumes.start(other)
    assert (reply.status, reply.json) == (201, {"handle": other})
    volumes.poll_until_done(other)
    volumes.forget(other)
    volumes.destroy(other)
    assert not volumes.exists(pending)


@pytest.mark.skipif(SANITIZED, reason="it only waits, and release has done so")
def test_47_a_poll_is_held(volumes, pending):
    """For 20 seconds; clients give up after 60."""
    reply = volumes.poll(pending)
    assert (reply.status, reply.body) == (204, b"")
    assert "content-length" not in reply.headers and "transfer-encoding" not in reply.headers


def test_47_a_held_poll_ends_with_the_import(volumes, held, pending):
    with volumes.connect() as conn:
        conn.send(b"GET /volumes-async/%b HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n" % pending.encode())
        held.end()
        reply = conn.reply()
    assert reply.status in (200, 204)
    assert volumes.poll_until_done(pending).status == 200
    assert set(contents(volumes.tree(pending))) == set(held.names)


def test_48_polls_of_a_finished_one(volumes):
    handle = unique_name()
    volumes.start(handle, uid=-1, gid=-1)
    first, second = volumes.poll_until_done(handle), volumes.poll(handle)
    assert (first.status, first.body) == (second.status, second.body) and first.status == 200
    assert list(first.json) == ["handle", "path", "properties", "privileged", "uid", "gid"]
    assert first.json["properties"] is None
    volumes.forget(handle)
    volumes.destroy(handle)


def test_49_no_future(volumes, make_volume):
    one = make_volume()  # which has been forgotten as a future
    for handle in (one.handle, "nobody"):
        assert volumes.poll(handle)[0::2] == (404, b"")
        assert volumes.forget(handle)[0::2] == (404, b"")


def test_50_a_pending_one_is_cancelled(server, volumes, held, pending):
    reply = volumes.forget(pending)
    assert (reply.status, reply.body) == (204, b"")
    assert volumes.poll(pending).status == 404
    held.end()
    wait_until(lambda: server.volume_files() == [], "nothing left of it")
    assert not volumes.exists(pending) and volumes.handles() == []
    volumes.make(pending)  # the handle can be used again
    assert volumes.get(pending)["handle"] == pending


def test_51_a_finished_one_is_forgotten(volumes):
    handle = unique_name()
    volumes.start(handle)
    assert volumes.poll_until_done(handle).status == 200
    reply = volumes.forget(handle)
    assert (reply.status, reply.body) == (204, b"")
    assert volumes.exists(handle) and volumes.poll(handle).status == 404
    volumes.destroy(handle)


def test_52_a_handle_that_is_being_made(volumes, held, pending):
    assert_error(volumes.start(pending), 500, exactly="promise already exists in list")
    reply = volumes.request("POST", "/volumes", {"handle": pending, "strategy": EMPTY})
    assert_error(reply, 500, "failed to create volume")
    held.end()
    assert volumes.poll_until_done(pending).status == 200
    assert_error(volumes.start(pending), 500, exactly="promise already exists in list")
    assert set(contents(volumes.tree(pending))) == set(held.names)


def test_53_a_parent_that_is_not_there(server, volumes):
    handle = unique_name()
    assert volumes.start(handle, cow("no-such-parent")).status == 201
    for _ in range(2):
        assert_error(volumes.poll_until_done(handle), 422, "failed to create volume")
    assert volumes.forget(handle).status == 204
    wait_until(lambda: server.volume_files() == [], "nothing left of it")


def test_54_as_concourse_does_it(volumes):
    handle = unique_name()
    made = volumes.make(handle, properties=None, privileged=True)
    assert (made["handle"], made["privileged"]) == (handle, True)
    assert volumes.get(handle) == made
    volumes.destroy(handle)


@pytest.mark.skip(reason="an hour; the clock is the matter of a unit test")
def test_55_forgotten_after_an_hour():
    pass


def test_a_volume_that_is_not_complete_is_no_parent(volumes, pending):
    reply = volumes.request("POST", "/volumes", {"strategy": cow(pending)})
    assert_error(reply, 422, "failed to create volume")


def test_a_volume_that_is_not_complete_is_not_there(volumes, pending):
    assert volumes.handles() == []
    assert volumes.request("DELETE", f"/volumes/{pending}").status == 404
    assert volumes.stream_in(pending, b"").status == 404


def test_a_failure_is_told_until_it_is_forgotten(volumes, tmp_path):
    handle = unique_name()
    volumes.start(handle, {"type": "import", "path": str(tmp_path / "missing")})
    replies = [volumes.poll_until_done(handle) for _ in range(2)]
    text = assert_error(replies[0], 500, "failed to create volume")
    assert replies[0].body == replies[1].body and "No such file or directory" in text
    assert volumes.forget(handle).status == 204
    volumes.make(handle)
    volumes.destroy(handle)


LOST = "failed to create volume: the server was restarted before it was made"


def test_what_was_being_made_at_a_kill(start_server, tmp_path, held):
    server = start_server(directory=tmp_path / "server")
    held.begin(server, "pending")
    server.kill()
    helpers = held.stopped
    held.end()
    wait_until(lambda: not any(oracle.Task(pid).alive for pid in helpers), "its helper has ended too")
    for _ in range(2):
        server.start()
        assert_error(server.volumes.poll("pending"), 500, exactly=LOST)
        assert server.volumes.list() == []
        wait_until(lambda: server.volume_files() == [], "nothing left of it")
        server.kill()
    server.start()
    assert server.volumes.start("pending").status == 201, "whoever asks anew wants it made"
    assert server.volumes.poll_until_done("pending").status == 200
    assert server.volumes.forget("pending").status == 204 and server.volumes.poll("pending").status == 404
    server.kill()
    server.start()
    assert server.volumes.poll("pending").status == 404 and server.volumes.exists("pending")


def test_futures_outlive_the_server(start_server, tmp_path):
    """Answers do not depend on whether it is still the same server that is asked."""
    server = start_server(directory=tmp_path / "server")
    asked = {
        "made": ({"type": "empty"}, {"uid": 0, "gid": 7, "privileged": True}),
        "plain": ({"type": "empty"}, {"properties": {"a": "b"}}),
        "orphan": (cow("no-such-parent"), {"uid": -1, "gid": -1}),
        "missing": (imported(tmp_path / "missing"), {}),
        "gone": ({"type": "empty"}, {})}
    for handle, (strategy, more) in asked.items():
        assert server.volumes.start(handle, strategy, **more).status == 201
    before = {handle: server.volumes.poll_until_done(handle) for handle in asked}
    assert [reply.status for reply in before.values()] == [200, 200, 422, 500, 200]
    server.volumes.destroy("gone")
    for again in (server.kill, server.terminate):
        again()
        server.start()
        for handle in ("made", "plain", "orphan", "missing"):
            assert server.volumes.poll(handle)[0::2] == before[handle][0::2], handle
        assert_error(server.volumes.poll("gone"), 500, "failed to create volume")
        assert_error(server.volumes.start("made"), 500, exactly="promise already exists in list")
    for handle in asked:
        assert server.volumes.forget(handle).status == 204
    server.kill()
    server.start()
    assert {server.volumes.poll(handle).status for handle in asked} == {404}
    assert server.volumes.handles() == ["made", "plain"]


def test_another_ones_volume_is_not_what_was_asked_for(start_server, tmp_path, held):
    """The handle was taken when it was asked for: still so after a restart."""
    server = start_server(directory=tmp_path / "server")
    server.volumes.make("taken", properties={"owner": "other"})
    assert server.volumes.start("taken").status == 201
    text = assert_error(server.volumes.poll_until_done("taken"), 500, "failed to create volume")
    server.kill()
    server.start()
    assert_error(server.volumes.poll("taken"), 500, exactly=text)
    assert server.volumes.get("taken")["properties"] == {"owner": "other"}


def test_what_was_cancelled_does_not_come_back(start_server, tmp_path, held):
    """Even when the kill comes after all of it was there. A database as the last moment leaves it."""
    server = start_server(directory=tmp_path / "server")
    server.volumes.make("kept")
    server.volumes.make("cancelled")
    server.kill()
    with contextlib.closing(sqlite3.connect(server.work / "volumes/state.db")) as db, db:
        for handle, after in (("cancelled", 0), ("kept", 1000), ("../odd", 0)):
            db.execute("INSERT INTO futures (handle, state, after, blame, code, text) VALUES (?, 2, ?, 0, 0, '')",
                       (handle, after))
    server.start()
    assert server.volumes.handles() == ["kept"] and server.volumes.poll("cancelled").status == 404
    server.kill()
    with contextlib.closing(sqlite3.connect(server.work / "volumes/state.db")) as db, db:
        assert db.execute("SELECT * FROM futures").fetchall() == []
    server.start()
    server.volumes.make("cancelled")


def test_futures_that_cannot_be_read_do_no_harm(start_server, tmp_path):
    server = start_server(directory=tmp_path / "server")
    server.volumes.make("kept")
    server.kill()
    with contextlib.closing(sqlite3.connect(server.work / "volumes/state.db")) as db, db:
        db.execute("DROP TABLE futures")
        db.execute("CREATE TABLE futures (id INTEGER PRIMARY KEY, odd TEXT)")
    server.start()
    assert server.volumes.handles() == ["kept"]
    assert [line for line in server.log_lines() if line["message"] == "cloche.futures-lost"]
    assert_error(server.volumes.start("new"), 500, "failed to create volume")
    assert server.volumes.poll("new").status == 404 and server.volumes.handles() == ["kept"]


def test_what_is_made_at_once_is_not_cancelled(server, volumes):
    """Who drops it while it is being recorded waits that long, and the volume stays. The record is held up here."""
    handle = unique_name("held")
    with concurrent.futures.ThreadPoolExecutor() as pool, contextlib.closing(
            sqlite3.connect(server.work / "volumes/state.db", timeout=30, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        made = pool.submit(volumes.start, handle)
        wait_until(lambda: (server.work / "volumes/init" / handle).exists(), "it is being made")
        dropped = pool.submit(volumes.forget, handle)
        db.execute("ROLLBACK")
    assert made.result().status == 201 and dropped.result().status == 204
    assert volumes.exists(handle) and volumes.poll(handle).status == 404
    volumes.destroy(handle)


def test_nobody_sees_what_was_cancelled(server, volumes):
    """Not even for a moment: its name could have been taken from it, and given to another."""
    handle = unique_name("unseen")
    volumes.make("base-of-unseen")
    volumes.create(handle, cow("base-of-unseen"))  # the base is a layer now
    volumes.destroy(handle)
    wait_until(lambda: len(server.volume_files()) == 2, "the copy is gone")
    base = set(server.volume_files())
    for _ in range(30):
        assert volumes.start(handle, cow("base-of-unseen"), uid=1, gid=1).status == 201
        assert volumes.forget(handle).status == 204
        if volumes.exists(handle):  # it was faster
            volumes.destroy(handle)
            continue
        while set(server.volume_files()) - base:
            assert volumes.handles() == ["base-of-unseen"]
    volumes.destroy("base-of-unseen")


def test_names_that_are_cancelled_and_made_again(server, volumes):
    """What a cancelled creation leaves is its own: a new volume of the same name stays."""
    handle, strategy = unique_name("again"), {"uid": 1, "gid": 1}
    volumes.make("base-of-again")
    for n in range(30):
        assert volumes.start(handle, cow("base-of-again"), **strategy).status == 201
        if n % 3:
            time.sleep(n / 3000)  # it may be made before, while or after it is cancelled
        assert volumes.forget(handle).status == 204

        def make():
            reply = volumes.request("POST", "/volumes", {"handle": handle, "strategy": EMPTY})
            if reply.status == 201:
                return True
            if volumes.exists(handle):
                volumes.destroy(handle)  # it was complete before
            return False

        wait_until(make, "its name is free")
        assert volumes.exists(handle)
        wait_until(lambda: oracle.helpers(server) == [], "nothing is at work")
        assert volumes.exists(handle), "the cancelled one took it along"
        volumes.destroy(handle)
    volumes.destroy("base-of-again")
