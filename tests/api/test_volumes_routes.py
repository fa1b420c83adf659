"""The volume API's routes and documents: lines 1-10 of the volumes' acceptance list."""
import pytest
from archives import tar
from conftest import unique_name
from gardenlib import request_bytes
from volumelib import EMPTY, volume_path


def assert_error(reply, status, text=None, exactly=None):
    """An error document; its text begins with the constant text, and the cause may follow."""
    assert reply.status == status, reply
    document = reply.json
    assert list(document) == ["error"] and reply.body.endswith(b"\n"), reply
    assert document["error"], reply
    if text is not None:
        assert document["error"].split(": ")[0] == text, reply
    if exactly is not None:
        assert document["error"] == exactly, reply
    return document["error"]


# Every route that has a handle, with a body that it understands.
HANDLE_ROUTES = [
    ("GET", "", None, {}), ("DELETE", "", None, {}), ("PUT", "/properties/p", {"value": "v"}, {}),
    ("GET", "/privileged", None, {}), ("PUT", "/privileged", {"value": True}, {}),
    ("PUT", "/stream-in", None, {"Content-Encoding": "raw", "Content-Length": "0"}),
    ("PUT", "/stream-out", None, {"Accept-Encoding": "raw", "Content-Length": "0"})]


@pytest.mark.parametrize("path", ["/nothing", "/volumes/x/y", "/volumes/x/properties", "/volumes-async/x/y",
                                  "/containers", "/ping", "/volumes//", "//volumes"])
def test_1_unknown_path(volumes, path):
    reply = volumes.request("GET", path)
    assert (reply.status, reply.body) == (404, b"404 page not found\n")
    assert reply.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("method,path,allowed", [
    ("HEAD", "/volumes", {"GET", "POST"}), ("PATCH", "/volumes", {"GET", "POST"}),
    ("POST", "/volumes/x", {"GET", "DELETE"}), ("PUT", "/volumes/x", {"GET", "DELETE"}),
    ("GET", "/volumes/x/stream-in", {"PUT"}), ("POST", "/volumes/x/stream-out", {"PUT"}),
    ("PUT", "/volumes-async", {"POST"}), ("POST", "/volumes-async/x", {"GET", "DELETE"}),
    ("POST", "/p2p-url", {"GET"}), ("PUT", "/volumes/cleanup-orphans", {"POST"})])
def test_2_unknown_method(volumes, method, path, allowed):
    reply = volumes.request(method, path)
    assert reply.status == 405
    assert allowed <= set(reply.headers["allow"].replace(",", " ").split())


def test_3_destroy_is_a_word_and_no_handle(volumes, make_volume):
    one = make_volume()
    volumes.destroy_many([one.handle])
    assert not volumes.exists(one.handle)
    assert volumes.request("GET", "/volumes/destroy").status == 404


def test_3_destroy_leaves_alone_what_it_was_not_given(volumes, make_volume):
    one, other = make_volume(), make_volume()
    volumes.destroy_many([one.handle])
    assert volumes.exists(other.handle)


@pytest.mark.parametrize("path", ["/volumes/", "/volumes-async/", "/volumes/destroy/", "/p2p-url/"])
def test_4_a_slash_at_the_end(volumes, path):
    assert volumes.request("GET", path).status == 404


@pytest.mark.parametrize("method,path,body,status,text", [
    ("GET", "/volumes?a=1&a=2", None, 422, None),
    ("POST", "/volumes", b"{", 400, "failed to create volume"),
    ("POST", "/volumes", b"{}", 422, "failed to create volume"),
    ("POST", "/volumes-async", b"{", 400, "failed to create volume"),
    ("POST", "/volumes-async", b"{}", 422, "failed to create volume"),
    ("GET", "/volumes/none", None, 404, "failed to get volume"),
    ("DELETE", "/volumes/none", None, 404, "failed to destroy volume"),
    ("DELETE", "/volumes/destroy", b"{", 400, "failed to destroy volume"),
    ("PUT", "/volumes/none/properties/p", b'{"value":"v"}', 404, "failed to set property on volume"),
    ("PUT", "/volumes/none/properties/p", b"{", 400, "failed to set property on volume"),
    ("GET", "/volumes/none/privileged", None, 404, "failed to get privileged status of volume"),
    ("PUT", "/volumes/none/privileged", b'{"value":true}', 404, "failed to change privileged status of volume"),
    ("PUT", "/volumes/none/privileged", b"{", 400, "failed to change privileged status of volume"),
    ("PUT", "/volumes/none/stream-in", b"", 404, "failed to stream in to volume"),
    ("PUT", "/volumes/none/stream-out", b"", 404, "failed to stream out from volume"),
    ("PUT", "/volumes/none/stream-p2p-out", b"", 400, "failed to stream p2p out from volume"),
])
def test_5_an_error_is_a_document(volumes, method, path, body, status, text):
    headers = {"Content-Encoding": "raw", "Accept-Encoding": "raw"} if "stream" in path else None
    reply = volumes.request(method, path, body=body, headers=headers)
    assert_error(reply, status, text)


def test_6_content_types(volumes):
    handle = unique_name()
    replies = [volumes.start(handle), volumes.poll_until_done(handle), volumes.request("GET", volume_path(handle)),
               volumes.request("GET", "/volumes"), volumes.request("GET", volume_path(handle, "/privileged"))]
    volumes.forget(handle)
    volumes.destroy(handle)
    assert [reply.headers["content-type"] for reply in replies] == ["application/json"] * 5
    assert all(reply.body.endswith(b"\n") for reply in replies)


def test_7_what_a_create_may_look_like(volumes):
    handle = unique_name()
    body = b' {"unknown":[1,{"a":null}],"HANDLE":"%b","Strategy":{"type":"empty","more":1}} and more' % handle.encode()
    reply = volumes.request("POST", "/volumes", body=body)
    assert reply.status == 201 and reply.json["handle"] == handle
    volumes.destroy(handle)


@pytest.mark.parametrize("body", [
    b'{"strategy":{"type":"empty"},"uid":1.5}', b'{"strategy":{"type":"empty"},"uid":"1"}',
    b'{"strategy":{"type":"empty"},"properties":{"a":1}}', b'{"strategy":{"type":"empty"},"properties":[]}',
    b'{"strategy":{"type":"empty"},"handle":7}', b'{"strategy":{"type":"empty"},"privileged":"yes"}',
    b"", b"[]", b'"text"', b"7", b'{"strategy":', b'{"strategy":{"type":"empty"},"handle":"\xff"}',
    b'{"strategy":{"type":"empty"},"handle":"a\\u0000b"}'])
@pytest.mark.parametrize("path", ["/volumes", "/volumes-async"])
def test_8_wrong_types(volumes, path, body):
    before = volumes.handles()
    assert_error(volumes.request("POST", path, body=body), 400, "failed to create volume")
    assert volumes.handles() == before


@pytest.mark.parametrize("body", [
    b'{"strategy":{"type":"empty"},"privileged":true,"privileged":false}',
    b'{"strategy":{"type":"empty"},"privileged":true,"Privileged":false}',
    b'{"strategy":{"type":"empty"},"strategy":{"type":"empty"}}',
    b'{"strategy":{"type":"empty"},"properties":{"a":"1","a":"2"}}'])
def test_8_keys_given_twice(volumes, body):
    assert_error(volumes.request("POST", "/volumes", body=body), 400, "failed to create volume")


def test_8_null_is_as_good_as_absent(volumes):
    body = b'{"handle":null,"strategy":{"type":"empty"},"properties":null,"privileged":null,"uid":null,"gid":null}'
    reply = volumes.request("POST", "/volumes", body=body)
    assert reply.status == 201, reply
    assert set(reply.json) == {"handle", "path", "properties", "privileged"}
    volumes.destroy(reply.json["handle"])


def test_9_a_handle_is_decoded(volumes, make_volume):
    make_volume(unique_name("abc"))
    one = make_volume("abc")
    assert volumes.ok("GET", "/volumes/%61bc")["handle"] == one.handle
    assert volumes.ok("GET", "/volumes/%61%62%63/privileged") is False


BAD_HANDLES = ["..%2F..%2Fetc", "%2e%2e", "%2E", "a%00b", "..", ".", "a%2Fb", "%C3%BC", "a%20b", "a+b", "a~b",
               "x" * 256, "%ff", "*", "a:b"]


@pytest.mark.parametrize("handle", BAD_HANDLES)
def test_10_bad_handles(server, volumes, handle):
    for method, rest, json, headers in HANDLE_ROUTES:
        reply = volumes.request(method, f"/volumes/{handle}{rest}", json, headers=headers)
        assert reply.status == 404, (method, rest, reply)
    for method in ("GET", "DELETE"):
        assert volumes.request(method, f"/volumes-async/{handle}").status == 404
    assert server.volume_files() == []


@pytest.mark.parametrize("handle", ["../../etc", "..", ".", "a/b", "ü", "a b", "x" * 256, "a\nb"])
def test_10_bad_handles_of_new_volumes(server, volumes, handle):
    for path in ("/volumes", "/volumes-async"):
        reply = volumes.request("POST", path, {"handle": handle, "strategy": EMPTY})
        assert_error(reply, 400, "failed to create volume")
    assert server.volume_files() == []


@pytest.mark.parametrize("handle", ["x" * 255, "-", "...", "work", "init", "a.b_c-D9", "destroyed", ".hidden"])
def test_10_good_handles(volumes, make_volume, handle):
    one = make_volume(handle)
    one.fill("file")
    assert volumes.get(handle)["handle"] == handle and one.file("file") == b"content of file"


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
                                     {"Referer": "http://evil.example/"}])
def test_browsers_are_refused(volumes, make_volume, headers):
    one = make_volume()
    for method, path, body in (("GET", "/volumes", None), ("DELETE", volume_path(one.handle), None),
                               ("POST", "/volumes", {"strategy": EMPTY})):
        assert volumes.request(method, path, body, headers=headers).status == 403
    assert volumes.exists(one.handle)


@pytest.mark.parametrize("host", ["127.0.0.1:42381", "web.example:7788", "[::1]:7788", "api"])
def test_any_host_is_served(volumes, host):
    assert volumes.request("GET", "/volumes", headers={"Host": host}).status == 200


def test_a_connection_serves_many_requests(volumes):
    """The sweeper keeps its connections."""
    with volumes.connect() as conn:
        for _ in range(3):
            conn.send(request_bytes("GET", "/volumes"))
            assert conn.reply().status == 200
            conn.send(request_bytes("POST", "/volumes/cleanup-orphans", body=b""))
            assert conn.reply().status == 204
            conn.send(request_bytes("GET", "/volumes/none"))
            assert conn.reply().status == 404


def test_a_connection_goes_on_behind_a_stream(volumes, volume):
    """Go's client uses a connection again after a complete answer."""
    archive = tar("file")
    with volumes.connect() as conn:
        conn.send(request_bytes("PUT", volume_path(volume.handle, "/stream-in"), body=archive,
                                headers={"Content-Encoding": "raw"}))
        assert conn.reply().status == 204
        conn.send(request_bytes("PUT", volume_path(volume.handle, "/stream-out"), body=b"",
                                headers={"Accept-Encoding": "raw"}))
        reply = conn.reply()
        assert reply.status == 200 and b"content of file" in reply.body
