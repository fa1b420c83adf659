"""The privileged flag and properties: lines 94-101 of the volumes' acceptance list. What containers see of the flag is
in test_volumes_containers.py."""
import os
import threading

import pytest
from archives import Member, directory, hardlink, symlink
from test_volumes_routes import assert_error
from volumelib import imported, volume_path


def test_94_the_flag_changes_neither_owners_nor_modes(volumes, make_volume):
    one = make_volume().fill(Member("set-uid", b"x", mode=0o4755), Member("set-gid", b"x", mode=0o2755, uid=3, gid=4),
                             directory("sticky", mode=0o1777), symlink("link", "set-uid"),
                             hardlink("hard", "set-uid"))
    before = one.tree()
    for value in (True, True, False, False):
        volumes.set_privileged(one.handle, value)
        assert volumes.privileged(one.handle) is value and volumes.get(one.handle)["privileged"] is value
        assert one.tree() == before


def test_95_links_to_the_host_are_not_followed(tmp_path, volumes, make_volume):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/link").symlink_to(tmp_path / "secret")
    before = os.stat(tmp_path / "secret")
    one = make_volume(strategy=imported(tmp_path / "source"), uid=1234, gid=1234)
    volumes.set_privileged(one.handle, True)
    make_volume(parent=one, uid=5, gid=5)
    after = os.stat(tmp_path / "secret")
    assert (after.st_mode, after.st_uid, after.st_ctime_ns) == (before.st_mode, before.st_uid, before.st_ctime_ns)
    assert one.tree()["link"].owner == (1234, 1234)


def test_96_a_privileged_copy(volumes, make_volume):
    parent = make_volume().fill(Member("file", b"x"), Member("other", b"x", uid=7, gid=8))
    copy = make_volume(parent=parent, privileged=True)
    assert copy.info["privileged"] is True and volumes.privileged(parent.handle) is False
    assert copy.tree() == parent.tree()
    volumes.set_privileged(copy.handle, False)
    assert volumes.privileged(parent.handle) is False


def test_97_the_flag_alone(volumes, make_volume):
    one = make_volume()
    for value in (False, True):
        volumes.set_privileged(one.handle, value)
        reply = volumes.request("GET", volume_path(one.handle, "/privileged"))
        assert (reply.status, reply.body) == (200, b"true\n" if value else b"false\n")
        assert reply.headers["content-type"] == "application/json"
    assert_error(volumes.request("GET", "/volumes/none/privileged"), 404, "failed to get privileged status of volume")


@pytest.mark.parametrize("body,value", [(b"{}", False), (b"null", False), (b'{"value":null}', False),
                                        (b'{"VALUE":true}', True), (b'{"value":true} more', True)])
def test_97_what_a_request_may_look_like(volumes, make_volume, body, value):
    one = make_volume(privileged=not value)
    assert volumes.request("PUT", volume_path(one.handle, "/privileged"), body=body).status == 204
    assert volumes.privileged(one.handle) is value


@pytest.mark.parametrize("body", [b"", b"true", b"[]", b'{"value":1}', b'{"value":"true"}', b'{"value":true'])
def test_97_what_it_may_not(volumes, volume, body):
    reply = volumes.request("PUT", volume_path(volume.handle, "/privileged"), body=body)
    assert_error(reply, 400, "failed to change privileged status of volume")
    assert volumes.privileged(volume.handle) is False


def test_98_a_flip_touches_nothing_in_the_tree(server, volumes, make_volume):
    """So it takes as long for 200,000 entries: a walk that gives them away would show in the times of their change."""
    one = make_volume().fill(directory("d"), *(Member(f"d/{i}", b"x", uid=i) for i in range(200)))
    tree = server.work / "volumes/live" / one.handle / "volume"

    def changes():
        return {path: os.lstat(path).st_ctime_ns for path in (tree, *tree.rglob("*"))}

    before = changes()
    assert len(before) == 202
    for value in (True, False, True):
        volumes.set_privileged(one.handle, value)
        assert changes() == before


@pytest.mark.parametrize("properties", [None, {}])
def test_99_the_first_property(volumes, make_volume, properties):
    one = make_volume(properties=properties)
    volumes.set_property(one.handle, "a", "1")
    assert volumes.get(one.handle)["properties"] == {"a": "1"}


def test_100_properties_are_added_and_overwritten(volumes, make_volume):
    one = make_volume(properties={"a": "1", "b": "2"})
    volumes.set_property(one.handle, "c", "3")
    volumes.set_property(one.handle, "a", "")
    assert volumes.get(one.handle)["properties"] == {"a": "", "b": "2", "c": "3"}
    assert volumes.handles("a=&c=3") == [one.handle] and volumes.handles("a=1") == []


@pytest.mark.parametrize("name", ["a b/c", "ü", "%2F", "a=b&c", "A"])
def test_100_names_of_properties(volumes, make_volume, name):
    one = make_volume(properties={"a": "lower case"})
    volumes.set_property(one.handle, name, f"value of {name}")
    assert volumes.get(one.handle)["properties"] == {"a": "lower case", name: f"value of {name}"}


@pytest.mark.parametrize("body", [b"", b"{", b'{"value":1}', b'{"value":{}}', b'"v"', b'{"value":"a","Value":"b"}'])
def test_100_bad_requests(volumes, make_volume, body):
    one = make_volume(properties={"a": "1"})
    reply = volumes.request("PUT", volume_path(one.handle, "/properties/a"), body=body)
    assert_error(reply, 400, "failed to set property on volume")
    assert volumes.get(one.handle)["properties"] == {"a": "1"}


def test_100_properties_set_at_once(volumes, volume):
    threads = [threading.Thread(target=volumes.set_property, args=(volume.handle, f"p{n}", str(n))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert volumes.get(volume.handle)["properties"] == {f"p{n}": str(n) for n in range(20)}


def test_101_a_property_of_a_volume_that_is_gone(volumes, volume):
    volume.destroy()
    reply = volumes.request("PUT", volume_path(volume.handle, "/properties/a"), {"value": "1"})
    assert_error(reply, 404, "failed to set property on volume")


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_flags_and_properties_after_a_restart(start_server, tmp_path, how):
    server = start_server(directory=tmp_path)
    server.volumes.make("a", properties={"k": "v", "more": "1"}, privileged=True)
    server.volumes.make("b", properties=None, uid=7, gid=8)
    server.volumes.make("c", properties={})
    server.volumes.set_property("a", "k", "changed")
    server.volumes.set_privileged("b", True)
    server.volumes.set_privileged("a", False)
    before = server.volumes.list()
    getattr(server, how)()
    server.start()
    assert server.volumes.list() == before
    assert [volume["properties"] for volume in before] == [{"k": "changed", "more": "1"}, None, {}]
    assert [volume["privileged"] for volume in before] == [False, True, False]


# How large they are.

def test_the_size_of_a_volume(volumes, volume, make_volume):
    before = volumes.ok("GET", f"/volumes/{volume.handle}/size")
    assert before["names"] == 1
    volume.fill(directory("d"), Member("d/file", bytes(range(256)) * 4096), hardlink("d/same", "d/file"))
    size = volumes.ok("GET", f"/volumes/{volume.handle}/size")
    assert size["names"] == 4 and 1 << 20 <= size["bytes"] - before["bytes"] < (1 << 20) + 65536
    copy = make_volume(parent=volume).fill(Member("more", bytes(1 << 20)))
    of_copy = volumes.ok("GET", f"/volumes/{copy.handle}/size")
    assert of_copy["names"] == 5 and of_copy["bytes"] > size["bytes"]


def test_the_size_of_a_volume_that_is_not_there(volumes):
    assert_error(volumes.request("GET", "/volumes/none/size"), 404, "failed to measure volume")
