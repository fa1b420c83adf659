"""The ways in which volumes are copied, on the file systems where each works; choosing and changing them; file systems
where one does not work."""
import os
import subprocess
import tarfile
import threading
import time

import pytest
from archives import ENCODINGS, Member, contents, directory
from conftest import Container, Volume, unique_name
from gardenlib import wait_until
from serverproc import Server, refused_start
from test_volumes_routes import assert_error
from treelib import Grower
from volumelib import Refused, cow, imported

OPTION = "--baggageclaim-driver"
FILE_SYSTEMS = {"btrfs": ["mkfs.btrfs", "-q"], "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"]}
WAYS = [("ext4", "overlay"), ("ext4", "copy"), ("xfs", "overlay"), ("xfs", "copy"), ("btrfs", "btrfs"),
        ("btrfs", "overlay"), ("btrfs", "copy")]


def run(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout


class Disk:
    """A file system on a loop device; "ext4" stands for the one that the machine has."""

    def __init__(self, kind, directory):
        self.kind, self.top, self.is_mounted = kind, directory / "disk", False
        self.top.mkdir()
        if kind not in FILE_SYSTEMS:
            return
        image = directory / "image"
        with open(image, "wb") as file:
            file.truncate(512 << 20)
        run(*FILE_SYSTEMS[kind], image)
        try:
            run("mount", "-o", "loop", image, self.top)
        except AssertionError as refusal:
            pytest.skip(f"no {kind} on loop devices here: {refusal}")
        self.is_mounted = True

    def subvolumes(self):
        return run("btrfs", "subvolume", "list", self.top).splitlines()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.is_mounted:
            run("umount", self.top)


def driver_line(server):
    """What the last start has said about its driver."""
    return [line["data"] for line in server.log_lines() if line["message"] == "cloche.volumes-driver"][-1]


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: f"{way[1]}-on-{way[0]}")
def served(request, nothing_left, tmp_path_factory):
    """A server with one driver on one file system."""
    kind, driver = request.param
    with Disk(kind, tmp_path_factory.mktemp(f"{driver}-on-{kind}")) as disk:
        one = Server(OPTION, driver, directory=disk.top)
        one.disk, one.driver = disk, driver
        try:
            assert driver_line(one) == {"driver": driver, "reason": "it was asked for"}
            yield one
        finally:
            one.finish()


@pytest.fixture
def make(served):
    """Make volumes; they go with the test, and nothing of them is left on disk."""
    def make(parent=None, **spec):
        if parent is not None:
            spec["strategy"] = cow(parent.handle)
        return Volume(served.volumes, **spec)

    yield make
    served.destroy_all()
    served.destroy_volumes()
    if served.disk.kind == "btrfs":
        wait_until(lambda: not served.disk.subvolumes(), "the subvolumes are gone")


@pytest.fixture
def boxes(served):
    made = []

    def box(**spec):
        made.append(Container(served, **spec))
        return made[-1]

    return box


def assert_holds(volume, **expected):
    assert contents(volume.tree()) == {name: data.encode() for name, data in expected.items()}


def test_copies_and_copies_of_copies(make):
    parent = make().fill(Member("a", b"1"), Member("b", b"1"))
    child = make(parent).fill(Member("a", b"2"))
    grandchild = make(child).fill(Member("c", b"3"))
    parent.fill(Member("b", b"4"))
    sibling = make(parent)
    for _ in range(2):
        assert_holds(child, a="2", b="1")
        assert_holds(grandchild, a="2", b="1", c="3")
        assert_holds(sibling, a="1", b="4")
        if parent:
            assert_holds(parent, a="1", b="4")
            parent.destroy()
            parent = None
    child.destroy()
    assert_holds(make(grandchild), a="2", b="1", c="3")


def test_a_copy_has_everything(make, tmp_path):
    """Owners, modes, times, links, holes, attributes."""
    members = [Member("set-uid", b"x", mode=0o4755, uid=7, gid=8), directory("d", mode=0o1777), directory("d/e"),
               Member("d/e/f", b"y", mode=0o600)]
    parent = make().fill(*members)
    (tmp_path / "source").mkdir()
    with open(tmp_path / "source/sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    os.link(tmp_path / "source/sparse", tmp_path / "source/again")
    os.setxattr(tmp_path / "source/sparse", "user.name", b"value")
    for one in (parent, make(strategy=imported(tmp_path / "source"))):
        tree = one.tree()
        copy = make(one)
        assert copy.tree() == tree
        assert make(copy).tree() == tree


@pytest.mark.parametrize("kind", ["directory", "archive", "part of a volume", "volume"])
def test_imports(served, make, tmp_path, kind):
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    if kind == "archive":
        run("tar", "-C", source, "-cf", tmp_path / "source.tar", "file")
        source = tmp_path / "source.tar"
    elif kind != "directory":
        volume = make().fill(directory("d"), Member("d/file", b"x"))
        source = volume.path + ("/d" if kind == "part of a volume" else "")
    expected = {"d/file": "x", "d": ""} if kind == "volume" else {"file": "x"}
    one = make(strategy=imported(source))
    assert_holds(one, **expected)
    assert_holds(make(one), **expected)


def test_an_owner_of_a_copy(make):
    parent = make().fill(directory("d"), Member("d/f", b"x"))
    copy = make(parent, uid=12, gid=34)
    assert {member.owner for member in copy.tree().values()} == {(12, 34)}
    assert {member.owner for member in parent.tree().values()} == {(0, 0)}
    assert make(uid=5, gid=6).tree(path="") is not None


@pytest.mark.parametrize("privileged", [False, True])
def test_containers_in_volumes(make, boxes, root, privileged):
    image = make(strategy=imported(root))
    copies = [make(image, privileged=privileged) for _ in range(2)]
    output = make(privileged=privileged)
    for n, copy in enumerate(copies):
        box = boxes(rootfs=f"raw://{copy.path}", privileged=privileged, bind_mounts=[output.bind("/out")])
        assert box.output(f"cat /image-file; echo {n} >/image-file; stat -c %u:%g /image-file; echo {n} >/out/{n}"
                          ) == "from the image\n0:0\n"
        # The step's container still lives when what it has made is copied.
        assert_holds(make(output), **{str(m): f"{m}\n" for m in range(n + 1)})
        assert make(copy).file("image-file") == b"%d\n" % n
    assert [copy.file("image-file") for copy in copies] == [b"0\n", b"1\n"]
    assert image.file("image-file") == b"from the image\n"


def test_copies_while_a_container_writes(served, make, boxes):
    one = make()
    box = boxes(bind_mounts=[one.bind("/v")])
    process = box.run("cd /v; n=0; while :; do echo $n >new; mv new file-$n; n=$((n+1)); rm -f file-$((n-5)); done")
    wait_until(lambda: one.tree(), "it writes")
    copies = [make(one) for _ in range(4)] if served.driver == "btrfs" else []
    box.destroy()
    process.close()
    for copy in copies:  # each is one moment's state, as after a crash: the newest contents may not have arrived
        files = {int(name[5:]): data for name, data in contents(copy.tree()).items() if name != "new"}
        first, last = min(files), max(files)
        assert list(sorted(files)) == list(range(first, last + 1)) and (first == 0 or last - first in (3, 4))
        assert all(data in (b"", b"%d\n" % n) for n, data in files.items()), files


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_the_next_start(served, make, boxes, end):
    parent = make().fill(Member("a", b"1"))
    child = make(parent).fill(Member("b", b"2"))
    used = make(child)
    box = boxes(bind_mounts=[used.bind("/v")])
    box.output("echo 3 >/v/c")
    getattr(served, end)()
    served.start()
    for volume in (parent, child, used):
        volume.client = served.volumes
    box.client = served.client
    assert_holds(parent, a="1")
    assert_holds(child, a="1", b="2")
    assert box.output("cd /v; cat a b c; echo 4 >c") == "123\n"
    assert_holds(make(used), a="1", b="2", c="4\n")


def test_killed_while_it_copies(served, make):
    """Every copy is whole or absent."""
    parent = make().fill(*[Member(f"file-{n}", b"%d" % n) for n in range(300)])
    whole = contents(parent.tree())
    for n in range(3):
        made = []

        def copy_until_killed(client=served.volumes, label=n, made=made):
            try:
                for m in range(1000):
                    made.append(client.make(f"copy-{label}-{m}", cow(parent.handle))["handle"])
            except (OSError, EOFError, ValueError):
                pass

        thread = threading.Thread(target=copy_until_killed)
        thread.start()
        time.sleep(0.05 + 0.05 * n)
        served.kill()
        thread.join()
        served.start()
        listed = [handle for handle in served.volumes.handles() if handle.startswith("copy-")]
        assert set(made) <= set(listed)
        assert all(contents(served.volumes.tree(handle)) == whole for handle in [*listed[:3], parent.handle])
        served.volumes.destroy_many(listed)
        wait_until(lambda: not any(os.listdir(served.work / "volumes" / name) for name in ("init", "doomed", "dead")),
                   "nothing is left of them")


# btrfs alone.

@pytest.fixture
def btrfs(nothing_left, tmp_path):
    with Disk("btrfs", tmp_path) as disk:
        one = Server(directory=disk.top)
        one.disk = disk
        try:
            yield one
        finally:
            one.finish()


def test_btrfs_is_detected(btrfs):
    assert driver_line(btrfs) == {"driver": "btrfs", "reason": "the file system is btrfs"}
    parent = Volume(btrfs.volumes).fill(Member("big", os.urandom(1 << 20)))
    for _ in range(5):
        Volume(btrfs.volumes, strategy=cow(parent.handle))
    assert len(btrfs.disk.subvolumes()) == 6


def make_subvolumes(top):
    """Subvolumes in subvolumes, some of them read-only, some below ordinary directories."""
    places = ["a", "a/b/c/d", "a/b/c/d/e", "a/b/c/d/e/f/g/h", "z/y", "x"]
    for place in places:
        os.makedirs(os.path.dirname(f"{top}/{place}"), exist_ok=True)
        run("btrfs", "subvolume", "create", f"{top}/{place}")
        with open(f"{top}/{place}/file", "w", encoding="ascii") as file:
            file.write(place)
    os.makedirs(f"{top}/a/many/levels/of/directories")
    os.makedirs(f"{top}/a/b/c/d/e/f/many/levels/of/directories")
    for place in ("a/b/c/d/e/f/g/h", "a/b/c/d/e", "a", "x"):
        run("btrfs", "property", "set", f"{top}/{place}", "ro", "true")
    return {f"{place}/file": place.encode() for place in places}


def test_subvolumes_that_a_container_has_made(btrfs):
    """They are copied, and they go with their volume, whatever was done to them."""
    one = Volume(btrfs.volumes)
    expected = make_subvolumes(one.path)
    copy = Volume(btrfs.volumes, strategy=cow(one.handle))
    assert copy.tree() == one.tree()
    assert {name: copy.file(name) for name in expected} == expected
    assert len(btrfs.disk.subvolumes()) == 8
    one.destroy()
    wait_until(lambda: len(btrfs.disk.subvolumes()) == 1, "all of its subvolumes are gone")
    make_subvolumes(f"{copy.path}/a")
    run("btrfs", "property", "set", copy.path, "ro", "true")
    copy.destroy()
    wait_until(lambda: not btrfs.disk.subvolumes(), "those of its copy as well")


# Changing.

def test_volumes_outlive_a_change_of_the_driver(btrfs):
    volumes, expected, latest = btrfs.volumes, {}, None
    for n, driver in enumerate(["btrfs", "overlay", "copy", "btrfs", "overlay", "btrfs", "copy", "overlay"]):
        btrfs.terminate()
        btrfs.start(OPTION, driver)
        volumes = btrfs.volumes
        assert driver_line(btrfs)["driver"] == driver
        for handle, tree in expected.items():
            assert contents(volumes.tree(handle)) == tree
            volumes.make(f"{handle}.{n}", cow(handle))
            volumes.fill(f"{handle}.{n}", Member("own", driver.encode()))
            assert contents(volumes.tree(f"{handle}.{n}")) == {**tree, "own": driver.encode()}
        handle = f"v{n}"
        volumes.make(handle, cow(latest) if latest and n % 3 else {"type": "empty"})
        volumes.fill(handle, Member(f"file-{n}", driver.encode()))
        expected[handle] = contents(volumes.tree(handle))
        latest = handle
        volumes.destroy_many([name for name in volumes.handles() if "." in name])


# Where it does not work.

@pytest.mark.parametrize("value", ["", "aufs", "Overlay", "overlay,copy"])
def test_refused_names(tmp_path, value):
    code, text = refused_start(OPTION, value, directory=tmp_path)
    assert code == 1 and f"{OPTION} '{value}': expected detect, overlay, btrfs or copy" in text
    assert not (tmp_path / "work").exists()


def test_names_by_environment(start_server, tmp_path):
    env = {**os.environ, "CONCOURSE_BAGGAGECLAIM_DRIVER": "naive"}
    server = start_server(env=env)
    assert driver_line(server) == {"driver": "copy", "reason": "it was asked for"}
    code, text = refused_start(directory=tmp_path, env={**env, "CONCOURSE_BAGGAGECLAIM_DRIVER": "zfs"})
    assert code == 1 and "zfs" in text


def test_overlay_is_detected(server):
    line = driver_line(server)
    assert line["driver"] == "overlay" and line["reason"] == "btrfs: the file system is not btrfs"


def test_btrfs_elsewhere(tmp_path):
    code, text = refused_start(OPTION, "btrfs", directory=tmp_path)
    assert code == 1 and f"{OPTION} btrfs: the file system is not btrfs" in text


@pytest.fixture
def on_overlay(nothing_left, tmp_path):
    """An overlay mount, as in a container of Docker's; on it the copy of a work directory with volumes in layers."""
    first = Server(OPTION, "overlay", directory=tmp_path / "first")
    first.volumes.make("parent")
    first.volumes.fill("parent", Member("file", b"1"))
    first.volumes.make("stack", cow("parent"))
    first.volumes.fill("stack", Member("own", b"2"))
    first.volumes.make("single", cow("parent"))
    first.terminate()
    for name in ("lower", "upper", "work", "disk"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    run("mount", "-t", "overlay", "-o", options, "overlay", tmp_path / "disk")
    try:
        run("cp", "-a", first.work, tmp_path / "disk")
        yield tmp_path / "disk"
    finally:
        run("umount", tmp_path / "disk")
        first.start()
        first.finish()


def test_overlay_where_it_cannot_be(on_overlay):
    code, text = refused_start(OPTION, "overlay", directory=on_overlay)
    assert code == 1 and f"{OPTION} overlay: " in text


@pytest.mark.parametrize("option", ["detect", "copy"])
def test_copies_where_overlay_cannot_be(on_overlay, start_server, root, option):
    server = start_server(OPTION, option, directory=on_overlay)
    volumes, line = server.volumes, driver_line(server)
    assert line["driver"] == "copy"
    assert option == "copy" or ("btrfs: " in line["reason"] and "overlay: " in line["reason"]), line
    one = Volume(volumes).fill(Member("a", b"1"))
    copy = Volume(volumes, strategy=cow(one.handle)).fill(Member("b", b"2"))
    assert_holds(one, a="1")
    assert_holds(copy, a="1", b="2")
    image = Volume(volumes, strategy=imported(root))
    top = Volume(volumes, strategy=cow(image.handle))
    box = Container(server, privileged=True, rootfs=f"raw://{top.path}", bind_mounts=[copy.bind("/v")])
    assert box.output("cat /v/a /v/b /image-file") == "12from the image\n"
    # Those in layers are there, but nothing can be written to them.
    assert {"parent", "stack", "single"} <= set(volumes.handles())
    assert contents(volumes.tree("single")) == {"file": b"1"}
    text = assert_error(volumes.stream_in("stack", b"", encoding="raw"), 500)
    assert "stack has layers, which take an overlay mount" in text
    mount = {"src_path": volumes.get("single")["path"], "dst_path": "/v", "mode": 1}
    reply = server.client.request("POST", "/containers", {"handle": unique_name(), "bind_mounts": [mount]})
    assert reply.status == 500 and "overlay mount" in reply.json["Message"]
    volumes.make("poured", cow("single"))
    assert contents(volumes.tree("poured")) == {"file": b"1"}
    try:
        volumes.make("another", cow("stack"))
    except Refused as refusal:
        assert "overlay" in refusal.reply.body.decode()
    else:
        assert contents(volumes.tree("another")) == {"file": b"1", "own": b"2"}
    box.destroy()
    server.check()


def whole(tree):
    """What is known of each name; which of a file's names comes first in an archive is an accident."""
    names = {}
    for name, member in tree.items():
        names.setdefault(member.target.removeprefix("./") if member.kind == tarfile.LNKTYPE else name, set()).add(name)
    return {name: (frozenset(group), *tree[first]._replace(name="", pax={
        key: value for key, value in tree[first].pax.items() if key not in ("path", "linkpath")}))
        for first, group in names.items() for name in group}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_tree_goes_round_in_every_encoding(served, make, tmp_path, seed):
    """By import, copy, and a stream of each encoding into a new volume: the same to the last attribute."""
    (tmp_path / "tree").mkdir()
    Grower(tmp_path / "tree", seed, 60)
    for top, directories, files in os.walk(os.fsencode(tmp_path / "tree")):
        for path in (top + b"/" + name for name in directories + files):
            if os.path.islink(path) and len(os.readlink(path)) > 1023:
                os.unlink(path)  # xfs has no longer ones
    one = make(strategy=imported(tmp_path / "tree"))
    expected = whole(one.tree())
    assert len(expected) > 20 and whole(make(one).tree()) == expected
    for encoding in ENCODINGS:
        with served.volumes.download(one.handle, encoding=encoding) as stream:
            sent = stream.rest()
        other = make()
        assert served.volumes.stream_in(other.handle, sent, encoding=encoding).status == 204
        assert whole(other.tree()) == expected, encoding
