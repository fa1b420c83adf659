"""4.43: the wall clock jumps by a day. Grace times, deadlines and time limits do not notice; only the log's times jump. That
what sleeps counts is CLOCK_BOOTTIME's matter (base/clock.h), and that nobody reads another clock is one of `make lint`."""
import os
import struct
import time

import pytest
import crashlib  # noqa: F401 - first: it finds the tests of the API
from conftest import build_tool, nothing_left, server, start_server  # noqa: F401
from gardenlib import Connection, request_bytes, wait_until
from serverproc import NO_POOL

DAY_S = 86_400
HOUR_NS = 3_600_000_000_000
SHORT_NS = 300_000_000
JUMPS = pytest.mark.parametrize("days", [1, -1])


@pytest.fixture
def jumping(start_server, tmp_path):  # noqa: F811
    """A server, and how to set its wall clock."""
    path = tmp_path / "offset"
    path.write_bytes(bytes(8))
    library = build_tool("wall", "-shared", "-fPIC", "-ldl")
    one = start_server(*NO_POOL, directory=tmp_path / "server",
                       env={**os.environ, "LD_PRELOAD": str(library), "WALL_OFFSET": str(path),
                            "ASAN_OPTIONS": "verify_asan_link_order=0", "TSAN_OPTIONS": "verify_link_order=0"})

    def jump(days):
        with open(path, "r+b") as file:
            file.write(struct.pack("q", days * DAY_S))

    return one, jump


def server_time(one):
    """What it tells its clients."""
    return time.mktime(time.strptime(one.client.request("GET", "/ping").headers["date"], "%a, %d %b %Y %H:%M:%S GMT"))


@JUMPS
def test_4_43_a_grace_time(jumping, days):
    one, jump = jumping
    one.client.create("long", grace_time=HOUR_NS)
    before = server_time(one)
    jump(days)
    assert (server_time(one) - before) * days > DAY_S / 2, "its clock has not jumped"
    one.client.create("short", grace_time=SHORT_NS)
    wait_until(lambda: "short" not in one.client.handles("garden.state=all"), "the short one's end")
    assert one.client.handles("garden.state=all") == ["long"]


@JUMPS
def test_4_43_a_grace_time_that_has_begun(jumping, days):
    one, jump = jumping
    one.client.create("box", grace_time=5 * SHORT_NS)
    jump(days)
    wait_until(lambda: not one.client.handles("garden.state=all"), "its end")


@JUMPS
def test_4_43_a_process_has_its_time_to_end(jumping, days):
    """One that ends on its own is not killed before; one that does not is."""
    one, jump = jumping
    one.client.create("box")
    process = one.client.run("box", {"path": "/bin/sh", "args": ["-c", "trap 'echo asked; sleep 1; exit 3' TERM; echo begun; "
                                     "while :; do sleep 0.1; done"]})
    deaf = one.client.run("box", {"path": "/bin/sh", "args": ["-c", "trap '' TERM; echo begun; while :; do sleep 1; done"]})
    for each in (process, deaf):
        each.wait_output(b"begun\n")
    conn = Connection(one.client.address)
    conn.send(request_bytes("PUT", "/containers/box/stop", {"kill": False}))
    process.wait_output(b"asked\n")
    jump(days)
    assert process.wait() == 3
    assert conn.reply().status == 200
    assert deaf.wait() == 137


@JUMPS
def test_4_43_a_request_that_takes_its_time(jumping, days):
    one, jump = jumping
    request = request_bytes("GET", "/ping", headers={"Connection": "close"})
    conn = Connection(one.client.address)
    conn.send(request[:20])
    jump(days)
    assert one.client.request("GET", "/ping").status == 200
    conn.send(request[20:])
    assert conn.reply().status == 200
    conn.close()
