"""NetIn and NetOut: ways in from the host and from outside, and what rules let through of what is denied."""
import concurrent.futures
import json
import re
import sqlite3
import subprocess

import internet
import oracle
import pytest
from gardenlib import wait_until
from netfixtures import make, net, outside, refused, says  # noqa: F401 # fixtures, too

DENIED = ("--deny-network", "8.0.0.0/8", "--deny-network", "1.0.0.0-1.0.0.255",
          "--restricted-network", "9.9.9.9")


def post(one, path, body):
    return one.client.request("POST", f"{one.path}/net/{path}", body)


def net_in(one, host=0, inside=0):
    reply = post(one, "in", {"handle": one.handle, "host_port": host, "container_port": inside})
    assert reply.status == 200, reply
    return reply.json["host_port"], reply.json["container_port"]


def net_out(one, **rule):
    reply = post(one, "out", rule)
    assert reply.status == 200 and reply.body == b"{}\n", reply


def message(reply):
    assert reply.status == 500 and reply.json["Type"] == "", reply
    return reply.json["Message"]


def ask_host(address, port):
    """What a TCP server says to this host; empty if it is not reached."""
    return subprocess.run(["nc", "-w", "5", address, str(port)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False).stdout.decode().strip()


def sleeps(server):
    """A thread of it, a little, to try again then."""
    return any("nanosleep" in oracle.read(f"/proc/{server.pid}/task/{task}/wchan") for task in oracle.listing(f"/proc/{server.pid}/task"))


def network(first, last=None):
    return {"start": first, "end": last or first}


@pytest.fixture(scope="module")
def denying(outside):
    from serverproc import Server
    one = Server(*DENIED)
    yield one
    one.finish()


# ---- ways in ----------------------------------------------------------------------------------

def test_a_port_leads_in_from_outside_from_the_host_and_from_its_loopback(make, outside):
    one = make()
    host, inside = net_in(one, 0, 80)
    assert 61001 <= host < 61001 + 4534 and inside == 80
    with internet.Peer(one.init_pid()):
        status, out = outside.run("nc", "-w", "5", internet.HOST_ADDRESS, str(host))
        assert status == 0 and out.strip() == internet.ROUTER
        seen = {ask_host(address, host) for address in ("127.0.0.1", internet.HOST_ADDRESS)}
    assert seen == {one.info()["HostIP"], internet.HOST_ADDRESS}  # T-H5: never 127.*


def test_no_numbers_means_one_of_the_pool_and_the_same_inside(make):
    one = make()
    host, inside = net_in(one)
    assert host == inside >= 61001
    assert net_in(one, 12345) == (12345, 12345)
    assert net_in(one, 12346, 99) == (12346, 99)
    ports = [(p["HostPort"], p["ContainerPort"]) for p in one.info()["MappedPorts"]]
    assert ports == [(host, host), (12345, 12345), (12346, 99)]


def test_properties_tell_addresses_and_ports(make):
    one = make()
    host, _ = net_in(one, 0, 8080)
    info = one.info()
    own = {key.removeprefix("garden.network."): value for key, value in info["Properties"].items()
           if key.startswith("garden.network.")}
    assert json.loads(own.pop("mapped-ports")) == [{"HostPort": host, "ContainerPort": 8080}]
    assert own == {"container-ip": info["ContainerIP"], "host-ip": info["HostIP"], "external-ip": info["ExternalIP"]}
    reply = one.client.request("PUT", f"{one.path}/properties/garden.network.host-ip", {"value": "x"})
    assert "server's own" in message(reply)


def test_a_port_that_is_taken_is_refused(make):
    one, other = make(), make()
    net_in(one, 12400, 80)
    assert message(post(other, "in", {"host_port": 12400})) == "host_port: 12400 is already mapped"
    assert other.info()["MappedPorts"] == []
    one.destroy()
    assert net_in(other, 12400, 80) == (12400, 80)


def test_ports_come_back_first_in_first_out_and_run_out(start_server, make):
    server = start_server("--port-pool-start", "40000", "--port-pool-size", "3")
    a, b = make(server=server), make(server=server)
    assert [net_in(a)[0], net_in(b)[0], net_in(a)[0]] == [40000, 40001, 40002]
    assert "port pool is exhausted" in post(b, "in", {}).json["Message"]
    server.kill()
    server.start()
    a.client = b.client = server.client
    assert "port pool is exhausted" in post(b, "in", {}).json["Message"]
    b.destroy()
    a.destroy()
    c = make(server=server)
    assert [net_in(c)[0] for _ in range(3)] == [40001, 40000, 40002]


def test_a_port_of_the_pool_that_somebody_asked_for_is_passed_over(start_server, make):
    one = make(server=start_server("--port-pool-start", "40000", "--port-pool-size", "2"))
    assert net_in(one, 40000)[0] == 40000
    assert net_in(one)[0] == 40001


def test_ports_that_a_create_asks_for_are_there_when_it_returns(make):
    one = make(netin=[{"host_port": 0, "container_port": 80}, {"host_port": 12500, "container_port": 443}])
    ports = [(p["HostPort"], p["ContainerPort"]) for p in one.info()["MappedPorts"]]
    assert [inside for _, inside in ports] == [80, 443] and ports[1][0] == 12500
    with internet.Peer(one.init_pid()):
        for host, _ in ports:
            assert ask_host("127.0.0.1", host) == one.info()["HostIP"]


def test_a_create_that_cannot_have_its_port_leaves_nothing(make, net):
    make(netin=[{"host_port": 12600}])
    before = oracle.snapshot(net)
    reply = net.client.request("POST", "/containers", {"handle": "half", "netin": [{}, {"host_port": 12600}]})
    assert "12600 is already mapped" in message(reply)
    oracle.settled(net, before)


def test_ports_and_rules_survive_a_hard_kill(start_server, make, outside):
    server = start_server(*DENIED)
    one = make(server=server)
    host, _ = net_in(one, 0, 80)
    net_out(one, protocol=1, networks=[network("8.8.8.8")], ports=[{"start": 80, "end": 80}])
    server.kill()
    server.start()
    one.client = server.client
    with internet.Peer(one.init_pid()):
        assert ask_host("127.0.0.1", host) == one.info()["HostIP"]
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS and refused(one, "8.8.8.8", 443)
    assert [p["HostPort"] for p in one.info()["MappedPorts"]] == [host]
    assert net_in(one)[0] == host + 1
    net_out(one, protocol=1, networks=[network("8.8.8.8")])
    assert says(one, "8.8.8.8", 443) == internet.HOST_ADDRESS


def test_a_container_does_not_get_to_a_neighbour_over_its_port(make):
    one, other = make(), make()
    host, _ = net_in(one, 0, 80)
    with internet.Peer(one.init_pid()):
        for address in (internet.HOST_ADDRESS, other.info()["HostIP"]):
            refused(other, address, host)


@pytest.mark.parametrize("body, text", [
    ({"host_port": 65536}, "host_port"), ({"container_port": -1}, "container_port"),
    ({"host_port": "80"}, "host_port"), ([], "expected an object")])
def test_ports_out_of_range_are_refused_by_name(make, body, text):
    assert text in message(post(make(), "in", body))


# ---- ways out ---------------------------------------------------------------------------------

def test_denied_networks_are_refused_at_once_and_the_rest_is_not(make, denying):
    one = make(server=denying)
    for address in ("8.8.8.8", "1.0.0.5", "9.9.9.9"):
        assert "refused" in refused(one, address)
    assert says(one, internet.ROUTER) == internet.HOST_ADDRESS


def test_a_rule_opens_its_protocol_its_range_and_its_ports(make, denying):
    one, other = make(server=denying), make(server=denying)
    net_out(one, protocol=1, networks=[network("8.8.8.0", "8.8.8.8")], ports=[{"start": 50, "end": 80}])
    assert says(one, "8.8.8.8", 80) == says(one, "8.8.8.8", 53) == internet.HOST_ADDRESS
    refused(one, "8.8.8.8", 443)
    refused(one, "1.0.0.5", 80)
    refused(other, "8.8.8.8", 80)
    assert internet.ask(one, "8.8.8.8", patience=0.5) is None
    net_out(one, protocol=2, networks=[network("8.8.8.8")], ports=[{"start": 53, "end": 53}])
    assert internet.ask(one, "8.8.8.8") == internet.HOST_ADDRESS
    assert one.sh("ping -c 1 -W 1 8.8.8.8")[0] != 0
    net_out(one, protocol=3, networks=[network("8.8.8.8")], icmps={"type": 8, "code": 0})
    assert one.sh("ping -c 1 -W 5 8.8.8.8")[0] == 0


def test_a_rule_without_networks_opens_what_is_denied_and_no_metadata(make, denying):
    one = make(server=denying)
    net_out(one)
    assert says(one, "8.8.8.8") == says(one, "1.0.0.5") == internet.HOST_ADDRESS
    refused(one, "169.254.169.254")
    refused(one, "9.9.9.9")


def test_a_rule_that_names_it_opens_metadata_but_nothing_that_is_restricted(make, denying):
    one = make(server=denying)
    net_out(one, networks=[network("169.254.169.254"), network("9.9.9.9")])
    assert says(one, "169.254.169.254") == internet.HOST_ADDRESS
    refused(one, "9.9.9.9")


def test_a_rule_opens_neither_a_neighbour_nor_the_host(make, denying):
    one, other = make(server=denying), make(server=denying)
    net_out(one, networks=[network("0.0.0.0", "255.255.255.255")])
    with internet.Peer(other.init_pid()):
        refused(one, other.info()["ContainerIP"])
    refused(one, one.info()["HostIP"], denying.client.address[1])


def test_a_rule_that_logs_lets_through_too(make, denying):
    one = make(server=denying)
    net_out(one, protocol=1, networks=[network("8.8.8.8")], log=True)
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS
    listing = subprocess.check_output(["nft", "list", "table", "inet", f"cloche-{denying.tag}"]).decode()
    assert re.search(r'ip daddr [^\n]*8\.8\.8\.8[^\n]*log prefix "cloche " accept', listing), listing
    assert oracle.rows(denying, "rules")[0].split("'")[1] in listing  # whose rule it is


def test_rules_in_bulk_come_all_or_not_at_all(make, denying):
    one = make(server=denying)
    good = {"protocol": 1, "networks": [network("8.8.8.8")]}
    reply = post(one, "out/bulk", [good, {"ports": [{"start": 1, "end": 2}]}])
    assert message(reply) == "Ports cannot be specified for Protocol ALL"
    refused(one, "8.8.8.8")
    many = {"protocol": 1, "networks": [network(f"8.1.{n}.1") for n in range(250)],
            "ports": [{"start": n, "end": n} for n in range(1, 30)]}
    assert "networks times ports" in message(post(one, "out/bulk", [good, many]))
    refused(one, "8.8.8.8")
    assert post(one, "out/bulk", [good, {"protocol": 2}]).status == 200
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS


def test_thousands_of_rules_go_in_and_out_again(make, denying):
    """The acknowledgements of so many changes would not fit into a socket, nor the changes into one of the usual
    size; and what is left of an answer must not be taken for that to the next request."""
    one = make(server=denying)
    for first in range(0, 200, 50):
        many = {"protocol": 1, "networks": [network(f"8.{m}.{n}.1") for n in range(20) for m in range(first, first + 50)]}
        assert post(one, "out", many).status == 200
    net_out(one, protocol=1, networks=[network("8.8.8.8")])
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    wait_until(lambda: one.sh("nc -w 1 8.8.8.8 80", user="root")[0] == 0, "the rules are back")
    assert "networks times ports" in message(post(one, "out", {"networks": [network(f"9.0.0.{n}") for n in range(200)]}))
    one.destroy()
    two = make(server=denying)
    refused(two, "8.8.8.8")


def test_who_asks_about_a_container_does_not_wait_for_its_rules(make, denying):
    """Nobody can write to the record now, so the rule is on its way until we let it."""
    one = make(server=denying)
    record = sqlite3.connect(denying.work / "state.db", isolation_level=None)
    record.execute("BEGIN IMMEDIATE")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            replies = [pool.submit(post, one, path, body) for path, body in (("out", {"protocol": 1}), ("in", {}))]
            wait_until(lambda: sleeps(denying), "one waits for the record")
            assert one.info()["MappedPorts"] == [] and one.handle in one.client.handles()
            assert not any(reply.done() for reply in replies)
        finally:
            record.execute("ROLLBACK")
            record.close()
        assert [reply.result(60).status for reply in replies] == [200, 200]
    assert len(one.info()["MappedPorts"]) == 1


def test_the_servers_own_ports_lead_to_the_server(make, start_server):
    one = make(server=start_server("--bind-port", "7777"))
    assert "the server's own" in message(post(one, "in", {"host_port": 7777, "container_port": 80}))
    assert one.client.ok("GET", "/ping") == {}


def test_rules_of_a_create_are_in_force_when_it_returns(make, denying):
    one = make(server=denying, netout_rules=[{"protocol": 1, "networks": [network("8.8.8.8")]}])
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS
    refused(one, "1.0.0.5")
    before = oracle.snapshot(denying)
    reply = denying.client.request("POST", "/containers", {"netout_rules": [{"protocol": 9}]})
    assert message(reply) == "invalid protocol: 9"
    oracle.settled(denying, before)


def test_a_flushed_table_gets_its_rules_and_ports_back(make, denying):
    one = make(server=denying)
    host, _ = net_in(one, 0, 80)
    net_out(one, protocol=1, networks=[network("8.8.8.8")])
    before = oracle.rule_elements(denying)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    wait_until(lambda: oracle.rule_elements(denying) == before, "elements and chains are back")
    wait_until(lambda: says(one, "8.8.8.8") == internet.HOST_ADDRESS, "what stands in the chains is back")
    with internet.Peer(one.init_pid()):
        assert ask_host("127.0.0.1", host)


@pytest.mark.parametrize("rule, text", [
    ({"protocol": 3, "ports": [{"start": 1, "end": 2}]}, "Ports cannot be specified for Protocol ICMP"),
    ({"ports": [{"start": 1, "end": 2}]}, "Ports cannot be specified for Protocol ALL"),
    ({"protocol": 4}, "invalid protocol: 4"),
    ({"networks": [{"start": "8.8.8.9", "end": "8.8.8.8"}]},
     "networks[0]: expected two addresses of one family, start not behind end"),
    ({"networks": [{"start": "8.8.8.8", "end": "fd00::1"}]},
     "networks[0]: expected two addresses of one family, start not behind end"),
    ({"networks": [{}]}, "networks[0]: expected two addresses of one family, start not behind end"),
    ({"networks": [{"start": "bogus"}]},
     "networks[0]: expected two addresses of one family, start not behind end"),
    ({"protocol": 1, "ports": [{"start": 2, "end": 1}]}, "ports[0]: start is behind end")])
def test_rules_that_cannot_be_meant_are_refused_in_words(make, rule, text):
    one = make()
    assert message(post(one, "out", rule)) == text
    assert message(post(one, "out/bulk", [rule])).endswith(text)


def test_a_rule_is_no_list_and_a_list_is_no_rule(make):
    one = make()
    assert message(post(one, "out", [])) == "body: expected a rule"
    assert message(post(one, "out/bulk", {})) == "body: expected a list of rules"
