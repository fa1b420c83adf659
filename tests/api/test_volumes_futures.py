"""Volumes that are made while nobody waits: lines 46-55 of the volumes' acceptance list."""
import oracle
import pytest
from archives import contents
from conftest import unique_name
from gardenlib import wait_until
from serverproc import SANITIZED
from test_volumes_routes import assert_error
from volumelib import EMPTY, HeldImport, cow


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


def test_what_was_being_made_at_a_kill(start_server, tmp_path, held):
    server = start_server(directory=tmp_path / "server")
    held.begin(server, "pending")
    server.kill()
    helpers = held.stopped
    held.end()
    wait_until(lambda: not any(oracle.Task(pid).alive for pid in helpers), "its helper has ended too")
    server.start()
    assert server.volumes.poll("pending").status == 404 and server.volumes.list() == []
    wait_until(lambda: server.volume_files() == [], "nothing left of it")
    server.volumes.make("pending")
