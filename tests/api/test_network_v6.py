"""IPv6, where it is on: the same ways out and in, and the same closed doors."""
import ipaddress
import subprocess

import internet
import oracle
import pytest
from gardenlib import wait_until
from netfixtures import make, outside, refused, says  # noqa: F401 # fixtures, too
from serverproc import Server

GOOGLE = "2001:4860:4860::8888"
OPTIONS = ("--v6-enable", "--deny-network", "2001:4860::/32")


@pytest.fixture(scope="module")
def net(outside):
    one = Server("--v6-enable")
    yield one
    one.finish()


@pytest.fixture(scope="module")
def denying(outside):
    one = Server(*OPTIONS)
    yield one
    one.finish()


def address(one):
    return one.info()["ContainerIPv6"]


def gateway(one):
    return str(ipaddress.ip_address(address(one)) - 1)


def test_each_has_an_address_and_a_way_out_under_the_address_of_the_host(make):
    one = make()
    assert ipaddress.ip_address(address(one)) in ipaddress.ip_network("fd9c:31a6:c759::/64")
    assert address(one) in one.output("ip -6 -o addr show eth0")
    assert f"default via {gateway(one)} dev eth0" in one.output("ip -6 route")
    assert internet.ask(one, GOOGLE) == internet.HOST_ADDRESS_6
    assert says(one, GOOGLE) == internet.HOST_ADDRESS_6
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS


def test_neighbours_the_host_and_metadata_are_not_reached(make, net):
    one, other = make(), make()
    with internet.Peer(other.init_pid()):
        refused(one, address(other))
        refused(one, gateway(other))
    listener = internet.Listener("::")
    try:
        for host in (gateway(one), internet.HOST_ADDRESS_6):
            refused(one, host, listener.port)
        assert not listener.peers
    finally:
        listener.close()
    refused(one, "fd00:ec2::254")
    link = oracle.links(net)[0]
    fe80 = subprocess.check_output(["ip", "-6", "-o", "addr", "show", "dev", link, "scope", "link"]).decode().split()
    if fe80:
        refused(one, f"{fe80[3].split('/')[0]}%eth0", 22)


def test_a_resolver_at_an_address_of_metadata_is_asked_for_names_alone(start_server, make, outside):
    one = make(server=start_server("--v6-enable", "--dns-server", "fd00:ec2::254"))
    assert says(one, "fd00:ec2::254", 53) == internet.HOST_ADDRESS_6
    refused(one, "fd00:ec2::254", 80)


def test_a_spoofed_source_gets_nowhere(make):
    one = make(privileged=True)
    assert internet.ask(one, GOOGLE) == internet.HOST_ADDRESS_6
    spoofed = str(ipaddress.ip_address(address(one)) + 1000)
    one.output(f"ip -6 addr del {address(one)}/126 dev eth0; ip -6 addr add {spoofed}/126 dev eth0; "
               f"ip -6 route add {gateway(one)}/128 dev eth0; ip -6 route replace default via {gateway(one)} dev eth0")
    assert internet.ask(one, GOOGLE, patience=0.5) is None


def test_a_port_leads_in_from_outside(make, outside):
    one = make(netin=[{"host_port": 12800, "container_port": 80}])
    with internet.Peer(one.init_pid()):
        assert outside.run("nc", "-w", "5", internet.HOST_ADDRESS_6, "12800")[1].strip() == internet.ROUTER_6
        assert outside.run("nc", "-w", "5", internet.HOST_ADDRESS, "12800")[1].strip() == internet.ROUTER


def test_rules_open_what_is_denied(make, denying):
    one, two = make(server=denying), make(server=denying, netout_rules=[{}])
    assert internet.ask(one, GOOGLE, patience=0.5) is None
    refused(one, GOOGLE)
    assert says(two, GOOGLE) == internet.HOST_ADDRESS_6
    refused(two, "fd00:ec2::254")
    rule = {"protocol": 1, "networks": [{"start": GOOGLE, "end": GOOGLE}], "ports": [{"start": 80, "end": 80}]}
    assert one.client.request("POST", f"{one.path}/net/out", rule).status == 200
    assert says(one, GOOGLE) == internet.HOST_ADDRESS_6
    refused(one, GOOGLE, 443)


def test_siblings_of_a_subnet_reach_each_other(make):
    one, two = make(network="10.11.0.0/24"), make(network="10.11.0.0/24")
    with internet.Peer(two.init_pid()):
        assert says(one, address(two)) == address(one)
    assert says(one, GOOGLE) == internet.HOST_ADDRESS_6


def test_it_survives_a_kill_and_a_flush_and_leaves_nothing(start_server, make, outside):
    server = start_server("--v6-enable")

    def what_is_left():
        return oracle.links(server), oracle.rule_elements(server), oracle.addresses(server)

    nothing = what_is_left()
    one = make(server=server, netin=[{}], netout_rules=[{"log": True}])
    server.kill()
    server.start()
    one.client = server.client
    assert says(one, GOOGLE) == internet.HOST_ADDRESS_6
    elements = oracle.rule_elements(server)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    wait_until(lambda: oracle.rule_elements(server) == elements, "everything is back")
    assert says(one, GOOGLE) == internet.HOST_ADDRESS_6
    one.destroy()
    wait_until(lambda: what_is_left() == nothing, "nothing of it is left")
