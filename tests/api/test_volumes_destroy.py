"""Destroying and starting again: lines 102-115 of the volumes' acceptance list. Crashes in the middle of something are
in test_volumes_crash.py, full disks in test_volumes_full_disk.py."""
import contextlib
import os
import shutil
import socket
import sqlite3
import threading

import oracle
import pytest
from archives import Member, contents, directory
from conftest import unique_name
from gardenlib import wait_until
from serverproc import refused_start
from test_volumes_routes import assert_error
from volumelib import cow, volume_path


def test_102_destroy(server, volumes, make_volume):
    one = make_volume().fill("file")
    reply = volumes.request("DELETE", volume_path(one.handle))
    assert (reply.status, reply.body) == (204, b"")
    assert volumes.handles() == [] and volumes.stream_out(one.handle).status == 404
    assert_error(volumes.request("DELETE", volume_path(one.handle)), 404, "failed to destroy volume")
    wait_until(lambda: server.volume_files() == [], "its files are gone")


def test_102_a_handle_is_free_at_once(volumes, make_volume):
    one = make_volume().fill("old")
    for n in range(20):
        one.destroy()
        made = volumes.make(one.handle, properties={"n": str(n)})
        assert made["properties"] == {"n": str(n)} and contents(one.tree()) == {}
        one.fill("old")


def test_103_destroy_many(volumes, make_volume):
    first, second, third = make_volume(), make_volume(), make_volume()
    reply = volumes.request("DELETE", "/volumes/destroy", [first.handle, "unknown", "../bad", second.handle])
    assert (reply.status, reply.body) == (204, b"")
    assert volumes.handles() == [third.handle]
    volumes.destroy_many([third.handle, third.handle])
    assert volumes.handles() == []


@pytest.mark.parametrize("body", [b"[]", b"null"])
def test_103_destroy_none(volumes, volume, body):
    assert volumes.request("DELETE", "/volumes/destroy", body=body).status == 204
    assert volumes.exists(volume.handle)


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'"a"', b'["a"'])
def test_103_bad_requests(volumes, volume, body):
    assert_error(volumes.request("DELETE", "/volumes/destroy", body=body), 400, "failed to destroy volume")
    assert volumes.exists(volume.handle)


def test_104_a_parent_with_children(server, volumes, make_volume):
    parent = make_volume().fill(directory("d"), "d/file", Member("changed", b"old"))
    child = make_volume(parent=parent).fill(Member("changed", b"new"), "own")
    grandchild = make_volume(parent=child).fill("its-own")
    expected = contents(child.tree()), contents(grandchild.tree())
    parent.destroy()
    volumes.cleanup()
    assert not volumes.exists(parent.handle)
    assert (contents(child.tree()), contents(grandchild.tree())) == expected
    child.destroy()
    volumes.cleanup()
    assert contents(grandchild.tree()) == expected[1]
    another = make_volume(parent=grandchild)
    grandchild.destroy()
    assert contents(another.tree()) == expected[1]
    another.destroy()
    wait_until(lambda: server.volume_files() == [], "everything is gone with the last one")


def test_105_what_is_left_of_the_dead(start_server, tmp_path):
    """Only init/ and dead/ are swept."""
    server = start_server(directory=tmp_path)
    server.volumes.make("parent")
    server.volumes.fill("parent", "file")
    server.volumes.make("child", cow("parent"))
    server.terminate()
    place = server.work / "volumes"
    for stale in ("init/x/volume/d", "dead/x/volume/d", "dead/y"):
        (place / stale).mkdir(parents=True)
    (place / "dead/z").write_text("a file")
    os.symlink("/etc", place / "dead/link")
    (place / "layers/1000000").mkdir()
    server.start()
    server.volumes.cleanup()
    wait_until(lambda: not os.listdir(place / "init") and not os.listdir(place / "dead"), "both are empty")
    assert os.path.exists("/etc/passwd")
    assert contents(server.volumes.tree("child")) == {"file": b"content of file"}
    assert server.volumes.handles() == ["child", "parent"]
    shutil.rmtree(place / "layers/1000000", ignore_errors=True)


def test_106_nothing_to_clean(volumes):
    for _ in range(3):
        reply = volumes.request("POST", "/volumes/cleanup-orphans")
        assert (reply.status, reply.body) == (204, b"")


def test_107_creations_and_cleanups(volumes, make_volume):
    parent = make_volume().fill("file")
    handles, failures = [unique_name("race") for _ in range(100)], []

    def create(part):
        for handle in part:
            try:
                volumes.make(handle, cow(parent.handle))
                assert contents(volumes.tree(handle)) == {"file": b"content of file"}
            except Exception as failure:  # noqa: BLE001 - whatever it is, the test fails
                failures.append(failure)

    threads = [threading.Thread(target=create, args=(handles[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        volumes.cleanup()
    assert failures == []
    for handle in handles:
        assert contents(volumes.tree(handle)) == {"file": b"content of file"}
    volumes.destroy_many(handles)


@pytest.fixture(params=["kill", "terminate"])
def restarted(request, start_server, tmp_path):
    server = start_server(directory=tmp_path)

    def restart():
        getattr(server, request.param)()
        server.start()

    return server, restart


def test_108_the_same_handles_after_a_restart(restarted):
    server, restart = restarted
    for handle in ("b", "a", "c"):
        server.volumes.make(handle)
    server.volumes.destroy("b")
    restart()
    assert server.volumes.handles() == ["a", "c"]
    wait_until(lambda: len(server.volume_files()) == 2, "what was destroyed is gone")


def test_109_chains_after_a_restart(restarted):
    server, restart = restarted
    volumes, expected = server.volumes, {}
    volumes.make("root")
    volumes.fill("root", directory("d"), "d/file", Member("all", b"root"))
    for handle, parent in (("child", "root"), ("grandchild", "child"), ("second", "child")):
        volumes.make(handle, cow(parent))
        volumes.fill(handle, Member("all", handle.encode()), f"d/{handle}")
    volumes.fill("child", Member("later", b"after the copies"))
    for handle in volumes.handles():
        expected[handle] = volumes.tree(handle)
    for _ in range(2):
        restart()
        volumes = server.volumes
        assert {handle: volumes.tree(handle) for handle in volumes.handles()} == expected
    volumes.destroy("root")
    volumes.destroy("child")
    restart()
    volumes = server.volumes
    assert {handle: volumes.tree(handle) for handle in volumes.handles()} == {
        handle: expected[handle] for handle in ("grandchild", "second")}
    volumes.make("another", cow("grandchild"))
    assert volumes.tree("another") == expected["grandchild"]


def test_110_mounts_after_many_restarts(start_server, tmp_path):
    server = start_server(directory=tmp_path)
    server.volumes.make("plain")
    server.volumes.make("copy", cow("plain"))
    server.client.create("box", bind_mounts=[
        {"src_path": server.volumes.get(handle)["path"], "dst_path": f"/{handle}", "mode": 1}
        for handle in ("plain", "copy")])
    mounts = oracle.mount_points(server.pid), oracle.mount_points(os.getpid())
    for n in range(5):
        server.kill()
        server.start()
        server.client.output("box", f"echo {n} >/plain/file; echo {n} >/copy/file")
    assert (oracle.mount_points(server.pid), oracle.mount_points(os.getpid())) == mounts
    for handle in ("plain", "copy"):
        assert server.volumes.file(handle, "file") == b"4\n"


def test_112_a_volume_that_has_lost_a_layer(start_server, tmp_path):
    server = start_server(directory=tmp_path)
    for handle in ("a", "b"):
        server.volumes.make(handle)
        server.volumes.fill(handle, handle)
        server.volumes.make(f"{handle}-copy", cow(handle))
        server.volumes.fill(f"{handle}-copy", "own")
    server.terminate()
    layers = server.work / "volumes/layers"
    (lost,) = [layer for layer in layers.iterdir() if (layer / "b").exists()]
    lost.rename(tmp_path / "lost")
    server.start()
    assert set(contents(server.volumes.tree("a-copy"))) == {"a", "own"}
    with server.volumes.download("b-copy") as stream:
        assert stream.status in (404, 500)
    assert any(line.get("level") in ("warn", "error") for line in server.log_lines())
    assert list(server.work.glob("volumes/*/b-copy/upper/own"))
    server.terminate()
    (tmp_path / "lost").rename(lost)
    server.start()  # and when it is back, so is the volume
    assert set(contents(server.volumes.tree("b-copy"))) == {"b", "own"}


@pytest.mark.parametrize("options", [["--baggageclaim-bind-port", "65536"], ["--baggageclaim-bind-port", "x"],
                                     ["--baggageclaim-bind-ip", "no address"]])
def test_114_options_that_cannot_be(tmp_path, volumes, options):
    """In place of a missing --volumes: the work directory has a default here."""
    code, text = refused_start(*options, directory=tmp_path)
    assert code == 1 and options[0].removeprefix("--baggageclaim-") in text


def test_114_a_port_in_use(tmp_path, volumes):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, text = refused_start("--baggageclaim-bind-port", port, directory=tmp_path)
    assert code == 1 and "Address already in use" in text


def test_both_apis_have_addresses_of_their_own(server, volumes):
    assert server.client.address != volumes.address
    assert volumes.request("GET", "/ping").status == 404
    assert server.client.request("GET", "/volumes").status == 404


def test_many_with_one_that_cannot_be_moved(start_server, tmp_path):
    """The others go all the same, and it stays: now, and at the next start."""
    server = start_server(directory=tmp_path)
    doomed = server.work / "volumes/doomed"
    for name in ("a", "b", "c"):
        server.volumes.make(name)
        server.volumes.fill(name, name)
    with contextlib.closing(sqlite3.connect(server.work / "volumes/state.db")) as db:
        ((number,),) = db.execute("SELECT id FROM volumes WHERE handle = 'b'").fetchall()
    (doomed / str(number)).mkdir()
    (doomed / str(number) / "in-the-way").touch()
    reply = server.volumes.request("DELETE", "/volumes/destroy", ["a", "b", "nobody", "c", "a"])
    assert "doomed" in assert_error(reply, 500, "failed to destroy volume")
    for _ in range(2):
        assert server.volumes.handles() == ["b"] and server.volumes.file("b", "b") == b"content of b"
        server.kill()
        server.start()
    (doomed / str(number) / "in-the-way").unlink()
    (doomed / str(number)).rmdir()
    server.volumes.destroy_many(["b"])
    wait_until(lambda: server.volume_files() == [], "all of it is gone")


N_NAMES = 1_000_000 if os.environ.get("CLOCHE_LARGE") == "1" else 60_000


def test_the_api_answers_while_much_is_deleted(start_server, tmp_path):
    """CLOCHE_LARGE=1: 1,000,000 names."""
    server = start_server(directory=tmp_path)
    server.volumes.make("large")
    tree = server.work / "volumes/live/large/volume"
    for n in range(N_NAMES):
        if n % 1000 == 0:
            (tree / f"d{n}").mkdir()
        if n % 50_000 == 0:  # a file has 65,000 names at most
            first = tree / f"first-{n}"
            first.touch()
        os.link(first, tree / f"d{n // 1000 * 1000}" / str(n))
    server.volumes.make("other")
    server.volumes.fill("other", "file")
    server.volumes.destroy("large")
    places, made = [server.work / "volumes" / name for name in ("doomed", "dead")], []
    while any(os.listdir(place) for place in places):
        made.append(server.volumes.make()["handle"])
        assert server.volumes.handles() == sorted(["other", *made])
        assert server.volumes.file("other", "file") == b"content of file"
    assert len(made) > 3, "it was gone before anybody could ask"
