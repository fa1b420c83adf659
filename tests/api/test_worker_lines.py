"""Acceptance lines of a Concourse worker, by number: those that no other module has. worker_lines.py says where each is
tested."""
import re
import threading

import oracle
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


def test_line_18_the_head_of_a_run_and_of_an_attach(container):
    process = container.run("cat", id="task")
    attached = container.attach("task")
    for one in (process, attached):
        assert one.headers["transfer-encoding"] == "chunked" and one.headers["content-type"] == "application/json"
        assert "connection" not in one.headers and "content-length" not in one.headers
    process.end_stdin()
    assert process.wait() == 0 and attached.wait() == 0


def test_line_23_eight_megabytes_in_one_message(container):
    text = "".join(f"{n:07}\n" for n in range(1 << 20))
    process = container.run("cat")
    process.stdin(text)
    process.end_stdin()
    assert process.wait() == 0 and process.stdout == text.encode()


def test_line_46_what_a_process_leaves_behind_goes_with_the_container(server):
    before = oracle.snapshot(server)
    handle = server.client.create()
    process = server.client.run(handle, {"path": "sh", "args": ["-c", "setsid sleep 1000 >/dev/null 2>&1 & exit 5"]})
    assert process.wait() == 5
    assert len(server.client.output(handle, "pidof sleep").split()) == 1
    server.client.destroy(handle)
    oracle.settled(server, before)


def test_line_58_who_is_privileged_may_write_to_sys(make_container):
    box = make_container(privileged=True)
    rows = [line.split() for line in box.output("cat /proc/mounts").splitlines()]
    found = {place: how.split(",") for _, place, kind, how, *_ in rows if kind in ("sysfs", "cgroup", "cgroup2")}
    assert "/sys" in found and len(found) > 1 and all("rw" in how for how in found.values()), found


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
