"""The health port and the debug port of a worker."""
import socket
import subprocess
import threading

import pytest

from gardenlib import HttpClient, wait_until
from serverproc import refused_start


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Watched:
    """A server with both ports."""

    def __init__(self, start_server, *args, **more):
        self.ports = [free_port(), free_port()]
        self.server = start_server("--healthcheck-bind-ip", "127.0.0.1", "--healthcheck-bind-port", self.ports[0],
                                   "--debug-bind-port", self.ports[1], *args, **more)
        self.health, self.debug = (HttpClient(("127.0.0.1", port)) for port in self.ports)

    def get(self, path):
        return self.health.request("GET", path)

    def metrics(self):
        """By name and labels."""
        reply = self.get("/metrics")
        assert reply.status == 200 and reply.headers["content-type"].startswith("text/plain")
        lines = reply.body.decode().splitlines()
        types = [line for line in lines if line.startswith("# TYPE")]
        assert len(types) == len(set(types)), "a name has its type once"
        return {name: int(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


@pytest.fixture
def watched(start_server):
    return Watched(start_server)


WELL = {"garden": {"healthy": True, "response_error": ""}, "baggageclaim": {"healthy": True, "response_error": ""}}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/any/path?with=query"])
def test_line_99_any_path_and_method_are_answered(watched, method, path):
    reply = watched.health.request(method, path)
    assert (reply.status, reply.headers["content-type"], reply.json) == (200, "application/json", WELL)


def test_a_page_may_look(watched):
    assert watched.health.request("GET", "/", headers={"Origin": "http://elsewhere"}).status == 200
    assert watched.server.client.request("GET", "/ping", headers={"Origin": "http://elsewhere"}).status == 403


def test_line_99_an_api_that_does_not_answer_is_named(start_server):
    """The volume API is on an address that a firewall of the test's closes, so that it is silent."""
    port = free_port()
    one = Watched(start_server, "--healthcheck-timeout", "300ms", "--baggageclaim-bind-port", port)
    rule = ["iptables-nft", "-w", "-I", "INPUT", "-i", "lo", "-p", "tcp", "--dport", str(port), "-j"]
    subprocess.run([*rule, "DROP"], check=True)
    try:
        reply = one.get("/")
        checks = {check["name"]: check for check in one.get("/healthz").json["checks"]}
    finally:
        subprocess.run(["iptables-nft", "-w", "-D", *rule[3:], "DROP"], check=True)
    assert reply.status == 503
    assert reply.json == {**WELL, "baggageclaim": {"healthy": False, "response_error": "no answer within 300 ms"}}
    assert checks["baggageclaim"] == {"name": "baggageclaim", "ok": False, "reason": "no answer within 300 ms"}
    assert one.get("/").json == WELL


def test_a_refused_connection_is_an_error_too(start_server):
    port = free_port()
    one = Watched(start_server, "--bind-port", port)
    rule = ["INPUT", "-i", "lo", "-p", "tcp", "--dport", str(port), "-j", "REJECT", "--reject-with", "tcp-reset"]
    subprocess.run(["iptables-nft", "-w", "-I", *rule], check=True)
    try:
        reply = one.get("/")
    finally:
        subprocess.run(["iptables-nft", "-w", "-D", *rule], check=True)
    assert reply.status == 503 and reply.json["baggageclaim"] == WELL["baggageclaim"]
    assert "connect" in reply.json["garden"]["response_error"].lower()


def test_healthz_and_readyz_list_what_they_look_at(watched):
    healthz, readyz = watched.get("/healthz"), watched.get("/readyz")
    assert (healthz.status, healthz.json["status"]) == (readyz.status, readyz.json["status"]) == (200, "ok")
    assert [check["name"] for check in healthz.json["checks"]] == ["garden", "baggageclaim"]
    assert readyz.json["checks"] == [{"name": name, "ok": True, "reason": ""} for name in
                                     ("garden", "baggageclaim", "record", "disk", "containers")]


def test_a_full_worker_lives_and_is_not_ready(start_server):
    one = Watched(start_server, "--max-containers", "1")
    one.server.client.create("only")
    reply = one.get("/readyz")
    assert (reply.status, reply.json["status"]) == (503, "failing")
    assert reply.json["checks"][-1] == {"name": "containers", "ok": False,
                                        "reason": "there are 1 containers, and no more can be made"}
    assert one.get("/healthz").status == one.get("/").status == 200


def test_a_full_disk_is_not_ready(start_server, tmp_path):
    disk = tmp_path / "small"
    disk.mkdir()
    with_it = ("unshare", "-m", "--propagation", "private", "sh", "-c",
               f"mount -t tmpfs -o size=32m small {disk} && exec \"$@\"", "sh")
    one = Watched(start_server, "--work-dir", disk, prefix=with_it)
    reply = one.get("/readyz")
    assert reply.status == 503
    (check,) = [check for check in reply.json["checks"] if not check["ok"]]
    assert check["name"] == "disk" and "bytes are free" in check["reason"] and str(disk) in check["reason"]


def n_ends(metrics):
    return sum(value for name, value in metrics.items() if name.startswith("cloche_process_ends_total"))


def test_what_happens_is_counted(watched):
    server, before = watched.server, watched.metrics()
    server.client.create("one")
    server.client.create("two", limits={"memory_limits": {"limit_in_bytes": 32 << 20}})
    assert server.client.request("POST", "/containers", {"handle": "one"}).status == 500
    server.volumes.create("v")
    assert server.client.sh("one", "exit 3")[0] == 3
    assert server.client.sh("one", "kill -9 $$")[0] == 137
    assert server.client.sh("two", "x=aaaaaaaa; while :; do x=$x$x; done")[0] == 137
    server.client.run_refused("one", {"path": "/not/there"})
    sleeper = server.client.run("two", {"path": "sleep", "args": ["1000"]})
    server.client.destroy("two")
    sleeper.wait_ends()
    after = wait_until(lambda: (now := watched.metrics()) and n_ends(now) - n_ends(before) >= 4 and now, "all ends are counted")
    grown = {name: after[name] - before[name] for name in after if name.startswith("cloche_") and "disk" not in name}
    assert grown == {
        "cloche_containers": 1, "cloche_containers_max": 0, "cloche_volumes": 1,
        "cloche_container_creates_total": 2, "cloche_container_create_failures_total": 1,
        "cloche_container_destroys_total": 1, "cloche_process_starts_total": 4,
        "cloche_process_start_failures_total": 1, 'cloche_process_ends_total{reason="exit"}': 1,
        'cloche_process_ends_total{reason="signal"}': 1, 'cloche_process_ends_total{reason="oom"}': 1,
        'cloche_process_ends_total{reason="container"}': 1}
    assert all(after[name] > 0 for name in ("cloche_disk_bytes_total", "cloche_disk_bytes_free",
                                            "process_resident_memory_bytes", "process_open_fds", "process_threads",
                                            "process_start_time_seconds"))


def test_the_debug_port_shows_what_the_server_is_doing(watched):
    watched.server.client.create("seen")
    sleeper = watched.server.client.run("seen", {"id": "sleeper", "path": "sleep", "args": ["1000"]})
    text = watched.debug.request("GET", "/").body.decode()
    assert "seen active sleeper" in text
    assert f"Pid:\t{watched.server.pid}\n" in text
    assert f"{watched.server.pid} cloche" in text.split("== threads")[1].split("==")[0]
    assert "socket:[" in text.split("== descriptors")[1]
    watched.server.client.stop("seen", kill=True)
    sleeper.wait()


def test_health_is_answered_while_many_ask(watched):
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(watched.get("/").status)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == 20 * [200]


@pytest.mark.parametrize("option", ["healthcheck", "debug"])
def test_a_port_that_is_taken_is_named_by_its_option(tmp_path, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, text = refused_start(f"--{option}-bind-ip", "127.0.0.1", f"--{option}-bind-port",
                                   str(taken.getsockname()[1]), directory=tmp_path)
    assert code == 1 and f"--{option}-bind-port" in text and "Address already in use" in text


@pytest.mark.parametrize("args, words", [
    (["--healthcheck-bind-port", "65536"], "--healthcheck-bind-port"),
    (["--debug-bind-port", "x"], "--debug-bind-port 'x': expected PORT"),
    (["--healthcheck-timeout", "0"], "--healthcheck-timeout: expected 1ms or more"),
    (["--healthcheck-bind-ip", "host", "--healthcheck-bind-port", "9"], "--healthcheck-bind-ip"),
])
def test_what_cannot_be_is_refused(tmp_path, args, words):
    code, text = refused_start(*args, directory=tmp_path)
    assert code == 1 and words in text, text
