"""How fast containers send and receive, and how much they have: limits/bandwidth and NetworkStat."""
import contextlib
import sqlite3
import subprocess
import sys
import time

import internet
import oracle
import pytest
from conftest import Container
from netfixtures import make, net, outside  # noqa: F401 # fixtures, too
from test_metrics import metrics
from test_wire import assert_error

RATE, BURST, AMOUNT = 512 << 10, 32 << 10, 768 << 10
LEAST = 0.75 * (AMOUNT - BURST) / RATE  # seconds: noise makes it slower only

# Out there: sends AMOUNT to who asks at 9000; counts what comes at 9001 and tells.
SOURCE_AND_SINK = """
import socket, sys, threading
amount = int(sys.argv[1])
def send(con):
    con.sendall(bytes(amount))
def count(con):
    n = 0
    while n < amount and (data := con.recv(65536)):
        n += len(data)
    con.sendall(b"%d" % n)
def serve(port, work):
    sock = socket.create_server(("0.0.0.0", port))
    def loop():
        while True:
            con, _ = sock.accept()
            with con:
                work(con)
    threading.Thread(target=loop, daemon=True).start()
serve(9000, send)
serve(9001, count)
print("ready", flush=True)
sys.stdin.read()
"""
DOWN = """
import socket, sys
con, n = socket.create_connection((sys.argv[1], 9000), 60), 0
while data := con.recv(65536):
    n += len(data)
print(n)
"""
UP = """
import socket, sys
con = socket.create_connection((sys.argv[1], 9001), 60)
con.sendall(bytes(int(sys.argv[2])))
print(int(con.recv(100)))
"""


@pytest.fixture(scope="module")
def far(outside):
    process = subprocess.Popen(["nsenter", "-t", str(outside.pid), "-n", sys.executable, "-c", SOURCE_AND_SINK,
                                str(AMOUNT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    yield "8.8.8.8"
    process.stdin.close()
    process.wait(60)


def seconds_of(box, code, far):
    start = time.monotonic()
    assert internet.inside(box, code, far, str(AMOUNT)) == (0, f"{AMOUNT}\n")
    return time.monotonic() - start


def asked(box):
    return box.client.ok("GET", f"{box.path}/limits/bandwidth")


def bandwidth(rate=RATE, burst=BURST):
    return {"bandwidth_limits": {"rate": rate, "burst": burst}}


def ip(*words):
    return subprocess.run(["ip", *words], check=True, stdout=subprocess.PIPE).stdout.decode()


def ifbs(server):
    """Links beside those of containers: where what they send waits."""
    return {name for name in oracle.links(server) if name.startswith(f"cl{server.tag}-u")}


def test_both_directions_are_limited(make, far):
    box = make(limits=bandwidth())
    assert asked(box) == {"rate": RATE, "burst": BURST}
    assert seconds_of(box, DOWN, far) > LEAST
    assert seconds_of(box, UP, far) > LEAST
    assert box.sh("ping -c 1 -W 5 8.8.8.8")[0] == 0


def test_one_in_a_subnet_that_is_shared(make, far):
    box = make(network="10.253.77.0/24", limits=bandwidth())
    assert seconds_of(box, UP, far) > LEAST and seconds_of(box, DOWN, far) > LEAST


def test_nothing_is_left_of_a_limit(make, net):
    box = make(limits=bandwidth())
    assert len(ifbs(net)) == 1
    box.destroy()
    assert not ifbs(net)


def test_without_a_rate_there_is_no_limit(make, net):
    box = make(limits={"bandwidth_limits": {"burst": BURST}})
    assert asked(box) == {"burst": BURST} and not ifbs(net)


@pytest.mark.parametrize("rate,burst", [(1, 0), (1, 1), (2**64 - 1, 2**64 - 1)])
def test_limits_that_are_odd(make, rate, burst):
    box = make(limits=bandwidth(rate, burst))
    assert asked(box) == {name: min(value, 2**63 - 1) for name, value in (("rate", rate), ("burst", burst)) if value}
    assert rate == 1 or box.sh("ping -c 1 -W 5 8.8.8.8")[0] == 0


def test_it_holds_after_a_restart(start_server, outside, far):
    server = start_server()
    box = Container(server, limits=bandwidth())
    server.kill()
    server.start()
    box.client = server.client
    assert asked(box) == {"rate": RATE, "burst": BURST}
    assert seconds_of(box, UP, far) > LEAST
    box.destroy()
    assert not ifbs(server)


def test_what_nobody_has_recorded_goes(start_server, outside):
    """And a stranger's link of such a name stays."""
    server = start_server()
    Container(server, limits=bandwidth())
    assert len(ifbs(server)) == 1
    server.kill()
    with contextlib.closing(sqlite3.connect(server.work / "state.db")) as db:
        db.executescript("DELETE FROM containers; DELETE FROM addresses")
    strangers = f"cl{server.tag}-u01020304"
    ip("link", "add", strangers, "type", "ifb")
    server.start()
    assert ifbs(server) == {strangers}
    ip("link", "del", strangers)


def test_a_limit_that_cannot_be_made(net):
    """The name of its link is a stranger's: nothing remains, and the stranger's is left alone."""
    strangers = f"cl{net.tag}-u0afd4e02"
    ip("link", "add", strangers, "type", "bridge")
    try:
        spec = {"handle": "limit-that-cannot-be", "network": "10.253.78.2", "limits": bandwidth()}
        reply = net.client.request("POST", "/containers", spec)
        assert_error(reply, 500, "", f"limits.bandwidth_limits: link cl{net.tag}-0afd4e02: File exists")
        assert ifbs(net) == {strangers} and spec["handle"] not in net.client.handles()
    finally:
        ip("link", "del", strangers)
    assert net.client.create(**spec) == spec["handle"]
    net.client.destroy(spec["handle"])


def test_traffic_is_counted(make, far):
    box = make()
    before = metrics(box)["NetworkStat"]
    assert internet.inside(box, DOWN, far) == (0, f"{AMOUNT}\n")
    middle = metrics(box)["NetworkStat"]
    assert middle["RxBytes"] - before["RxBytes"] >= AMOUNT > middle["TxBytes"] - before["TxBytes"] > 0
    assert internet.inside(box, UP, far, str(AMOUNT)) == (0, f"{AMOUNT}\n")
    after = metrics(box)["NetworkStat"]
    assert after["TxBytes"] - middle["TxBytes"] >= AMOUNT > after["RxBytes"] - middle["RxBytes"] > 0
    entries = box.client.ok("GET", f"/containers/bulk_metrics?handles={box.handle}")
    assert entries[box.handle]["Metrics"]["NetworkStat"]["TxBytes"] >= after["TxBytes"]


def test_traffic_goes_on_after_a_restart(start_server, outside, far):
    server = start_server()
    box = Container(server)
    assert internet.inside(box, DOWN, far) == (0, f"{AMOUNT}\n")
    server.kill()
    server.start()
    box.client = server.client
    assert metrics(box)["NetworkStat"]["RxBytes"] >= AMOUNT
