"""Acceptance lines of a Concourse worker, by number: those that no other module has. worker_lines.py says where each is
tested."""
import re
import threading

import pytest

from conftest import TOP
from serverproc import NO_POOL
from worker_lines import LINES, NOT_HERE


def test_every_line_has_its_test():
    assert sorted([*LINES, *NOT_HERE]) == list(range(1, 101))
    for number, places in LINES.items():
        for place in places.split():
            module, name = place.split("::")
            text = (TOP / "tests" / f"{module}.py").read_text()
            assert re.search(rf"^def test_{name}\(", text, re.M), f"line {number}: {place} is not there"


def test_line_6_a_worker_has_no_root_of_its_own(start_server):
    """Web looks for these words to say that a task names no image."""
    one = start_server(*NO_POOL, "--healthcheck-bind-port", "0", "--debug-bind-port", "0", "--tsa-host", "127.0.0.1:1",
                       command=("worker",))
    reply = one.client.request("POST", "/containers", {"handle": "h", "rootfs": ""})
    assert reply.status == 500 and "rootfs must not be empty" in reply.json["Message"]
    assert one.client.handles("garden.state=all") == []


def test_line_34_a_task_on_a_terminal_outlives_its_client(container):
    terminal = {"window_size": {"columns": 500, "rows": 500}}
    process = container.run("trap 'echo hung up' HUP; echo ready; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 7",
                            tty=terminal)
    process.wait_output(b"ready\r\n")
    process.vanish()
    container.output("touch /tmp/go")
    attached = container.attach(process.id)
    assert attached.wait() == 7 and b"hung up" not in attached.stdout


def test_line_49_a_kill_ends_a_stop_that_waits(container):
    process = container.run("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    process.wait_output(b"ready")
    replies = []
    patient = threading.Thread(target=lambda: replies.append(container.client.stop(container.handle)))
    patient.start()
    container.client.stop(container.handle, kill=True)
    assert process.wait() == 137
    patient.join()
    assert replies == [{}]


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 100_000])
def test_line_52_long_properties(container, size):
    path = f"{container.path}/properties/concourse:resource-result"
    for value in ("x" * size, "short"):
        container.client.ok("PUT", path, {"value": value})
        assert container.client.ok("GET", f"{container.path}/properties")["concourse:resource-result"] == value


def test_line_53_properties_are_there_after_a_kill(start_server):
    one = start_server()
    one.client.create("h")
    one.client.ok("PUT", "/containers/h/properties/concourse:resource-result", {"value": "v" * 10_000})
    one.kill()
    one.start()
    assert one.client.ok("GET", "/containers/h/properties")["concourse:resource-result"] == "v" * 10_000
