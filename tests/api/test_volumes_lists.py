"""Lists and look-ups of volumes: lines 11-22 of the volumes' acceptance list."""
import json
import os
import shutil
import sqlite3
import threading

import pytest
from archives import Member, contents
from conftest import unique_name
from gardenlib import request_bytes
from test_volumes_routes import assert_error
from volumelib import cow


def test_11_an_empty_list(volumes):
    # The session's server has no volumes between tests.
    assert volumes.request("GET", "/volumes").body == b"[]\n"


def test_12_filter_by_property(volumes, make_volume):
    one = make_volume(properties={"property-query": "value"})
    make_volume()
    assert volumes.handles("property-query=value") == [one.handle]
    assert len(volumes.handles()) == 2


def test_12_filters_are_decoded(volumes, make_volume):
    one = make_volume(properties={"a b/ü": "c+d &"})
    assert volumes.handles("a+b%2F%C3%BC=c%2Bd%20%26") == [one.handle]
    assert volumes.handles("a+b%2F%C3%BC=c+d+%26") == []


def test_12_a_filter_without_a_value(volumes, make_volume):
    one = make_volume(properties={"x": ""})
    make_volume(properties={"x": "y"})
    assert volumes.handles("x") == volumes.handles("x=") == [one.handle]


def test_13_a_repeated_filter(volumes):
    reply = volumes.request("GET", "/volumes?one=a&two=b&one=c")
    text = assert_error(reply, 422)
    assert "one" in text and "a" in text and "c" in text


def test_14_two_filters_and_one_property(volumes, make_volume):
    make_volume(properties={"a": "1"})
    both = make_volume(properties={"a": "1", "b": "2", "c": "3"})
    assert volumes.handles("a=1&b=2") == [both.handle]
    assert volumes.handles("a=1&b=3") == []


def test_15_what_is_not_live_is_not_listed(server, volumes, make_volume):
    one = make_volume()
    strangers = [server.work / "volumes" / name / "stranger" for name in ("init", "dead")]
    for path in strangers:
        path.mkdir()
    try:
        assert volumes.handles() == [one.handle]
        assert volumes.request("GET", "/volumes/stranger").status == 404
    finally:
        for path in strangers:
            shutil.rmtree(path, ignore_errors=True)  # the sweep of dead/ may have been faster


def test_16_order(volumes, make_volume):
    for handle in ("vol3", "vol1", "vol2", "Vol2", "vol10", "vol-1"):
        make_volume(handle)
    assert volumes.handles() == ["Vol2", "vol-1", "vol1", "vol10", "vol2", "vol3"]


def test_17_a_plain_file_is_no_volume(start_server, tmp_path):
    server = start_server(directory=tmp_path)
    (server.work / "volumes/live/x").write_text("a file\n")
    for _ in range(2):
        assert server.volumes.list() == []
        assert server.volumes.request("GET", "/volumes/x").status == 404
        server.terminate()
        server.start()
    (server.work / "volumes/live/x").unlink(missing_ok=True)


def change_record(server, statement, *values):
    """Damage the record of a server that is not running."""
    database = sqlite3.connect(server.work / "volumes/state.db", timeout=30)
    with database:
        n = database.execute(statement, values).rowcount
    database.close()
    assert n > 0, statement


def test_18_a_volume_whose_files_have_vanished(start_server, tmp_path):
    """In place of its metadata, which are rows of the database here."""
    server = start_server(directory=tmp_path)
    for handle in ("gone", "there"):
        server.volumes.make(handle)
        server.volumes.fill(handle, "file")
    server.terminate()
    shutil.rmtree(server.work / "volumes/live/gone")
    server.start()
    assert "there" in server.volumes.handles()
    assert server.volumes.file("there", "file") == b"content of file"
    assert server.volumes.stream_out("gone").status in (404, 500)
    server.check()


@pytest.mark.parametrize("statement", [
    "UPDATE volumes SET handle = '../b' WHERE handle = 'b'", "UPDATE volumes SET handle = 'a' WHERE handle = 'b'",
    "UPDATE volumes SET state = 77 WHERE handle = 'b'", "DELETE FROM volumes WHERE handle = 'b'",
    "UPDATE volume_layers SET position = position + 7 WHERE volume = (SELECT id FROM volumes WHERE handle = 'b')"])
def test_19_damaged_metadata_of_one_volume(start_server, tmp_path, statement):
    server = start_server(directory=tmp_path)
    server.volumes.make("parent")
    server.volumes.fill("parent", "file")
    for handle in ("a", "b", "c"):
        server.volumes.make(handle, cow("parent"), properties={"k": handle})
        server.volumes.fill(handle, Member("own", handle.encode()))
    server.terminate()
    change_record(server, statement)
    server.start()
    assert {"a", "c", "parent"} <= set(server.volumes.handles())
    for handle in ("a", "b", "c"):  # and nothing of the damaged one is lost
        assert list((server.work / "volumes").glob(f"*/{handle}/upper/own"))
    for handle in ("a", "c"):
        assert contents(server.volumes.tree(handle)) == {"file": b"content of file", "own": handle.encode()}
        assert server.volumes.get(handle)["properties"] == {"k": handle}
    shutil.rmtree(server.work / "volumes/live/b", ignore_errors=True)
    server.terminate()  # a row without a tree keeps its layers for ever: that is for a person to decide
    change_record(server, "DELETE FROM volumes WHERE handle IN ('a', 'b', '../b')")
    server.start()
    assert "a" in server.volumes.handles()


def test_19_a_record_that_is_lost(start_server, tmp_path):
    """The trees are there, and so are the volumes: only what nobody else knows is forgotten."""
    server = start_server(directory=tmp_path)
    server.volumes.make("parent", properties={"a": "1"})
    server.volumes.fill("parent", "file")
    for handle, parent in (("child", "parent"), ("grandchild", "child")):
        server.volumes.make(handle, cow(parent))
        server.volumes.fill(handle, handle)
    server.terminate()
    for path in (server.work / "volumes").glob("state.db*"):
        path.unlink()
    server.start()
    assert server.volumes.handles() == ["child", "grandchild", "parent"]
    assert set(contents(server.volumes.tree("parent"))) == {"file"}
    assert set(contents(server.volumes.tree("grandchild"))) == {"file", "child", "grandchild"}
    server.volumes.make("another", cow("grandchild"))
    assert set(contents(server.volumes.tree("another"))) == {"file", "child", "grandchild"}


def test_113_a_volume_that_the_record_does_not_know(start_server, tmp_path):
    """It is adopted, with the flag that is safe, and can be used and destroyed as any other."""
    server = start_server(directory=tmp_path)
    server.volumes.make("odd", privileged=True, properties={"k": "v"})
    server.volumes.fill("odd", "file")
    server.terminate()
    change_record(server, "DELETE FROM volumes")
    server.start()
    assert server.volumes.get("odd")["properties"] in (None, {}) and server.volumes.privileged("odd") is False
    server.volumes.make("copy", cow("odd"))
    server.volumes.fill("odd", "more")
    assert set(contents(server.volumes.tree("odd"))) == {"file", "more"}
    assert set(contents(server.volumes.tree("copy"))) == {"file"}
    server.volumes.destroy_many(["odd", "copy"])
    server.terminate()
    server.start()
    assert server.volumes.handles() == []


def test_20_missing_handle(volumes):
    assert_error(volumes.request("GET", "/volumes/missing"), 404, "failed to get volume")


def test_21_lists_while_streams_run(volumes, make_volume):
    """The list is complete each time, whatever runs beside it."""
    handles = sorted(make_volume().handle for _ in range(40))
    source = volumes.get(handles[0])["handle"]
    volumes.fill(source, Member("big", os.urandom(4 << 20)))
    ended = threading.Event()

    def stream():
        while not ended.is_set():
            volumes.stream_out(source)

    threads = [threading.Thread(target=stream) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            assert volumes.handles() == handles
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_22_clients_that_leave_before_they_read(server, volumes, make_volume):
    for _ in range(20):
        make_volume(properties={"filler": "x" * 4000})
    for leave in ("close", "reset"):
        for _ in range(20):
            conn = volumes.connect()
            conn.send(request_bytes("GET", "/volumes"))
            conn.head()
            getattr(conn, leave)()
    server.check()
    assert len(volumes.handles()) == 20


def test_a_list_says_what_a_look_up_says(volumes, make_volume):
    made = [make_volume(properties=None), make_volume(properties={}), make_volume(properties={"a": "1"}),
            make_volume(privileged=True, uid=5, gid=6)]
    listed = {volume["handle"]: volume for volume in volumes.list()}
    for one in made:
        reply = volumes.request("GET", f"/volumes/{one}")
        assert reply.json == listed[one.handle]
        assert list(reply.json) == ["handle", "path", "properties", "privileged"]
        assert reply.json["path"] == one.path
        properties = one.info["properties"]
        assert json.dumps(reply.json["properties"]) == json.dumps(properties)


def test_characters_in_properties(volumes, make_volume):
    properties = {"<&>": "\u2028\u2029 \" \\ \x01 ü 😀", "": "empty", unique_name(): ""}
    one = make_volume(properties=properties)
    assert volumes.get(one.handle)["properties"] == properties
