"""A worker and its cluster, with real sshds for gateways: registration, tunnels, heartbeats, lost connections."""
import os
import signal
import subprocess

import pytest

import tsalib
from gardenlib import wait_until
from test_worker_health import free_port
from tsalib import children_of, helper_of, is_alive, wait_log

SCRIPT = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); usleep 50000; done; echo x >>/runs; exit 7"
WHOLE = b"".join(b"line %d\n" % i for i in range(40))
STREAMS = {"control", "stdout", "stderr"}


def wait_cut(process):
    """Until its client sees that the connections are gone."""
    process.wait_for(lambda: STREAMS <= process.ends.keys(), "the end of the streams")
    process.close()


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


def test_97_no_heartbeat_while_the_volume_api_does_not_answer(cluster, start_worker):
    cluster.gateway()
    web, port = cluster.web, free_port()
    start_worker("--baggageclaim-bind-port", port)
    cluster.wait_registered()
    rule = ["INPUT", "-i", "lo", "-p", "tcp", "--dport", str(port), "-j", "REJECT", "--reject-with", "tcp-reset"]
    subprocess.run(["iptables-nft", "-w", "-I", *rule], check=True)
    try:
        web.wait_call("missed")
        n = len(web.calls)
        web.wait_call("missed", n, 3)
        between = [call for call, _ in web.calls[n:]]
    finally:
        subprocess.run(["iptables-nft", "-w", "-D", *rule], check=True)
    assert set(between) == {"missed"}
    web.wait_call("heartbeat", len(web.calls))  # of the same registration
    assert sum(call == "register" for call, _ in web.calls) == 1


def test_a_server_that_listens_everywhere_is_reached_by_loopback(cluster, start_worker):
    gateway = cluster.gateway()
    start_worker("--bind-ip", "0.0.0.0", "--baggageclaim-bind-ip", "0.0.0.0")
    cluster.wait_registered()
    garden, volumes = cluster.clients(gateway)
    assert garden.handles() == volumes.handles() == []


def test_containers_without_a_rule_are_hermetic(cluster, start_worker):
    """Concourse asks for a network by a rule."""
    cluster.gateway()
    server = start_worker()
    server.client.create("alone")
    server.client.create("linked", netout_rules=[{"networks": [{"start": "0.0.0.0", "end": "255.255.255.255"}]}])
    assert "eth0" not in server.client.output("alone", "ls /sys/class/net")
    assert "eth0" in server.client.output("linked", "ls /sys/class/net")


def test_a_cut_connection_is_made_anew_and_output_is_whole(cluster, start_worker):
    gateway = cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    garden, _ = cluster.clients(gateway)
    garden.create("c")
    process = garden.run("c", {"id": "task", "path": "sh", "args": ["-c", SCRIPT]})
    process.wait_output(b"line 5\n")
    gateway.stop()
    wait_cut(process)
    gateway.start()
    cluster.wait_registered(count=2)
    garden, _ = cluster.clients(gateway)
    again = garden.attach("c", "task")
    assert again.wait() == 7
    # what sshd had acknowledged and had not passed on went with it (README): a few lines at most
    assert WHOLE.startswith(process.stdout) and WHOLE.endswith(again.stdout)
    assert len(process.stdout) + len(again.stdout) >= len(WHOLE) - 3 * len(b"line 10\n")
    assert server.client.output("c", "cat /runs") == "x\n"
    assert wait_log(server, "cloche.worker.connection-lost", gateway=gateway.at)


def test_a_killed_server_loses_nothing_and_leaves_nothing(cluster, start_worker):
    """A client that attaches again at the end of its streams, as web does."""
    gateway = cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    helper = helper_of(server)
    ours = [helper, *children_of(helper)]
    assert len(ours) >= 3  # the connection and the registration
    garden, _ = cluster.clients(gateway)
    garden.create("c")
    process = garden.run("c", {"id": "task", "path": "sh", "args": ["-c", SCRIPT]})
    process.wait_output(b"line 5\n")
    server.kill()
    wait_cut(process)
    assert all(end == "FIN" for end in process.ends.values()), process.ends
    assert not any("exit_status" in m for m in process.messages)
    server.start()
    cluster.wait_registered(count=2)
    wait_until(lambda: not any(is_alive(pid) for pid in ours), f"the end of {ours}")
    garden, _ = cluster.clients(gateway)
    again = garden.attach("c", "task")
    assert again.wait() == 7
    assert WHOLE.startswith(process.stdout) and WHOLE.endswith(again.stdout)
    assert len(process.stdout) + len(again.stdout) >= len(WHOLE)  # some may come twice, none is missing
    assert garden.output("c", "cat /runs") == "x\n"
    gateway.stop()
    gateway.start()
    cluster.wait_registered(count=3)  # the end of the old process took nothing from the new one


def test_a_killed_cluster_process_is_started_again(cluster, start_worker):
    cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    server.client.create("c")
    helper = helper_of(server)
    children = children_of(helper)
    os.kill(helper, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in children), "the end of its children")
    cluster.wait_registered(count=2)
    now = helper_of(server)
    assert now != helper and server.client.handles() == ["c"]
    assert {path.name.split(".")[0] for path in (server.work / "run/cluster").iterdir()} == {str(now)}
    assert cluster.web.workers["w"]["document"]["start_time"] == \
        cluster.web.calls[0][1]["worker"]["start_time"]  # the worker is as old as before


def test_a_killed_ssh_is_started_again(cluster, start_worker):
    cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    helper = helper_of(server)
    os.kill(min(children_of(helper)), signal.SIGKILL)
    cluster.wait_registered(count=2)
    assert helper_of(server) == helper


def test_of_two_gateways_one_is_dead(cluster, start_worker):
    dead, alive = cluster.gateway(), cluster.gateway()
    dead.stop()
    for n in range(3):  # the order is random
        start_worker(name=f"w{n}")
        cluster.wait_registered(f"w{n}")
        garden, _ = cluster.clients(alive, f"w{n}")
        assert garden.handles() == []


def test_another_gateway_takes_over(cluster, start_worker):
    gateways = [cluster.gateway(), cluster.gateway()]
    start_worker()
    for count in range(1, 4):
        cluster.wait_registered(count=count)
        current = next(g for g in gateways if len(g.processes()) > 1)
        if count < 3:
            current.stop()
            current.start()


def test_a_connection_is_renewed_and_what_goes_on_is_not_cut(cluster, start_worker):
    gateways = [cluster.gateway(), cluster.gateway()]
    server = start_worker("--rebalance-interval", "1s")
    cluster.wait_registered()
    first = cluster.web.workers["w"]["ports"]
    server.client.create("c")
    for gateway in gateways:
        try:
            garden = tsalib.Client((gateway.address, first[0]))
            process = garden.run("c", {"path": "sh", "args": ["-c", "echo on; read x; echo $x; exit 3"]})
            break
        except ConnectionRefusedError:
            pass
    process.wait_output(b"on\n")
    cluster.wait_registered(count=3)
    cancelled = cluster.web.wait_call("cancelled")
    assert cancelled["ports"] == first  # it was told to send nothing new
    assert not process.ends
    process.stdin("still here\n")
    assert process.wait() == 3 and process.stdout == b"on\nstill here\n"
    wait_log(server, "cloche.worker.connection-ended")


def test_what_takes_too_long_is_cut_at_last(cluster, start_worker):
    gateway = cluster.gateway()
    server = start_worker("--rebalance-interval", "2s", "--connection-drain-timeout", "1s")
    cluster.wait_registered()
    garden, _ = cluster.clients(gateway)
    garden.create("c")
    process = garden.run("c", {"id": "task", "path": "sh", "args": ["-c", "echo on; read x; exit 3"]})
    process.wait_output(b"on\n")
    wait_cut(process)
    again = server.client.attach("c", "task")
    again.stdin("x\n")
    assert again.wait() == 3


def test_a_refused_registration_is_told_and_tried_again(cluster, start_worker):
    gateway = cluster.gateway()
    cluster.web.refused["register"] = 1
    server = start_worker()
    line = wait_log(server, "cloche.worker.not-registered", gateway=gateway.at)
    assert "refuses the registration (1)" in line["data"]["error"]
    server.client.create("c")
    cluster.web.refused.clear()
    cluster.wait_registered(count=2)


def test_a_broken_resource_type_is_named_and_mended_without_a_restart(cluster, start_worker):
    cluster.gateway()
    types = cluster.directory / "types"
    (types / "git").mkdir(parents=True)
    (types / "git/resource_metadata.json").write_text("{")
    (types / "git/rootfs").mkdir()
    server = start_worker("--resource-types", types)
    line = wait_log(server, "cloche.worker.not-registered")
    assert str(types / "git/resource_metadata.json") in line["data"]["error"]
    (types / "git/resource_metadata.json").write_text('{"type": "git", "version": "1"}')
    cluster.wait_registered()
    assert cluster.web.workers["w"]["document"]["resource_types"][0]["type"] == "git"


@pytest.mark.parametrize("words, error", [
    (("--ssh-program", "/nowhere/ssh"), "--ssh-program '/nowhere/ssh'"),
    (("--tsa-host", "[::1"), "--tsa-host '[::1': expected HOST:PORT"),
])
def test_what_cannot_be_is_named_and_the_server_stays(cluster, start_worker, words, error):
    server = start_worker(*words, hosts=[])
    wait_log(server, "cloche.worker.cluster-failed" if "ssh" in words[0] else "cloche.worker.not-registered",
             error=error)
    server.client.create("c")
    assert server.client.output("c", "echo here") == "here\n"
