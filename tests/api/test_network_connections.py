"""Connections that the kernel remembers: the next holder of an address or a port gets nothing of the last one's."""
import ipaddress
import subprocess

import internet
import pytest
from gardenlib import wait_until
from netfixtures import make, net, outside, says  # noqa: F401 # fixtures, too

FLOWS = "/proc/net/nf_conntrack"


def flows(address):
    """Those that name the address, at any end."""
    with open(FLOWS, encoding="ascii") as file:
        text = str(ipaddress.ip_address(address).exploded if ":" in address else address)
        return [line for line in file if f"={text} " in line]


@pytest.fixture
def theirs():
    """A connection of the host's own, which nobody may touch."""
    listener = internet.Listener("127.0.0.1")
    subprocess.run(["nc", "-w", "5", "127.0.0.1", str(listener.port)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    yield lambda: [line for line in flows("127.0.0.1") if f"port={listener.port} " in line]
    listener.close()


def test_those_of_an_address_are_forgotten_when_somebody_else_gets_it(make, theirs):
    one = make(network="10.20.0.2")
    assert internet.ask(one, "8.8.8.8") == internet.HOST_ADDRESS and says(one, "9.9.9.9") == internet.HOST_ADDRESS
    assert len(flows("10.20.0.2")) >= 2 and theirs()
    one.destroy()
    make(network="10.20.0.2")
    assert flows("10.20.0.2") == [] and theirs()


def test_those_of_an_address_that_nobody_takes_are_forgotten_too(make, theirs):
    one, other = make(), make()
    address, kept = one.info()["ContainerIP"], other.info()["ContainerIP"]
    for box in (one, other):
        assert internet.ask(box, "8.8.8.8") == internet.HOST_ADDRESS
    assert flows(address)
    one.destroy()
    wait_until(lambda: not flows(address), "they are forgotten")
    assert flows(kept) and theirs()


def test_those_of_a_port_are_forgotten_when_somebody_else_gets_it(make, outside):
    one = make(netin=[{"host_port": 12800, "container_port": 80}])
    address = one.info()["ContainerIP"]
    ask = ("nc", "-w", "5", "-p", "33000", internet.HOST_ADDRESS, "12800")
    with internet.Peer(one.init_pid()):
        assert outside.run(*ask)[1].strip() == internet.ROUTER
    assert flows(address)
    one.destroy()
    two = make(netin=[{"host_port": 12800, "container_port": 80}])
    assert not flows(address)
    with internet.Peer(two.init_pid()):
        assert outside.run(*ask)[1].strip() == internet.ROUTER


def test_what_a_dead_server_left_is_forgotten_at_the_next_start(start_server, outside):
    server = start_server()
    server.client.create("a")
    address = server.client.info("a")["ContainerIP"]
    server.client.create("b")
    kept = server.client.info("b")["ContainerIP"]
    for name in "ab":
        assert server.client.sh(name, "nc -w 5 8.8.8.8 80 </dev/null")[1].decode().strip() == internet.HOST_ADDRESS
    server.client.destroy("a")
    server.kill()
    assert flows(address)
    server.start()
    wait_until(lambda: not flows(address), "the flows of an address that nobody has")
    assert flows(kept)


def test_ipv6(start_server, make, outside):
    server = start_server("--v6-enable")
    one = make(server=server, network="10.21.0.2")
    address = one.info()["ContainerIPv6"]
    assert internet.ask(one, "2001:4860:4860::8888") == internet.HOST_ADDRESS_6
    assert flows(address)
    one.destroy()
    two = make(server=server, network="10.21.0.2")
    assert two.info()["ContainerIPv6"] == address and not flows(address)
