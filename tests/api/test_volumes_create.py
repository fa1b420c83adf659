"""Making volumes: lines 23-45 of the volumes' acceptance list. Owners are looked at in streams here, and from inside
of containers in test_volumes_containers.py."""
import gzip
import os
import re
import threading
import uuid

import pytest
from archives import Member, contents, directory, hardlink, symlink, tar
from conftest import unique_name
from gardenlib import wait_until
from test_volumes_routes import assert_error
from volumelib import EMPTY, Refused, cow, imported

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def owners(tree):
    return {member.owner for member in tree.values()}


def create_bytes(volumes, body):
    return volumes.request("POST", "/volumes", body=body)


def test_23_an_empty_volume(server, volumes):
    handle = unique_name()
    made = volumes.create(handle)
    assert made == {"handle": handle, "path": str(server.work / f"volumes/live/{handle}/volume"), "properties": None,
                    "privileged": False}
    (root,) = volumes.tree(handle).values()
    assert (root.mode, root.owner) == (0o755, (0, 0))
    volumes.destroy(handle)


@pytest.mark.parametrize("given", [None, ""])
def test_24_a_handle_is_made_up(volumes, given):
    first, second = volumes.create(given), volumes.create(given)
    assert re.fullmatch(UUID4, first["handle"]) and first["handle"] != second["handle"]
    assert uuid.UUID(first["handle"]).version == 4
    reply = volumes.start(given)
    handle = reply.json["handle"]
    assert re.fullmatch(UUID4, handle) and volumes.poll_until_done(handle).json["handle"] == handle
    volumes.forget(handle)
    volumes.destroy_many([first["handle"], second["handle"], handle])


@pytest.mark.parametrize("path", ["/volumes", "/volumes-async"])
@pytest.mark.parametrize("number,body,status", [
    (25, b"{{{{{{", 400), (26, b"{}", 422), (26, b'{"strategy":null}', 422), (26, b'{"strategy":[]}', 422),
    (26, b'{"strategy":"empty"}', 422), (26, b'{"strategy":{}}', 422), (26, b'{"strategy":{"type":7}}', 422),
    (26, b"null", 422), (27, b'{"strategy":{"type":"grime"}}', 422), (27, b'{"strategy":{"type":"EMPTY"}}', 422)])
def test_25_26_27_what_is_no_volume(server, volumes, path, number, body, status):
    assert_error(volumes.request("POST", path, body=body), status, "failed to create volume")
    assert volumes.list() == []
    wait_until(lambda: server.volume_files() == [], "nothing left")


@pytest.mark.parametrize("number,strategy", [
    (28, {"type": "cow"}), (28, {"type": "cow", "volume": ""}), (28, {"type": "cow", "volume": None}),
    (28, {"type": "cow", "volume": 7}), (29, cow("#pain")), (29, cow("no-such-parent")), (29, cow("../live/x"))])
def test_28_29_a_copy_of_nothing(server, volumes, number, strategy):
    reply = volumes.request("POST", "/volumes", {"handle": unique_name(), "strategy": strategy})
    assert_error(reply, 422, "failed to create volume")
    assert volumes.list() == []
    wait_until(lambda: server.volume_files() == [], "nothing left")


def test_30_properties(volumes, make_volume):
    properties = {"colour": "red", "empty": ""}
    one = make_volume(properties=properties)
    assert one.info["properties"] == properties
    assert volumes.get(one.handle)["properties"] == properties


@pytest.mark.parametrize("privileged", [False, True])
def test_31_owner(tmp_path, volumes, make_volume, privileged):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_text("x")
    os.chown(tmp_path / "dir/file", 77, 88)
    (tmp_path / "link").symlink_to("dir/file")
    for strategy in (EMPTY, imported(tmp_path)):
        one = make_volume(strategy=strategy, uid=1234, gid=5678, privileged=privileged)
        assert (one.info["uid"], one.info["gid"]) == (1234, 5678)
        assert owners(one.tree()) == {(1234, 5678)}
        copy = make_volume(parent=one, uid=4321, gid=8765, privileged=privileged)
        assert owners(copy.tree()) == {(4321, 8765)} and owners(one.tree()) == {(1234, 5678)}


def test_31_a_copy_for_an_owner_goes_on_as_any_other(make_volume):
    parent = make_volume().fill(directory("d"), "d/file", Member("set-uid", b"x", mode=0o4755))
    one = make_volume(parent=parent, uid=1000, gid=1000)
    one.fill("d/more")
    tree = one.tree()
    assert tree["d/file"].owner == (1000, 1000) and tree["d/more"].owner == (0, 0)
    assert tree["set-uid"].mode == 0o4755
    assert contents(make_volume(parent=one).tree()) == contents(tree)
    assert owners(parent.tree()) == {(0, 0)}


@pytest.mark.parametrize("number,uid,gid", [(32, -1, -1), (33, 1234, -1), (33, -1, 5678), (33, 1234, None),
                                            (33, None, 5678)])
def test_32_33_no_owner(make_volume, number, uid, gid):
    ids = {name: value for name, value in (("uid", uid), ("gid", gid)) if value is not None}
    parent = make_volume().fill(Member("file", b"x", uid=7, gid=8))
    one = make_volume(parent=parent, **ids)
    assert {name: one.info.get(name) for name in ids} == ids
    tree = one.tree()
    assert tree["file"].owner == (7, 8) and tree["."].owner == (0, 0)


def test_34_owner_root(make_volume):
    parent = make_volume().fill(Member("file", b"x", uid=7, gid=8))
    for privileged in (False, True):
        assert owners(make_volume(parent=parent, uid=0, gid=0, privileged=privileged).tree()) == {(0, 0)}


def test_35_a_handle_in_use(volumes, make_volume):
    one = make_volume(properties={"mine": "yes"}).fill("file")
    reply = volumes.request("POST", "/volumes", {"handle": one.handle, "strategy": EMPTY})
    assert_error(reply, 500, "failed to create volume")
    with pytest.raises(Refused) as refused:
        volumes.make(one.handle, properties={"mine": "no"})
    assert_error(refused.value.reply, 500)
    one.fill("more")
    assert set(contents(one.tree())) == {"file", "more"}
    assert volumes.get(one.handle)["properties"] == {"mine": "yes"}


def test_36_failures_leave_no_trace(server, volumes, tmp_path):
    (tmp_path / "bad.tgz").write_bytes(gzip.compress(tar("file"))[:-20])
    for strategy in (imported(tmp_path / "missing"), imported(tmp_path / "bad.tgz"), imported(""), imported("relative"),
                     {"type": "import"}, {"type": "import", "path": None}):
        handle = unique_name()
        reply = volumes.request("POST", "/volumes", {"handle": handle, "strategy": strategy})
        assert_error(reply, 500, "failed to create volume")
        assert not volumes.exists(handle)
        wait_until(lambda: server.volume_files() == [], f"nothing left of {strategy}")
        volumes.create(handle)  # and the handle is free
        volumes.destroy(handle)


@pytest.mark.parametrize("privileged", [False, True])
def test_37_the_flag(volumes, make_volume, privileged):
    one = make_volume(privileged=privileged)
    assert one.info["privileged"] is privileged and volumes.privileged(one.handle) is privileged


def make_source(top):
    """A directory with what an import has to keep."""
    (top / "empty").mkdir(parents=True)
    (top / "closed").mkdir()
    (top / "closed/secret").write_text("secret")
    (top / "closed/secret").chmod(0o600)
    (top / "closed").chmod(0o700)
    (top / "set-uid").write_text("#!/bin/sh\n")
    os.chown(top / "set-uid", 1234, 5678)
    (top / "set-uid").chmod(0o6755)
    os.link(top / "set-uid", top / "same")
    (top / "link").symlink_to("closed/secret")
    (top / "dangling").symlink_to("/no/such/place")
    os.utime(top / "set-uid", (1e9, 1e9))
    top.chmod(0o750)
    return top


def check_source(tree):
    assert set(tree) == {".", "empty", "closed", "closed/secret", "set-uid", "same", "link", "dangling"}
    assert tree["."].mode == 0o750 and tree["closed"].mode == 0o700
    assert (tree["closed/secret"].mode, tree["closed/secret"].data) == (0o600, b"secret")
    first, second = sorted((tree["set-uid"], tree["same"]), key=lambda member: member.target)
    assert (first.mode, first.owner, first.mtime) == (0o6755, (1234, 5678), 10 ** 9)
    assert second.target.removeprefix("./") == first.name.removeprefix("./")
    assert tree["link"].target == "closed/secret" and tree["dangling"].target == "/no/such/place"


def test_38_import_of_a_directory(tmp_path, make_volume):
    one = make_volume(strategy=imported(make_source(tmp_path / "source")))
    check_source(one.tree())
    (tmp_path / "source/closed/secret").write_text("changed")
    assert one.file("closed/secret") == b"secret"


def test_38_import_by_way_of_a_link(tmp_path, make_volume):
    make_source(tmp_path / "source")
    (tmp_path / "link").symlink_to("source")
    check_source(make_volume(strategy=imported(tmp_path / "link")).tree())


@pytest.mark.parametrize("privileged", [False, True])
def test_39_import_of_an_archive(tmp_path, make_volume, privileged):
    members = [directory(".", mode=0o750), directory("./empty"), directory("./closed", mode=0o700),
               Member("./closed/secret", b"secret", mode=0o600), symlink("./link", "closed/secret"),
               Member("./set-uid", b"#!", mode=0o6755, uid=1234, gid=5678, mtime=10 ** 9),
               hardlink("./same", "./set-uid"), symlink("./dangling", "/no/such/place")]
    (tmp_path / "rootfs.tgz").write_bytes(gzip.compress(tar(*members)))
    check_source(make_volume(strategy=imported(tmp_path / "rootfs.tgz"), privileged=privileged).tree())


@pytest.mark.parametrize("content", [None, b"no archive at all\n" * 100, b"", gzip.compress(b"no archive\n" * 100),
                                     gzip.compress(tar("file"))[:-5], gzip.compress(tar("file")[:700])])
def test_40_bad_imports(server, volumes, tmp_path, content):
    path = tmp_path / "rootfs.tgz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refused) as refused:
        volumes.make(unique_name(), imported(path))
    assert_error(refused.value.reply, 500, "failed to create volume")
    assert volumes.list() == []
    wait_until(lambda: server.volume_files() == [], "nothing left")


def test_41_links_are_followed(tmp_path, make_volume):
    source, outside = tmp_path / "source", tmp_path / "outside"
    outside.mkdir()
    (outside / "cert").write_text("certificate")
    (outside / "more").mkdir()
    (outside / "more/cert").write_text("another")
    source.mkdir()
    (source / "plain").write_text("plain")
    (source / "relative").symlink_to("../outside/cert")
    (source / "absolute").symlink_to(outside / "more")
    tree = make_volume(strategy=imported(source, follow_symlinks=True)).tree()
    assert contents(tree) == {"plain": b"plain", "relative": b"certificate", "absolute": b"", "absolute/cert":
                              b"another"}
    assert all(member.target == "" for member in tree.values())
    assert make_volume(strategy=imported(source)).tree()["relative"].target == "../outside/cert"


def test_42_dangling_links_are_left_out(tmp_path, make_volume):
    (tmp_path / "good").write_text("good")
    (tmp_path / "bad").symlink_to("/no/such/place")
    assert contents(make_volume(strategy=imported(tmp_path, follow_symlinks=True)).tree()) == {"good": b"good"}


def test_43_a_copy_and_its_parent_do_not_see_each_other(make_volume):
    parent = make_volume().fill(directory("d"), "d/old", "both")
    copy = make_volume(parent=parent)
    assert contents(copy.tree()) == contents(parent.tree())
    parent.fill(Member("both", b"parent's"), "d/parent")
    copy.fill(Member("both", b"copy's"), "d/copy")
    assert contents(parent.tree()) == {"d": b"", "d/old": b"content of d/old", "both": b"parent's",
                                       "d/parent": b"content of d/parent"}
    assert contents(copy.tree()) == {"d": b"", "d/old": b"content of d/old", "both": b"copy's",
                                     "d/copy": b"content of d/copy"}
    assert contents(make_volume(parent=copy).tree()) == contents(copy.tree())


def test_44_copies_of_copies(make_volume):
    """Deletions on each level are in test_volumes_containers.py: a stream cannot delete."""
    chain = [make_volume().fill("level-0", Member("all", b"0"))]
    for level in range(1, 11):
        chain.append(make_volume(parent=chain[-1]).fill(f"level-{level}", Member("all", b"%d" % level)))
    for level, one in enumerate(chain):
        expected = {f"level-{n}": f"content of level-{n}".encode() for n in range(level + 1)}
        assert contents(one.tree()) == {**expected, "all": b"%d" % level}


def test_44_a_parent_goes_on_after_its_copy(make_volume):
    """Each copy is of the moment at which it was made."""
    parent, copies = make_volume(), []
    for n in range(5):
        parent.fill(Member("file", b"%d" % n))
        copies.append(make_volume(parent=parent))
    assert [copy.file("file") for copy in copies] == [b"%d" % n for n in range(5)]


def test_45_copies_that_are_made_together(volumes, make_volume):
    parent = make_volume().fill(*[f"file-{n}" for n in range(300)])
    handles = [unique_name("together") for _ in range(8)]
    threads = [threading.Thread(target=volumes.make, args=(handle, cow(parent.handle))) for handle in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = contents(parent.tree())
    for handle in handles:
        assert contents(volumes.tree(handle)) == expected
    volumes.destroy_many(handles)


def test_an_import_of_a_volume_is_a_copy_of_it(make_volume):
    """As Concourse makes a cache of what a task has left; it must not need the volume afterwards."""
    source = make_volume().fill(directory("d"), Member("d/file", b"x", uid=7, gid=8, mode=0o640))
    changed = make_volume(parent=source).fill("more")
    whole = make_volume(strategy=imported(changed.path))
    part = make_volume(strategy=imported(changed.path + "/d"))
    for one in (changed, source):
        one.destroy()
    assert contents(whole.tree()) == {"d": b"", "d/file": b"x", "more": b"content of more"}
    assert whole.tree()["d/file"].owner == (7, 8) and whole.tree()["d/file"].mode == 0o640
    assert contents(part.tree()) == {"file": b"x"}
    whole.fill("and-more")


def test_44_more_copies_of_copies_than_a_mount_has_layers(make_volume, make_container):
    """Somewhere on the way all of it becomes one tree again; nobody can tell."""
    chain = [make_volume().fill(Member("all", b"0"), "first")]
    for level in range(1, 71):
        chain.append(make_volume(parent=chain[-1]).fill(Member("all", b"%d" % level)))
    for level in (0, 1, 62, 63, 64, 65, 70):
        assert contents(chain[level].tree()) == {"all": b"%d" % level, "first": b"content of first"}
    box = make_container(bind_mounts=[one.bind(f"/v{n}") for n, one in enumerate(chain) if n in (0, 61, 62, 63, 64, 70)])
    assert box.output("cat /v0/all /v61/all /v62/all /v63/all /v64/all /v70/all") == "06162636470"
    box.output("for v in /v*; do echo more >>$v/first; done")
    assert chain[63].file("first") == b"content of firstmore\n" and chain[69].file("first") == b"content of first"
