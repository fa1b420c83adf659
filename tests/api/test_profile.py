"""--profile: where the time of each create went, in the log."""
import oracle
import pytest
from gardenlib import wait_until

PHASES = ("database", "network", "root", "shim", "namespaces", "mounts", "init", "rest")


def profiles(server):
    return [line["data"] for line in server.log_lines() if line["message"] == "cloche.container-profile"]


@pytest.mark.parametrize("pool, size", [("empty", 0), ("warm", 1)])
def test_every_create_is_accounted_for(start_server, pool, size):
    server = start_server("--profile", "--container-pool", size)
    oracle.wait_for_pool(server)
    handle = server.client.create()
    line = wait_until(lambda: profiles(server), "a profile")[0]
    assert line["handle"] == handle and line["pool"] == pool
    phases = {name: line[f"{name}_us"] for name in PHASES}
    assert sum(phases.values()) == line["total_us"]
    # what waits for a busy server is read at one time, and all of it is then one phase's
    assert phases["database"] > 0 and sum(phases[name] for name in ("shim", "namespaces", "mounts", "init")) > 0
    server.client.destroy(handle)


def test_nobody_has_asked_for_it(start_server):
    server = start_server("--log-level", "debug")
    server.client.destroy(server.client.create())
    assert not profiles(server)


def test_a_create_that_fails_has_none(start_server):
    server = start_server("--profile")
    assert server.client.request("POST", "/containers", {"rootfs": "/no/such/root"}).status >= 400
    assert not profiles(server)
