"""Copies of what a container has attached. While nothing runs in it what it has written becomes a layer, and is replaced
by a fresh place to write to before something runs in it again: neither sees what the other writes."""
import threading

import oracle
import pytest
import test_volumes_routes
from archives import Member, contents, directory, tar
from gardenlib import Hijacked, wait_until
from test_wire import assert_error
from volumelib import cow, imported


def renewals(server):
    return sum(line.get("message") == "cloche.volumes-renewed" for line in server.log_lines())


def layers_with(server, name):
    return list((server.work / "volumes/layers").glob(f"*/{name}"))


def test_what_an_idle_container_has_written_is_shared(server, volume, make_volume, make_container):
    box = make_container(bind_mounts=[volume.bind("/v")])
    box.output("dd if=/dev/zero of=/v/large bs=1M count=20 2>/dev/null")
    (before,) = (server.work / "volumes/live" / volume.handle).glob("*/large")
    inode, copy = before.stat().st_ino, make_volume(parent=volume)
    (layer,) = layers_with(server, "large")
    assert layer.stat().st_ino == inode  # moved, not copied
    assert not (server.work / "volumes/live" / copy.handle / "upper").exists()
    box.output("echo small >/v/large; echo more >/v/more")
    assert layer.stat().st_size == 20 << 20
    assert set(contents(copy.tree())) == {"large"} and set(contents(volume.tree())) == {"large", "more"}


def test_many_copies_with_processes_between(volume, make_volume, make_container):
    box, copies = make_container(bind_mounts=[volume.bind("/v")]), []
    for n in range(8):
        box.output(f"echo {n} >/v/{n}; echo {n} >/v/last; rm -f /v/{n - 2}")
        copies.append(make_volume(parent=volume))
    for n, copy in enumerate(copies):
        assert contents(copy.tree()) == {str(m): f"{m}\n".encode() for m in (n - 1, n) if m >= 0} | {
            "last": f"{n}\n".encode()}


def test_volumes_within_volumes(make_volume, make_container):
    """The outer one is replaced, and what is mounted in it stays where it was."""
    outer, inner, other = (make_volume().fill(name) for name in ("outer", "inner", "other"))
    box = make_container(bind_mounts=[outer.bind("/w"), inner.bind("/w/in"), other.bind("/w/in/deep", read_only=True)])
    box.output("echo 1 >/w/one; echo 1 >/w/in/one")
    copy = make_volume(parent=outer)
    assert set(box.output("ls -d /w/*  /w/in/* /w/in/deep/*").split()) == {
        "/w/in", "/w/one", "/w/outer", "/w/in/deep", "/w/in/inner", "/w/in/one", "/w/in/deep/other"}
    box.output("echo 2 >/w/two; echo 2 >/w/in/two; ! touch /w/in/deep/no 2>/dev/null")
    assert "two" in outer.tree() and "two" in inner.tree()
    assert set(contents(copy.tree())) == {"outer", "one", "in"}


def test_a_volume_in_two_places(volume, make_volume, make_container):
    volume.fill(directory("d"))
    box = make_container(bind_mounts=[volume.bind("/a"), volume.bind("/b"), volume.bind("/c", "/d")])
    make_volume(parent=volume)
    assert box.output("echo 1 >/a/one; echo 2 >/c/two; cat /b/one /a/d/two /b/d/two") == "1\n2\n2\n"
    assert set(contents(volume.tree())) == {"d", "one", "d/two"}


def test_whoever_only_reads_still_cannot_write(volume, make_volume, make_container):
    volume.fill("file")
    box = make_container(bind_mounts=[volume.bind("/v", read_only=True)])
    copy = make_volume(parent=volume)
    copy.fill("copy's")
    assert box.output("cat /v/file; touch /v/no 2>&1 || true").endswith("Read-only file system\n")
    assert set(contents(volume.tree())) == {"file"}


def test_what_was_left_running_keeps_its_mount(volume, make_volume, make_container):
    """A process that nobody waits for is one: the volume is copied as it stands then."""
    box = make_container(bind_mounts=[volume.bind("/v")])
    box.output("(while [ ! -e /v/stop ]; do sleep 0.01; done; echo end >/v/end) >/dev/null 2>&1 </dev/null &")
    copy = make_volume(parent=volume)
    box.output("echo now >/v/now; touch /v/stop")
    wait_until(lambda: "end" in volume.tree(), "the one that was left has seen it and written")
    assert contents(copy.tree()) == {}
    assert set(contents(volume.tree())) == {"now", "stop", "end"}


def test_the_root_of_an_idle_container(make_volume, make_container, root):
    image = make_volume(strategy=imported(root))
    box = make_container(rootfs=f"raw://{image.path}")
    box.output("echo 1 >/one")
    copy = make_volume(parent=image)
    box.output("echo 2 >/two")
    assert {"one"} == {"one", "two"} & set(copy.tree())
    assert {"one", "two"} <= set(image.tree())


def test_eight_at_once_after_a_copy(server, volume, make_volume, make_container):
    box = make_container(bind_mounts=[volume.bind("/v")])
    box.output("echo 0 >/v/zero")
    copy, before = make_volume(parent=volume), renewals(server)
    threads = [threading.Thread(target=box.output, args=(f"echo {n} >/v/{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(contents(volume.tree())) == {"zero", *map(str, range(8))}
    assert set(contents(copy.tree())) == {"zero"} and renewals(server) == before + 1


@pytest.mark.parametrize("how", ["kill", "terminate"])
@pytest.mark.parametrize("is_destroyed", [False, True])
def test_over_a_restart(start_server, tmp_path, how, is_destroyed):
    """Also if the volume was destroyed meanwhile: the container has it still."""
    server = start_server(directory=tmp_path)
    path = server.volumes.make("parent")["path"]
    server.client.create("box", bind_mounts=[{"src_path": path, "dst_path": "/v", "mode": 1}])
    server.client.output("box", "echo 1 >/v/one")
    server.volumes.make("copy", {"type": "cow", "volume": "parent"})
    if is_destroyed:
        server.volumes.destroy("parent")
    getattr(server, how)()
    server.start()
    assert server.client.output("box", "echo 2 >/v/two; cat /v/one /v/two") == "1\n2\n"
    assert set(contents(server.volumes.tree("copy"))) == {"one"}
    if not is_destroyed:
        assert set(contents(server.volumes.tree("parent"))) == {"one", "two"}


def test_a_renewal_that_fails(server, volume, make_volume, make_container):
    """Nothing is run on what belongs to others by now; when the cause is gone, it goes on."""
    box = make_container(bind_mounts=[volume.bind("/v")])
    box.output("echo 1 >/v/only-here")
    copy = make_volume(parent=volume)
    (layer,) = (path.parent for path in layers_with(server, "only-here"))
    layer.rename(server.directory / "away")
    try:
        assert_error(box.client.run_refused(box.handle, {"path": "true"}), 500)
    finally:
        (server.directory / "away").rename(layer)
    assert box.output("echo 2 >/v/two; cat /v/only-here") == "1\n"
    assert set(contents(copy.tree())) == {"only-here"}


def test_two_containers_one_after_the_other(volume, make_volume, make_container):
    """Whoever comes first after a copy has the volume to write to; the other one hears why it cannot go on."""
    first = make_container(bind_mounts=[volume.bind("/v")])
    first.output("echo 1 >/v/one")
    make_volume(parent=volume)
    second = make_container(bind_mounts=[volume.bind("/v")])
    assert second.output("echo 2 >/v/two; cat /v/one") == "1\n"
    text = assert_error(first.client.run_refused(first.handle, {"path": "true"}), 500)["Message"]
    assert "another container" in text and volume.handle in text
    second.destroy()
    assert first.output("echo 3 >/v/three; cat /v/two") == "2\n"
    assert set(contents(volume.tree())) == {"one", "two", "three"}


def assert_failure(reply):
    return test_volumes_routes.assert_error(reply, 500, "failed to stream in to volume")


@pytest.fixture
def copy_of(make_volume):
    """Make a volume that has a layer, and nothing of its own yet."""
    def make(*members):
        return make_volume(parent=make_volume().fill(*members))
    return make


@pytest.mark.parametrize("writes_before", [True, False])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_stream_into_what_an_idle_container_has(server, copy_of, make_volume, make_container, writes_before, read_only):
    """What comes in is there for the next process, beside what the container has written itself."""
    volume = copy_of("below")
    if writes_before and read_only:
        volume.fill("own")
    box = make_container(bind_mounts=[volume.bind("/v", read_only=read_only)])
    if writes_before and not read_only:
        box.output("echo own >/v/own; rm /v/below; chown 7:8 /v")
    before = volume.tree()
    snapshot = make_volume(parent=volume)
    for n in range(3):
        volume.fill(Member(f"in-{n}", b"streamed", uid=5, gid=6, mode=0o4711))
    expected = set(before) | {"in-0", "in-1", "in-2"}
    assert set(volume.tree()) == expected and set(snapshot.tree()) == set(before)
    assert box.output("cat /v/in-2; stat -c %u:%g:%a /v/in-2") == "streamed5:6:4711\n"
    assert set(box.output("cd /v; find . -type f").split()) == {f"./{name}" for name in contents(volume.tree())}
    if not read_only:
        box.output("echo more >/v/more")
        assert set(volume.tree()) == expected | {"more"} and set(snapshot.tree()) == set(before)
    box.destroy()
    assert set(volume.tree()) == expected | (set() if read_only else {"more"})


def test_a_stream_into_what_a_process_has(volumes, copy_of, make_container):
    """It could be at work on it in this moment: refused, and nothing has changed."""
    volume = copy_of("below")
    box = make_container(bind_mounts=[volume.bind("/v")])
    process = box.run("echo here >/v/here; echo ready; read line; cat /v/here")
    wait_until(lambda: "here" in volume.tree(), "it has written")
    text = assert_failure(volumes.stream_in(volume.handle, tar("no"), encoding="raw"))
    assert f"{volume.handle}: a process in a container, or another stream, may write to it" in text
    process.stdin("\n")
    assert process.wait() == 0
    assert set(contents(volume.tree())) == {"below", "here"}
    volume.fill("yes")
    assert box.output("cat /v/here /v/yes") == "here\ncontent of yes"


def test_a_stream_into_what_is_a_root(volumes, root, make_volume, make_container):
    """A root cannot be replaced under its container."""
    image = make_volume(parent=make_volume(strategy=imported(root)))
    box = make_container(rootfs=f"raw://{image.path}")
    assert_failure(volumes.stream_in(image.handle, tar("no"), encoding="raw"))
    assert box.output("echo well") == "well\n"


def test_a_process_waits_for_no_stream(server, volumes, copy_of, make_container):
    """While a stream is at work on the volume nothing can be run that would write to it as well."""
    volume = copy_of("below")
    box = make_container(bind_mounts=[volume.bind("/v")])
    oracle.wait_for_pool(server)  # a shim that starts looks like a helper
    upload = volume.client.upload(volume.handle, None, "raw")
    data = tar(Member("large", bytes(300000)))
    upload.send(data[:100000])
    wait_until(lambda: len(oracle.helpers(server)) == 2, "it is at work")
    assert volumes.stream_in(volume.handle, tar("no"), encoding="raw").status == 500
    with pytest.raises(Hijacked) as refused:
        box.output("true")
    assert "another container or a stream writes to it" in str(refused.value.reply.json)
    upload.send(data[100000:])
    assert upload.finish().status == 204
    assert box.output("wc -c </v/large") == "300000\n"


def test_a_stream_into_an_idle_container_over_a_kill(start_server, tmp_path):
    server = start_server(directory=tmp_path)
    volumes = server.volumes
    volumes.make("base")
    volumes.fill("base", "below")
    path = volumes.make("v", cow("base"))["path"]
    server.client.create("box", bind_mounts=[{"src_path": path, "dst_path": "/v", "mode": 1}])
    server.client.output("box", "echo own >/v/own")
    volumes.fill("v", "in")
    server.kill()
    server.start()
    assert server.client.output("box", "cat /v/own /v/in; echo 2 >/v/two") == "own\ncontent of in"
    assert set(contents(server.volumes.tree("v"))) == {"below", "own", "in", "two"}
