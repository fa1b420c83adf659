"""A running server answers exactly the routes of the contract."""
import re

import pytest

from other_tests import server  # noqa: F401

from contract import GARDEN, VOLUMES


def fill(path, **values):
    """A path with its parameters filled in."""
    return re.sub(r"{(\w+)}", lambda match: values.get(match.group(1), "absent"), path)


@pytest.fixture(scope="module")
def container(server):
    return server.client.create("contract")


@pytest.mark.parametrize("route", GARDEN.routes, ids=lambda route: route.name)
def test_a_route_is_served(server, route):
    """With a container that does not exist and a body that is no JSON, no route does anything."""
    body = b"no JSON" if route.method in ("POST", "PUT") else None
    reply = server.client.request(route.method, fill(route.path), body=body)
    operation = GARDEN.operations[route.name]
    if not (operation.hijacks and reply.status < 300):
        GARDEN.validate_reply(operation, reply.status, reply.headers["content-type"], reply.body)


@pytest.mark.parametrize("route", [r for r in GARDEN.routes if "{handle}" in r.path],
                         ids=lambda route: route.name)
def test_an_unknown_handle_is_a_typed_404(server, route):
    body = b"{}" if route.method in ("POST", "PUT") else None
    reply = server.client.request(route.method, fill(route.path, handle="nobody"), body=body)
    assert reply.status == 404, reply
    assert reply.json == {"Type": "ContainerNotFoundError", "Message": "unknown handle: nobody",
                          "Handle": "nobody", "ProcessID": "", "Binary": ""}


def test_the_index_lists_the_routes(server):
    reply = server.client.request("GET", "/")
    assert (reply.status, reply.headers["content-type"].split(";")[0]) == (200, "text/plain")
    listed = re.findall(r"\b(GET|PUT|POST|DELETE)\s+(/\S*)", reply.body.decode())
    assert sorted(listed) == sorted((r.method, re.sub(r"{(\w+)}", r":\1", r.path)) for r in GARDEN.routes)


def test_an_unknown_path_is_a_plain_404(server):
    reply = server.client.request("GET", "/no/such/path")
    assert (reply.status, reply.body) == (404, b"404 page not found\n")
    assert reply.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", sorted({r.path for r in GARDEN.routes}))
def test_a_wrong_method_is_a_405_with_the_right_ones(server, path):
    reply = server.client.request("PATCH", fill(path))
    assert reply.status == 405, reply
    methods = {o.method for o in GARDEN.operations.values() if o.path == path}
    # A word in the place of a handle, as bulk_info, is a handle's path to other methods.
    assert methods <= set(re.split(r",\s*", reply.headers["allow"]))


# The volume API.

STREAM_HEADERS = {"volume_stream_in": {"Content-Encoding": "raw"}, "volume_stream_out": {"Accept-Encoding": "raw"}}


def ask(server, route, handle):
    """A request of a route that changes nothing."""
    body = b"no JSON" if route.method in ("POST", "PUT") or "destroy_many" in route.name else None
    return server.volumes.request(route.method, fill(route.path, handle=handle), body=body,
                                  headers=STREAM_HEADERS.get(route.name))


@pytest.mark.parametrize("route", VOLUMES.routes, ids=lambda route: route.name)
def test_a_volume_route_is_served(server, route):
    reply = ask(server, route, "absent")
    VOLUMES.validate_reply(VOLUMES.operations[route.name], reply.status, reply.headers.get("content-type"), reply.body)


@pytest.mark.parametrize("route", [r for r in VOLUMES.routes if "{handle}" in r.path and "p2p" not in r.path],
                         ids=lambda route: route.name)
def test_an_unknown_volume_is_a_404(server, route):
    body = b'{"value":""}' if route.name == "volume_property_set" else b"{}" if route.method == "PUT" else None
    reply = server.volumes.request(route.method, fill(route.path, handle="nobody"), body=body,
                                   headers=STREAM_HEADERS.get(route.name))
    assert reply.status == 404, reply
    VOLUMES.validate_reply(VOLUMES.operations[route.name], 404, reply.headers.get("content-type"), reply.body)


@pytest.mark.parametrize("path", sorted({r.path for r in VOLUMES.routes}))
def test_a_wrong_method_of_a_volume_route(server, path):
    reply = server.volumes.request("PATCH", fill(path))
    assert reply.status == 405 and reply.headers["content-type"].startswith("text/plain")
    methods = {o.method for o in VOLUMES.operations.values() if o.path == path}
    assert methods <= set(re.split(r",\s*", reply.headers["allow"]))
