"""Networks that a create names: fixed addresses, subnets that containers share, and the words of what cannot be."""
import subprocess

import internet
import oracle
import pytest
from gardenlib import wait_until
from netfixtures import make, net, outside, refused, says  # noqa: F401 # fixtures, too


def refuse(server, network):
    reply = server.client.request("POST", "/containers", {"network": network})
    assert reply.status == 500, reply
    return reply.json["Message"]


def address(one):
    return one.info()["ContainerIP"]


def bridges(server):
    return [name for name in oracle.links(server) if name.startswith(f"cl{server.tag}-b")]


def test_an_address_alone_is_one_of_a_subnet_of_four(make, net):
    one = make(network="10.3.0.2")
    assert address(one) == "10.3.0.2" and one.info()["HostIP"] == "10.3.0.1"
    assert "10.3.0.2/30" in one.output("ip -4 -o addr show eth0")
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS
    assert "10.3.0.2" in one.output("cat /etc/hosts")
    assert refuse(net, "10.3.0.2") == "the requested IP is already allocated"


def test_siblings_of_a_subnet_reach_each_other_and_nobody_else(make):
    one, two = make(network="10.4.0.0/24"), make(network="10.4.0.0/24")
    three, stranger = make(network="10.4.0.77/24"), make()
    assert [address(x) for x in (one, two, three)] == ["10.4.0.2", "10.4.0.3", "10.4.0.77"]
    with internet.Peer(two.init_pid()):
        assert says(one, "10.4.0.3") == "10.4.0.2" and says(three, "10.4.0.3") == "10.4.0.77"
        refused(stranger, "10.4.0.3")
    with internet.Peer(stranger.init_pid()):
        refused(one, address(stranger))
    refused(one, one.info()["HostIP"])
    assert says(three, "8.8.8.8") == internet.HOST_ADDRESS


def test_a_survivor_of_a_subnet_goes_on_and_the_last_takes_the_bridge_along(make, net):
    before = oracle.snapshot(net)
    one = make(network="10.5.0.0/24")
    for _ in range(3):
        other = make(network="10.5.0.0/24")
        assert address(other) == "10.5.0.3"
        other.destroy()
        assert says(one, "8.8.8.8") == internet.HOST_ADDRESS
    assert len(bridges(net)) == 1
    one.destroy()
    oracle.settled(net, before)
    again = make(network="10.5.0.0/24")
    assert address(again) == "10.5.0.2" and says(again, "8.8.8.8") == internet.HOST_ADDRESS


def test_what_cannot_be_is_refused_and_nothing_is_taken(make, net):
    make(network="10.6.0.2/24")
    before = oracle.snapshot(net)
    pool = net.network
    inside = pool.replace(".0/22", ".4/30")
    for network, text in (
            ("10.6.0.2/24", "the requested IP is already allocated"),
            ("10.6.0.1/24", "a container IP must not equal the gateway IP"),
            ("10.6.0.255/24", "a container IP must not equal the broadcast IP"),
            ("10.6.0.128/25",
             "the requested subnet (10.6.0.128/25) overlaps an existing subnet (10.6.0.0/24)"),
            (inside, f"the requested subnet ({inside}) overlaps the dynamic allocation range ({pool})"),
            ("10.7.0.0/31", "insufficient IPs remaining in the pool"),
            ("bogus", "invalid CIDR address: bogus/30"), ("bogus/30", "invalid CIDR address: bogus/30"),
            ("10.7.0.0/33", "invalid CIDR address: 10.7.0.0/33"),
            ("127.0.0.2", "network: 127.0.0.0/30 is no network for containers")):
        assert refuse(net, network) == text
    make(network="10.7.0.0/30")
    assert refuse(net, "10.7.0.0/30") == "insufficient IPs remaining in the pool"
    net.client.request("DELETE", "/containers/" + net.client.handles()[-1])
    assert oracle.addresses(net) and before["addresses"]


def test_a_subnet_survives_a_hard_kill(start_server, make, outside):
    server = start_server()
    one, two = make(server=server, network="10.8.0.0/24"), make(server=server, network="10.8.0.0/24")
    server.kill()
    server.start()
    one.client = two.client = server.client
    assert [address(one), address(two)] == ["10.8.0.2", "10.8.0.3"]
    assert refuse(server, "10.8.0.2/24") == "the requested IP is already allocated"
    with internet.Peer(two.init_pid()):
        assert says(one, "10.8.0.3") == "10.8.0.2"
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS
    two.destroy()
    assert address(make(server=server, network="10.8.0.0/24")) == "10.8.0.3"


def test_a_bridge_without_containers_is_swept_at_start(start_server):
    server = start_server()
    server.client.create("a", network="10.9.0.0/24")
    assert bridges(server)
    server.kill()
    server.start("--destroy-containers-on-startup")
    wait_until(lambda: not oracle.links(server), "the bridge is gone")


def test_a_port_leads_into_a_subnet_too(make, outside):
    one = make(network="10.10.0.0/24", netin=[{"host_port": 12700, "container_port": 80}])
    with internet.Peer(one.init_pid()):
        assert outside.run("nc", "-w", "5", internet.HOST_ADDRESS, "12700")[1].strip() == internet.ROUTER
        asked = subprocess.run(["nc", "-w", "5", "127.0.0.1", "12700"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, check=False)
        assert asked.stdout.decode().strip() == "10.10.0.1"


@pytest.mark.parametrize("mtu", ["1400", "1500"])
def test_both_ends_have_the_mtu_that_was_asked_for(start_server, mtu):
    server = start_server("--mtu", mtu)
    server.client.create("a")
    assert server.client.output("a", "cat /sys/class/net/eth0/mtu").strip() == mtu
    (link,) = oracle.links(server)
    assert f"mtu {mtu} " in subprocess.check_output(["ip", "link", "show", link]).decode()


def test_the_mtu_is_that_of_the_way_out(start_server, outside):
    subprocess.run(["ip", "link", "set", internet.UPLINK, "mtu", "1420"], check=True)
    try:
        server = start_server()
        server.client.create("a")
        assert server.client.output("a", "cat /sys/class/net/eth0/mtu").strip() == "1420"
    finally:
        subprocess.run(["ip", "link", "set", internet.UPLINK, "mtu", "1500"], check=True)


def test_name_servers_and_hosts_as_options_say(start_server):
    server = start_server("--dns-server", "1.2.3.4", "--additional-dns-server", "5.6.7.8",
                          "--additional-host-entry", "1.1.1.1 one uno", "--additional-host-entry", "2.2.2.2 two",
                          "--external-ip", "203.0.113.9")
    server.client.create("a")
    lines = server.client.output("a", "cat /etc/resolv.conf").splitlines()
    assert [x for x in lines if x.startswith("nameserver")] == ["nameserver 1.2.3.4", "nameserver 5.6.7.8"]
    info = server.client.info("a")
    assert server.client.output("a", "cat /etc/hosts").splitlines() == [
        "127.0.0.1 localhost", f"{info['ContainerIP']} a", "1.1.1.1 one uno", "2.2.2.2 two"]
    assert info["ExternalIP"] == "203.0.113.9"


METADATA = "169.254.169.254"


def test_a_resolver_at_a_link_local_address_is_asked_for_names_alone(start_server, make, outside):
    """As clouds have it, beside their metadata at the same address."""
    one = make(server=start_server("--dns-server", METADATA))
    assert internet.ask(one, METADATA) == internet.HOST_ADDRESS and says(one, METADATA, 53) == internet.HOST_ADDRESS
    refused(one, METADATA, 80)
    refused(one, METADATA, 443)
    refused(one, "168.63.129.16", 53)


@pytest.mark.parametrize("option", ["--deny-network", "--restricted-network"])
def test_a_resolver_in_a_network_that_is_closed_is_not_reached(start_server, make, outside, option):
    one = make(server=start_server("--dns-server", METADATA, option, "169.254.0.0/16"))
    refused(one, METADATA, 53)


@pytest.mark.parametrize("upstream", ["", "nameserver 9.9.9.9"])
def test_a_resolver_on_the_host_s_loopback_is_replaced(start_server, tmp_path, upstream):
    """By those that systemd-resolved asks, else by the host as containers see it."""
    own = tmp_path / "resolv.conf"
    own.write_text("nameserver 127.0.0.53\nsearch example.org\n")
    resolved = "/run/systemd/resolve"
    with_it = ("unshare", "-m", "--propagation", "private", "sh", "-c",
               f"mount --bind {own} /etc/resolv.conf && mount -t tmpfs run /run && mkdir -p {resolved} && "
               f"echo '{upstream}' >{resolved}/resolv.conf && exec \"$@\"", "sh")
    server = start_server(prefix=with_it)
    server.client.create("a")
    words = server.client.output("a", "cat /etc/resolv.conf")
    host = server.client.ok("GET", "/containers/a/info")["HostIP"]
    assert words == (f"{upstream}\n" if upstream else f"nameserver {host}\nsearch example.org\n")


def test_resolvers_are_those_that_the_host_has_now(start_server, make, outside, tmp_path):
    own = tmp_path / "resolv.conf"
    own.write_text("nameserver 8.8.8.8\nnameserver 0.0.0.0/0\n")
    with_it = ("unshare", "-m", "sh", "-c", f"mount --bind {own} /etc/resolv.conf && exec \"$@\"", "sh")
    server = start_server(prefix=with_it)
    one = make(server=server)
    refused(one, METADATA, 53)
    own.write_text(f"nameserver {METADATA}\n")
    two = make(server=server)
    assert two.output("cat /etc/resolv.conf") == f"nameserver {METADATA}\n"
    assert says(two, METADATA, 53) == internet.HOST_ADDRESS
    refused(two, METADATA, 80)
    own.write_text("nameserver 8.8.8.8\n")
    make(server=server)
    refused(two, METADATA, 53)


def test_the_capacity_is_that_of_the_pool(start_server):
    server = start_server("--network-pool", "10.77.0.0/28")
    assert server.client.ok("GET", "/capacity")["max_containers"] == 4
    server.terminate()
    server.start("--max-containers", "3")
    assert server.client.ok("GET", "/capacity")["max_containers"] == 3


def test_a_pool_that_is_moved_around_a_named_subnet_leaves_it_alone(start_server, make, outside):
    server = start_server("--network-pool", "10.50.0.0/24")
    one = make(server=server, network="10.51.0.6/30")
    server.kill()
    server.args = ("--network-pool", "10.51.0.0/28")
    server.start()
    one.client = server.client
    others = [make(server=server) for _ in range(3)]
    assert sorted(address(x) for x in others) == ["10.51.0.10", "10.51.0.14", "10.51.0.2"]
    assert refuse(server, "") == "insufficient subnets remaining in the pool"
    for box in (one, *others):
        assert says(box, "8.8.8.8") == internet.HOST_ADDRESS
