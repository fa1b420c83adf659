"""Volumes in containers, as root and as bind mounts: what lines 23, 31, 34, 37, 43, 44, 65, 67, 79, 81, 94, 96 and 105 of
the volumes' acceptance list say about owners and files on disk is looked at from inside here, because on disk owners are
canonical and the path is a name."""
import itertools
import os
import threading

import pytest
from archives import Member, contents, directory, symlink
from conftest import unique_name
from gardenlib import wait_until
from test_wire import assert_error
from volumelib import cow, imported

OWNER = "stat -c %u:%g"


@pytest.fixture
def image(make_volume, root):
    """A volume with users and the probe."""
    return make_volume(strategy=imported(root))


@pytest.fixture
def refused_create(client):
    """Create a container that must be refused: the text of the error."""
    def refuse(**spec):
        handle = unique_name("refused")
        reply = client.request("POST", "/containers", {"handle": handle, **spec})
        if reply.status == 200:
            client.destroy(handle)
        return assert_error(reply, 500)["Message"]
    return refuse


@pytest.fixture(params=["plain", "copy"])
def either(request, make_volume):
    """Make a volume with members: a plain one, or a copy of one."""
    def make(*members, **spec):
        if request.param == "plain":
            return make_volume(**spec).fill(*members)
        return make_volume(parent=make_volume().fill(*members), **spec)
    return make


def on_disk(server, volume, name):
    """Where a file of a volume lies in the store, if it was not frozen into a layer."""
    (path,) = (server.work / "volumes/live" / volume.handle).glob(f"*/{name}")
    return path


# As the root of a container.

@pytest.mark.parametrize("kind", ["plain", "copy"])
@pytest.mark.parametrize("privileged", [False, True])
def test_a_volume_as_root(server, image, make_volume, make_container, kind, privileged):
    one = image if kind == "plain" else make_volume(parent=image)
    box = make_container(rootfs=f"raw://{one.path}", privileged=privileged)
    assert box.output("cat /image-file; id -u; touch /made; mkdir /made-dir") == "from the image\n0\n"
    assert box.output(f"{OWNER} /image-file /made /home/testuser; {OWNER} /bin") == "0:0\n0:0\n1000:1000\n0:0\n"
    assert box.output(f"touch ~/mine; {OWNER} ~/mine", user="testuser") == "1000:1000\n"
    tree = one.tree()
    assert tree["made"].owner == tree["made-dir"].owner == (0, 0)
    assert tree["home/testuser/mine"].owner == (1000, 1000)
    assert os.stat(on_disk(server, one, "made")).st_uid == 0
    box.destroy()
    assert one.tree() == tree
    assert kind == "plain" or "made" not in image.tree()


@pytest.mark.parametrize("rest", ["/rootfs", "/rootfs/", "/./rootfs"])
def test_a_part_of_a_volume_as_root(make_volume, make_container, root, tmp_path, rest):
    os.mkdir(tmp_path / "image")
    os.symlink(root, tmp_path / "image/rootfs")
    (tmp_path / "image/metadata.json").write_text("{}")
    one = make_volume(strategy=imported(tmp_path / "image", follow_symlinks=True))
    copy = make_volume(parent=one)
    box = make_container(rootfs=f"raw://{copy.path}{rest}")
    assert box.output("cat /image-file; echo changed >/image-file; ls -d /metadata.json /rootfs 2>/dev/null || true"
                      ) == "from the image\n"
    assert copy.file("rootfs/image-file") == b"changed\n" and one.file("rootfs/image-file") == b"from the image\n"


def test_many_containers_from_one_image(image, make_volume, make_container):
    copies = [make_volume(parent=image, privileged=n % 2 == 1) for n in range(6)]
    boxes = [make_container(rootfs=f"raw://{copy.path}", privileged=n % 2 == 1) for n, copy in enumerate(copies)]
    for n, box in enumerate(boxes):
        assert box.output(f"echo {n} >/image-file; {OWNER} /image-file") == "0:0\n"
    assert [copy.file("image-file") for copy in copies] == [b"%d\n" % n for n in range(6)]
    assert image.file("image-file") == b"from the image\n"


# As bind mounts.

@pytest.mark.parametrize("privileged", [False, True])
def test_owners_and_modes_inside(server, either, make_container, privileged):
    one = either(Member("root's", b"1"), Member("user's", b"2", uid=1000, gid=1001, mode=0o640),
                 Member("set-uid", b"3", mode=0o4755), directory("d", mode=0o1777), symlink("link", "user's"),
                 privileged=privileged)
    box = make_container(privileged=privileged, bind_mounts=[one.bind("/v")])
    assert box.output("cd /v; stat -c '%n %u:%g %a' root\\'s user\\'s set-uid d link") == (
        "root's 0:0 644\nuser's 1000:1001 640\nset-uid 0:0 4755\nd 0:0 1777\nlink 0:0 777\n")
    box.output("cd /v; echo new >new; echo more >>user\\'s; chown 5:6 root\\'s; chmod 2711 new; mkfifo fifo; ln new hard")
    for n in range(2):
        tree = one.tree()
        assert (tree["new"].owner, tree["new"].mode, tree["root's"].owner) == ((0, 0), 0o2711, (5, 6))
        assert (tree["user's"].data, tree["user's"].owner, tree["user's"].mode) == (b"2more\n", (1000, 1001), 0o640)
        assert os.stat(on_disk(server, one, "new")).st_uid == 0
        if n == 0:
            box.destroy()


def test_one_volume_after_another_kind_of_container(volumes, either, make_container):
    """The flag may change between containers; nobody walks over the files for it."""
    one = either(Member("file", b"1"), Member("user's", b"2", uid=1000, gid=1000))
    for n, privileged in enumerate((False, True, False)):
        volumes.set_privileged(one.handle, privileged)
        box = make_container(privileged=privileged, bind_mounts=[one.bind("/v")])
        assert box.output(f"cd /v; touch made-{n}; {OWNER} *") == "0:0\n" * (n + 2) + "1000:1000\n"
        box.destroy()
    assert {member.owner for name, member in one.tree().items() if name != "user's"} == {(0, 0)}


@pytest.mark.parametrize("privileged", [False, True])
def test_31_an_owner_seen_from_inside(make_volume, make_container, privileged):
    parent = make_volume().fill(Member("file", b"x"), Member("set-uid", b"x", mode=0o4755), directory("d"))
    one = make_volume(parent=parent, privileged=privileged, uid=1234, gid=5678)
    box = make_container(privileged=privileged, bind_mounts=[one.bind("/v")])
    assert box.output("cd /v; stat -c '%n %u:%g %a' . file set-uid d") == (
        ". 1234:5678 755\nfile 1234:5678 644\nset-uid 1234:5678 4755\nd 1234:5678 755\n")
    box.output("touch /v/mine", user="1234:5678")
    assert one.tree()["mine"].owner == (1234, 5678)


def test_34_owner_root_seen_from_inside(make_volume, make_container):
    parent = make_volume().fill(Member("file", b"x", uid=7, gid=8))
    one = make_volume(parent=parent, uid=0, gid=0)
    assert make_container(bind_mounts=[one.bind("/v")]).output(f"{OWNER} /v /v/file") == "0:0\n0:0\n"


def test_a_read_only_bind(either, make_container):
    one = either("file")
    box = make_container(bind_mounts=[one.bind("/v", read_only=True)])
    status, _, err = box.sh("cat /v/file; touch /v/made")
    assert status != 0 and b"Read-only" in err
    assert box.output("cat /v/file") == "content of file"
    assert set(contents(one.tree())) == {"file"}


def test_a_part_of_a_volume_as_bind(either, make_container):
    one = either(directory("sub"), "sub/file", "other", directory("sub/deep"), symlink("link", "sub"))
    box = make_container(bind_mounts=[one.bind("/v", "/sub"), one.bind("/deep", "/sub/deep/"),
                                      one.bind("/one-file", "/other"), one.bind("/linked", "/link")])
    assert box.output("cat /v/file /one-file /linked/file; ls /v; touch /deep/made") == (
        "content of sub/filecontent of othercontent of sub/filedeep\nfile\n")
    assert set(contents(one.tree())) == {"sub", "sub/file", "sub/deep", "sub/deep/made", "other", "link"}


@pytest.mark.parametrize("rest", ["/missing", "/file/below", "/out", "/out/passwd", "/up/etc", "/../volume/../../x"])
def test_parts_that_are_not_in_it(server, make_volume, refused_create, either, rest):
    one = either("file", symlink("out", "/etc"), symlink("up", "../" * 30))
    before = server.client.handles("garden.state=all")
    assert refused_create(bind_mounts=[one.bind("/v", rest)])
    if rest != "/file/below":
        assert refused_create(rootfs=f"raw://{one.path}{rest}")
    assert server.client.handles("garden.state=all") == before
    one.destroy()


@pytest.mark.parametrize("path", ["/volumes/live/missing/volume", "/volumes/live/missing/volume/sub", "/volumes/live",
                                  "/volumes", "/volumes/layers/1", "/volumes/live/x/upper"])
def test_what_is_no_volume(server, volumes, make_volume, refused_create, path):
    make_volume("x")
    assert refused_create(rootfs=f"raw://{server.work}{path}")


def test_44_copies_of_copies_with_deletions(make_volume, make_container):
    """Each level changes one file, deletes another, puts a directory in the place of a file and so on."""
    script = "cd /v; echo {0} >all; echo {0} >new-{0}; rm -f new-{1}; rm -rf d; mkdir d; echo {0} >d/only-{0}"
    chain, expected = [make_volume()], []
    for level in range(11):
        one = chain[-1] if level == 0 else make_volume(parent=chain[-1])
        box = make_container(bind_mounts=[one.bind("/v")])
        box.output(script.format(level, level - 1))
        box.destroy()
        chain.append(one)
        expected.append({"all": b"%d\n" % level, f"new-{level}": b"%d\n" % level, "d": b"",
                         f"d/only-{level}": b"%d\n" % level})
    for one, tree in zip(chain[1:], expected):
        assert contents(one.tree()) == tree
    box = make_container(bind_mounts=[chain[-1].bind("/v"), chain[5].bind("/w")])
    assert box.output("cat /v/all /w/all; ls /v /v/d") == "10\n4\n/v:\nall\nd\nnew-10\n\n/v/d:\nonly-10\n"


def test_renames_and_links_in_a_copy(make_volume, make_container):
    parent = make_volume().fill(directory("d"), "d/file", "file", directory("e", mode=0o700))
    one = make_volume(parent=parent)
    box = make_container(bind_mounts=[one.bind("/v")])
    box.output("cd /v; mv d moved; ln file hard; mv e d; rm -r moved/file; ln -s d link; mknod null c 1 3 || true")
    box.destroy()
    for tree in (one.tree(), make_volume(parent=one).tree()):
        assert set(tree) - {"null"} == {".", "moved", "d", "file", "hard", "link"}
        assert tree["d"].mode == 0o700 and tree["link"].target == "d"
    assert contents(parent.tree()) == {"d": b"", "d/file": b"content of d/file", "file": b"content of file", "e": b""}


# Attached, while other things are done.

def test_what_a_container_writes_is_streamed(either, make_container):
    one = either("old")
    box = make_container(bind_mounts=[one.bind("/v")])
    process = box.run("cd /v; echo 1 >new; rm old; echo done; read x; echo 2 >>new; echo done")
    process.wait_output(b"done\n")
    assert contents(one.tree()) == {"new": b"1\n"}
    process.stdin("go\n")
    assert process.wait() == 0
    assert contents(one.tree()) == {"new": b"1\n2\n"}
    box.destroy()
    assert contents(one.tree()) == {"new": b"1\n2\n"}


def test_81_a_container_deletes_what_is_streamed(volumes, volume, make_container):
    volume.fill(*[Member(f"part-{n:02}", os.urandom(1 << 20)) for n in range(24)])
    box = make_container(bind_mounts=[volume.bind("/v")])
    with volumes.download(volume.handle) as stream:
        assert stream.next()
        box.output("rm -r /v/*")
        assert stream.rest().endswith(bytes(1024))
    assert contents(volume.tree()) == {}


@pytest.mark.parametrize("state", ["running", "ended", "destroyed"])
def test_a_copy_of_an_attached_parent(either, make_volume, make_container, state):
    """The next step copies the output of one whose container still lives."""
    parent = either("file")
    box = make_container(bind_mounts=[parent.bind("/v")])
    process = box.run("cd /v; echo 1 >output; rm file; echo ready; read x; echo late >>output")
    process.wait_output(b"ready\n")
    if state != "running":
        process.stdin("\n")
        assert process.wait() == 0
    if state == "destroyed":
        box.destroy()
    copy = make_volume(parent=parent)
    expected = {"output": b"1\n" if state == "running" else b"1\nlate\n"}
    assert contents(copy.tree()) == expected
    if state == "running":
        process.stdin("\n")
        assert process.wait() == 0
        assert contents(parent.tree()) == {"output": b"1\nlate\n"}
    if state != "destroyed":
        box.output("echo after >/v/later")  # a hijack into the container
        assert contents(parent.tree())["later"] == b"after\n"
    assert contents(copy.tree()) == expected
    other = make_container(bind_mounts=[copy.bind("/v")])
    other.output("echo 2 >>/v/output")
    assert contents(copy.tree())["output"] == expected["output"] + b"2\n"
    assert b"2\n" not in contents(parent.tree())["output"]


def test_copies_while_a_container_keeps_writing(make_volume, make_container):
    """Each copy is whole: a file is in it as it was at some moment, never half of one moment and half of another."""
    parent = make_volume().fill(Member("a", b"0"))
    box = make_container(bind_mounts=[parent.bind("/v")])
    process = box.run("cd /v; i=0; while [ ! -e stop ]; do i=$((i+1)); echo $i >new; mv new a; done; echo ended")
    copies = [make_volume(parent=parent) for _ in range(8)]
    numbers = [int(copy.file("a")) for copy in copies]
    box.output("touch /v/stop")
    process.wait()
    assert numbers == sorted(numbers)
    assert [int(copy.file("a")) for copy in copies] == numbers


def test_destroy_while_attached(server, volumes, either, make_container):
    one = either("file")
    box = make_container(bind_mounts=[one.bind("/v")])
    one.destroy()
    assert not volumes.exists(one.handle) and volumes.stream_out(one.handle).status == 404
    assert box.output("cat /v/file; echo more >/v/more; cat /v/more") == "content of filemore\n"
    again = volumes.make(one.handle)  # the name is free, and nothing of the old one is in it
    assert contents(volumes.tree(again["handle"])) == {}
    assert box.output("ls /v") == "file\nmore\n"
    volumes.destroy(one.handle)
    volumes.destroy_many(volumes.handles())
    box.destroy()
    wait_until(lambda: server.volume_files() == [], "its files are gone with the container")


def test_destroy_of_an_attached_parent(server, volumes, make_volume, make_container):
    parent = make_volume().fill("file")
    copy = make_volume(parent=parent)
    boxes = [make_container(bind_mounts=[one.bind("/v")]) for one in (parent, copy)]
    parent.destroy()
    for n, box in enumerate(boxes):
        assert box.output(f"cat /v/file; echo {n} >/v/own; cat /v/own") == f"content of file{n}\n"
    boxes[0].destroy()
    assert contents(copy.tree()) == {"file": b"content of file", "own": b"1\n"}
    copy.destroy()
    assert boxes[1].output("cat /v/file /v/own") == "content of file1\n"
    boxes[1].destroy()
    wait_until(lambda: server.volume_files() == [], "everything is gone with the last container")


def test_a_copy_has_one_container_at_a_time(make_volume, make_container, refused_create):
    copy = make_volume(parent=make_volume().fill("file"))
    box = make_container(bind_mounts=[copy.bind("/v")])
    assert copy.handle in refused_create(bind_mounts=[copy.bind("/v")])
    assert copy.handle in refused_create(bind_mounts=[copy.bind("/v")], privileged=True)
    assert box.output("echo x >/v/x; cat /v/file") == "content of file"
    box.destroy()
    other = make_container(bind_mounts=[copy.bind("/v")])
    assert other.output("cat /v/x") == "x\n"


def test_a_plain_volume_has_many_containers(make_volume, make_container):
    one = make_volume().fill("file")
    boxes = [make_container(bind_mounts=[one.bind("/v")], privileged=n == 2) for n in range(3)]
    for n, box in enumerate(boxes):
        box.output(f"echo {n} >/v/from-{n}")
        assert box.output(f"{OWNER} /v/from-*") == "0:0\n" * (n + 1)
    assert {name for name in contents(one.tree()) if "from" in name} == {"from-0", "from-1", "from-2"}


def test_one_copy_at_many_places(make_volume, make_container):
    """In one container."""
    copy = make_volume(parent=make_volume().fill(directory("d"), "d/file"))
    box = make_container(bind_mounts=[copy.bind("/v"), copy.bind("/w"), copy.bind("/d", "/d")])
    assert box.output("echo x >/v/x; cat /w/x /d/file; echo y >/d/y; cat /w/d/y") == "x\ncontent of d/filey\n"


def test_a_failed_create_frees_its_volumes(make_volume, make_container, refused_create):
    copy = make_volume(parent=make_volume().fill("file"))
    refused_create(bind_mounts=[copy.bind("/v"), {"src_path": "/no/such/dir", "dst_path": "/w", "mode": 1}])
    assert make_container(bind_mounts=[copy.bind("/v")]).output("cat /v/file") == "content of file"


def test_streams_into_an_attached_volume(volumes, make_volume, make_container):
    """A plain one takes them at once. For a copy see test_volumes_refresh.py."""
    plain = make_volume().fill("file")
    box = make_container(bind_mounts=[plain.bind("/v")])
    plain.fill("streamed")
    assert box.output("cat /v/streamed") == "content of streamed"


def test_another_root_with_the_same_volumes(image, make_volume, make_container):
    """As a step has it: an image, an input, an output and a scratch directory."""
    rootfs, source = make_volume(parent=image), make_volume().fill(directory("src"), "src/main")
    given, output, scratch = make_volume(parent=source), make_volume(), make_volume()
    box = make_container(rootfs=f"raw://{rootfs.path}", bind_mounts=[
        scratch.bind("/scratch"), given.bind("/tmp/build/x/given"), output.bind("/tmp/build/x/output")])
    assert box.output("cp given/src/main output/made; touch /scratch/s given/g; ls", dir="/tmp/build/x") == (
        "given\noutput\n")
    result = make_volume(parent=output)
    assert contents(result.tree()) == {"made": b"content of src/main"}
    assert "g" in given.tree() and "g" not in source.tree() and "s" in scratch.tree()


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_attached_volumes_after_a_restart(start_server, tmp_path, how):
    server = start_server(directory=tmp_path)
    server.volumes.make("plain")
    server.volumes.fill("plain", "file")
    server.volumes.make("copy", cow("plain"))
    server.volumes.make("doomed", cow("plain"))
    places = {handle: server.volumes.get(handle)["path"] for handle in ("plain", "copy", "doomed")}
    server.client.create("box", bind_mounts=[
        {"src_path": path, "dst_path": f"/{handle}", "mode": 1} for handle, path in places.items()])
    server.volumes.destroy("doomed")
    process = server.client.run("box", {"path": "/bin/sh", "args": [
        "-c", "echo ready; read x; for d in /plain /copy /doomed; do cat $d/file; echo on >$d/on; done"], "id": "p"})
    process.wait_output(b"ready\n")
    getattr(server, how)()
    server.start()
    process = server.client.attach("box", "p")
    process.stdin("\n")
    assert process.wait() == 0
    for handle in ("plain", "copy"):
        assert contents(server.volumes.tree(handle)) == {"file": b"content of file", "on": b"on\n"}
    assert server.volumes.handles() == ["copy", "plain"]
    reply = server.client.request("POST", "/containers", {"handle": "other", "bind_mounts": [
        {"src_path": places["copy"], "dst_path": "/copy", "mode": 1}]})
    assert "copy" in assert_error(reply, 500)["Message"]
    assert server.client.output("box", "cat /doomed/on") == "on\n"
    server.client.destroy("box")
    server.client.create("other", bind_mounts=[{"src_path": places["copy"], "dst_path": "/copy", "mode": 1}])
    assert server.client.output("other", "cat /copy/on") == "on\n"
    server.client.destroy("other")
    server.destroy_volumes()


def test_a_container_that_died_with_the_server_lets_go(start_server, tmp_path):
    server = start_server(directory=tmp_path)
    server.volumes.make("parent")
    server.volumes.make("copy", cow("parent"))
    mount = {"src_path": server.volumes.get("copy")["path"], "dst_path": "/v", "mode": 1}
    server.client.create("box", bind_mounts=[mount])
    server.kill()
    server.start("--destroy-containers-on-startup")
    server.client.create("other", bind_mounts=[mount])
    assert server.client.output("other", "touch /v/x; ls /v") == "x\n"


def test_destroy_and_create_of_one_name_while_containers_are_made(server, volumes, client):
    """A container has the volume that it was made with, whatever its name means afterwards."""
    name, stop = unique_name("reborn"), threading.Event()

    def reborn():
        for generation in itertools.count():
            path.append(volumes.make(name)["path"])
            volumes.fill(name, f"generation-{generation}")
            volumes.destroy(name)
            if stop.is_set():
                return

    path, thread = [], threading.Thread(target=reborn)
    thread.start()
    try:
        wait_until(lambda: path, "the first of them")
        made = 0
        while made < 10:
            reply = client.request("POST", "/containers", {"handle": unique_name(), "bind_mounts": [
                {"src_path": path[0], "dst_path": "/v", "mode": 1}, {"src_path": path[0], "dst_path": "/w", "mode": 1}]})
            assert reply.status == 200 or b"unknown volume" in reply.body, reply
            if reply.status == 200:
                handle, made = reply.json["Handle"], made + 1
                client.output(handle, "touch /v/mine && test -e /w/mine && test $(ls /v | wc -l) -le 2")
                client.destroy(handle)
    finally:
        stop.set()
        thread.join()
    server.check()
