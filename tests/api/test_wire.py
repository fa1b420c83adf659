"""The wire and the simplest life: lines 1-14 of the acceptance list, and the error documents."""
import threading
from urllib.parse import quote

import pytest
from conftest import unique_name

ERROR_KEYS = {"Type", "Message", "Handle", "ProcessID", "Binary"}
INFO_KEYS = {"State", "Events", "HostIP", "ContainerIP", "ContainerIPv6", "ExternalIP",
             "ContainerPath", "ProcessIDs", "Properties", "MappedPorts"}


def assert_error(reply, status, kind="", message=None):
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    document = reply.json
    assert set(document) == ERROR_KEYS and all(isinstance(v, str) for v in document.values())
    assert document["Type"] == kind and document["Message"], document
    if message is not None:
        assert document["Message"] == message
    return document


def assert_unknown(reply, handle):
    document = assert_error(reply, 404, "ContainerNotFoundError", f"unknown handle: {handle}")
    assert document["Handle"] == handle


def test_line_1_ping(client):
    reply = client.request("GET", "/ping")
    assert (reply.status, reply.body) == (200, b"{}\n")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["content-length"] == "3"


def test_line_2_capacity(client):
    reply = client.ok("GET", "/capacity")
    assert set(reply) == {"memory_in_bytes", "disk_in_bytes", "schedulable_disk_in_bytes",
                          "max_containers"}
    assert all(isinstance(n, int) and n > 0 for n in reply.values()), reply


def test_line_3_create_without_anything(client):
    reply = client.ok("POST", "/containers", {})
    handle = reply["Handle"]
    try:
        assert set(reply) == {"Handle"} and handle
        assert handle in client.handles()
    finally:
        client.destroy(handle)


def test_line_4_handle_in_use(client, container):
    reply = client.request("POST", "/containers", {"handle": container.handle})
    assert_error(reply, 500, "", f"Handle '{container.handle}' already in use")
    assert container.output("echo unharmed") == "unharmed\n"


def test_line_5_destroy_unknown(client):
    assert_unknown(client.request("DELETE", "/containers/no-such-handle"), "no-such-handle")


def test_line_6_destroy(client):
    handle = client.create(unique_name())
    reply = client.request("DELETE", f"/containers/{handle}")
    assert (reply.status, reply.body) == (200, b"{}\n")
    assert handle not in client.handles()
    assert handle not in client.handles("garden.state=all")
    assert_unknown(client.request("DELETE", f"/containers/{handle}"), handle)


JSON_ROUTES = [("POST", "/containers"), ("PUT", "/containers/{}/stop"),
               ("POST", "/containers/{}/processes"), ("POST", "/containers/{}/exec"),
               ("PUT", "/containers/{}/grace_time"), ("PUT", "/containers/{}/properties/p")]


@pytest.mark.parametrize("method,path", JSON_ROUTES)
@pytest.mark.parametrize("text", [b"", b"{", b"jam", b'{"a":', b'{"a" 1}', b"\x00", b'"\xff"'])
def test_line_7_broken_json(client, container, method, path, text):
    reply = client.request(method, path.format(container.handle), body=text)
    assert_error(reply, 500)


def test_line_8_empty_list(server):
    # The session's server has no containers between tests.
    reply = server.client.request("GET", "/containers")
    assert (reply.status, reply.body) == (200, b'{"Handles":[]}\n')


def test_line_9_list_with_filter(client, make_container):
    mark = unique_name("mark")
    red = [make_container(properties={"colour": "red", "m": mark}).handle for _ in range(2)]
    blue = make_container(properties={"colour": "blue", "m": mark}).handle
    assert sorted(client.handles(f"m={mark}&colour=red")) == sorted(red)
    assert client.handles(f"m={mark}&colour=blue") == [blue]
    assert sorted(client.handles(f"m={mark}")) == sorted([*red, blue])
    assert client.handles(f"m={mark}&colour=green") == []


def test_line_10_list_with_a_filter_that_differs(client, make_container):
    mark = unique_name("mark")
    make_container(properties={"a": "1", "b": mark})
    assert client.handles(f"a=2&b={mark}") == []
    assert client.handles(f"a=1&b={mark}x") == []


def test_list_uses_the_first_of_a_repeated_key(client, make_container):
    mark = unique_name("mark")
    one = make_container(properties={"a": mark})
    assert client.handles(f"a={mark}&a=other") == [one.handle]


def test_list_by_state(client, container):
    assert container.handle in client.handles("garden.state=all")
    assert container.handle in client.handles("garden.state=created")
    assert client.handles("garden.state=nonsense") == []


def test_line_11_property_names_with_any_characters(client, container):
    for name in ("a b/c", "p:%/ü", "plain", "+", "a=b&c", "%2F"):
        path = f"{container.path}/properties/{quote(name, safe='')}"
        value = f"value of {name} & more"
        assert client.ok("PUT", path, {"value": value}) == {}
        assert client.ok("GET", path) == {"value": value}
        assert client.ok("GET", f"{container.path}/properties")[name] == value
        query = f"{quote(name, safe='')}={quote(value, safe='')}"
        assert client.handles(query) == [container.handle]
    assert client.ok("DELETE", f"{container.path}/properties/a%20b%2Fc") == {}
    assert "a b/c" not in client.ok("GET", f"{container.path}/properties")


def test_query_values_take_plus_for_a_space(client, make_container):
    mark = unique_name("mark")
    one = make_container(properties={"words": f"{mark} and more"})
    assert client.handles(f"words={mark}+and%20more") == [one.handle]


def test_line_12_missing_property(client, container):
    path = f"{container.path}/properties/p"
    assert_error(client.request("GET", path), 500, "", "property does not exist: p")
    reply = client.request("DELETE", path)
    assert (reply.status, reply.body) == (200, b"{}\n")


def test_line_13_info(client, make_container):
    one = make_container(properties={"colour": "red"})
    info = one.info()
    assert set(info) == INFO_KEYS
    assert info["State"] == "active"
    assert info["Events"] is None or info["Events"] == []
    assert info["MappedPorts"] == []
    assert info["Properties"]["colour"] == "red"
    assert info["Properties"]["garden.state"] == "created"
    for key in ("HostIP", "ContainerIP", "ContainerIPv6", "ExternalIP", "ContainerPath"):
        assert isinstance(info[key], str)


def test_line_14_bulk_info(client, make_container):
    a, b = make_container(), make_container()
    missing = unique_name("missing")
    reply = client.ok("GET", f"/containers/bulk_info?handles={a},{missing}")
    assert set(reply) == {a.handle, missing} and b.handle not in reply
    assert reply[a.handle]["Err"] is None and set(reply[a.handle]["Info"]) == INFO_KEYS
    assert reply[missing]["Err"]["Message"] == f"unknown handle: {missing}"
    assert set(reply[missing]["Info"]) == INFO_KEYS
    assert client.ok("GET", "/containers/bulk_info?handles=") == {}
    assert client.request("GET", "/containers/bulk_info").status in (400, 500)


def test_bulk_info_of_thousands_of_handles(client, container):
    names = [f"missing-handle-number-{i:05}" for i in range(5000)] + [container.handle]
    reply = client.ok("GET", "/containers/bulk_info?handles=" + ",".join(names))
    assert len(reply) == 5001 and reply[container.handle]["Err"] is None


HANDLE_ROUTES = [
    ("DELETE", ""), ("PUT", "/stop"), ("GET", "/info"), ("POST", "/processes"),
    ("GET", "/processes/p"), ("POST", "/exec"), ("PUT", "/grace_time"), ("GET", "/properties"),
    ("GET", "/properties/p"), ("PUT", "/properties/p"), ("DELETE", "/properties/p")]
BODIES = {"/grace_time": 1000000000, "/properties/p": {"value": "v"}, "/stop": {"kill": True},
          "/processes": {"path": "true"}, "/exec": {"path": "true"}}


@pytest.mark.parametrize("method,path", HANDLE_ROUTES)
def test_unknown_handle_is_typed_on_every_route(client, method, path):
    body = BODIES.get(path) if method in ("PUT", "POST") else None
    assert_unknown(client.request(method, f"/containers/nobody{path}", body), "nobody")


NOT_OFFERED = [
    {"limits": {"disk_limits": {"byte_hard": 10485760}}},
    {"image": {"uri": "docker:///busybox"}}, {"rootfs": "docker:///busybox"}]


@pytest.mark.parametrize("spec", NOT_OFFERED, ids=lambda spec: next(iter(spec)))
def test_creates_that_ask_for_more_are_refused(client, spec):
    name = unique_name()
    reply = client.request("POST", "/containers", {"handle": name, **spec})
    assert reply.status in (500, 501)
    assert_error(reply, reply.status)
    assert name not in client.handles("garden.state=all")


def test_the_empty_spec_of_a_go_client(client):
    spec = {"handle": unique_name(), "image": {}, "limits": {
        "bandwidth_limits": {}, "cpu_limits": {}, "disk_limits": {}, "memory_limits": {},
        "pid_limits": {}}}
    assert client.ok("POST", "/containers", spec) == {"Handle": spec["handle"]}
    client.destroy(spec["handle"])


def test_image_and_rootfs_together(client):
    reply = client.request("POST", "/containers", {"rootfs": "/a", "image": {"uri": "/b"}})
    assert_error(reply, 500, "", "Cannot provide both Image.URI and RootFSPath")


@pytest.mark.parametrize("path", ["/nothing", "/containers/a/b/c/d", "/ping/x", "/ping/"])
def test_unknown_path(client, path):
    reply = client.request("GET", path)
    assert (reply.status, reply.body) == (404, b"404 page not found\n")
    assert reply.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("method,path,allowed", [
    ("POST", "/ping", {"GET"}), ("DELETE", "/containers", {"GET", "POST"}),
    ("GET", "/containers/a", {"DELETE"}), ("GET", "/containers/a/stop", {"PUT"}),
    ("POST", "/containers/a/properties/p", {"GET", "PUT", "DELETE"})])
def test_wrong_method(client, method, path, allowed):
    reply = client.request(method, path, body=b"" if method == "POST" else None)
    assert reply.status == 405
    assert {"HEAD", *allowed} >= set(reply.headers["allow"].split(", ")) >= allowed


def test_stop_and_grace_time_answer_with_an_empty_document(client, container):
    assert client.ok("PUT", f"{container.path}/grace_time", 600000000000) == {}
    assert client.stop(container.handle) == {}


def test_json_keys_in_any_case(client):
    name = unique_name()
    assert client.ok("POST", "/containers", {"HANDLE": name, "Properties": {"A": "b"}}) == {
        "Handle": name}
    try:
        assert client.ok("GET", f"/containers/{name}/properties")["A"] == "b"
    finally:
        client.destroy(name)


def test_keep_alive_serves_many_requests_on_one_connection(client):
    with client.connect() as conn:
        for _ in range(50):
            conn.send(b"GET /ping HTTP/1.1\r\nHost: api\r\n\r\n")
            assert conn.reply().body == b"{}\n"


def test_handle_can_be_used_again_after_destroy(client):
    name = unique_name()
    for _ in range(5):
        client.create(name)
        client.destroy(name)


def test_one_of_many_creates_of_one_handle_wins(client):
    name, replies = unique_name(), []
    threads = [threading.Thread(target=lambda: replies.append(
        client.request("POST", "/containers", {"handle": name}))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert sorted(r.status for r in replies) == [200] + [500] * 15
    finally:
        client.destroy(name)
