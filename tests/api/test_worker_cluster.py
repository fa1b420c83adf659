"""A worker and its cluster, with real sshds for gateways: registration, tunnels, heartbeats, lost connections, keys."""
import os
import signal
import subprocess

import pytest

import tsalib
from gardenlib import wait_until
from serverproc import NO_POOL
from tsalib import children_of, helper_of, is_alive


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    directory = tmp_path_factory.mktemp("keys")
    for name in ("host", "worker", "other"):
        tsalib.make_key(directory / name)
    return directory


@pytest.fixture
def cluster(tmp_path, keys):
    one = tsalib.Cluster(tmp_path, keys)
    yield one
    one.close()


@pytest.fixture
def start_worker(cluster, start_server):
    """Start a worker of the cluster; more is for options and for the server."""
    def start(*words, env=None, **options):
        return start_server(*NO_POOL, *cluster.options(**options), *words, command=("worker",), env=env)

    return start


def wait_log(server, message, **facts):
    """A line of the server's log with this message and these facts."""
    def find():
        for line in server.log_lines():
            if line["message"] == message and all(str(v) in str(line["data"].get(k)) for k, v in facts.items()):
                return line
        return None
    return wait_until(find, f"{message} {facts} in {server.log_tail()}")


def test_86_it_registers_and_both_tunnels_carry_requests(cluster, start_worker):
    gateway = cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    document = cluster.web.workers["w"]["document"]
    assert document["name"] == "w" and document["version"] == "3.0" and document["platform"] == "linux"
    garden, volumes = cluster.clients(gateway)
    garden.create("c")
    assert server.client.handles() == ["c"]
    assert garden.output("c", "echo through the tunnel") == "through the tunnel\n"
    volumes.make("v")
    assert volumes.handles() == server.volumes.handles() == ["v"]
    cluster.web.wait(lambda: cluster.web.workers["w"]["beats"] >= 2, "heartbeats")


def test_a_cut_connection_is_made_anew_and_output_is_whole(cluster, start_worker):
    gateway = cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    garden, _ = cluster.clients(gateway)
    garden.create("c")
    script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); usleep 50000; done; echo x >>/runs; exit 7"
    process = garden.run("c", {"id": "task", "path": "sh", "args": ["-c", script]})
    process.wait_output(b"line 5\n")
    gateway.stop()
    process.wait_for(lambda: {"control", "stdout", "stderr"} <= process.ends.keys(), "the end of the streams")
    process.close()
    gateway.start()
    cluster.wait_registered(count=2)
    garden, _ = cluster.clients(gateway)
    again = garden.attach("c", "task")
    assert again.wait() == 7
    whole = b"".join(b"line %d\n" % i for i in range(40))
    # what sshd had acknowledged and not yet passed on went with it (README)
    assert whole.startswith(process.stdout) and whole.endswith(again.stdout)
    assert server.client.output("c", "cat /runs") == "x\n"
