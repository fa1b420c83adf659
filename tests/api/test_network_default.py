"""The network of a container that asks for nothing: its address, the way out, and what it does not reach."""
import concurrent.futures
import ipaddress
import re
import subprocess
import threading

import internet
import oracle
import pytest
from gardenlib import wait_until
from netfixtures import make, net, outside, refused, says  # noqa: F401 # fixtures, too

# ---- what it looks like -----------------------------------------------------------------------

def test_each_has_an_address_of_the_pool_and_a_gateway(make, net):
    pool = ipaddress.ip_network(net.network)
    seen = set()
    for one in (make(), make()):
        info = one.info()
        inside = ipaddress.ip_interface(one.output("ip -4 -o addr show eth0").split()[3])
        assert str(inside.ip) == info["ContainerIP"] and inside.network.prefixlen == 30
        assert inside.ip in pool and str(inside.ip - 1) == info["HostIP"]
        assert one.output("ip route").splitlines()[0].startswith(f"default via {info['HostIP']} dev eth0")
        assert info["ExternalIP"] == internet.HOST_ADDRESS and info["MappedPorts"] == []
        seen.add(inside.network)
    assert len(seen) == 2


def test_localhost_its_own_name_and_its_gateway_answer(make):
    one = make()
    for name in ("localhost", "127.0.0.1", one.handle, one.info()["HostIP"]):
        assert one.sh(f"ping -c 1 -W 5 {name}")[0] == 0, name
    assert subprocess.run(["ping", "-c", "1", "-W", "5", one.info()["ContainerIP"]], check=False,
                          stdout=subprocess.DEVNULL).returncode == 0


def test_hosts_hostname_and_resolv_conf_are_its_own(make, net, root):
    one = make(rootfs=str(root))
    address, name = one.info()["ContainerIP"], one.handle[-49:]
    assert one.output("cat /etc/hosts") == f"127.0.0.1 localhost\n{address} {name}\n"
    assert one.output("cat /etc/hostname") == name + "\n"
    assert "nameserver" in one.output("cat /etc/resolv.conf")
    for path in ("hosts", "hostname", "resolv.conf"):
        assert one.sh(f"echo 'root was here' >> /etc/{path}")[0] == 0
        status, _, err = one.sh(f"echo 'alice too' >> /etc/{path}", user="alice")
        assert status == 1 and b"Permission denied" in err
    assert "root was here" not in make(rootfs=str(root)).output("cat /etc/hosts /etc/resolv.conf")


def test_without_ipv6_there_is_none_but_on_the_loopback(make):
    one = make()
    assert one.output("ip -6 -o addr show eth0") == ""
    assert "::1" in one.output("ip -6 -o addr show lo")


# ---- where it gets to, and where not ----------------------------------------------------------

def test_the_outside_is_reached_under_the_address_of_the_host(make):
    one = make()
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS
    assert internet.ask(one, "8.8.8.8") == internet.HOST_ADDRESS
    assert one.sh("ping -c 1 -W 5 8.8.8.8")[0] == 0


def test_a_neighbour_is_not_reached(make):
    one, other = make(), make()
    address = other.info()["ContainerIP"]
    with internet.Peer(other.init_pid()):
        refused(one, address)
        refused(one, other.info()["HostIP"])
        assert internet.ask(one, address, patience=0.5) is None
    assert one.sh(f"ping -c 1 -W 1 {address}")[0] != 0
    assert one.sh("ping -c 1 -W 1 8.8.8.8")[0] == 0


@pytest.mark.parametrize("address", ["HostIP", internet.HOST_ADDRESS])
def test_the_host_is_not_reached(make, address):
    one = make()
    address = one.info().get(address, address)
    listener = internet.Listener("0.0.0.0")
    try:
        refused(one, address, listener.port)
        assert not listener.peers
    finally:
        listener.close()


def test_our_own_ports_are_not_reached(make, net):
    one = make()
    for address in (one.info()["HostIP"], internet.HOST_ADDRESS, "127.0.0.1"):
        for port in (net.client.address[1], net.volumes.address[1]):
            refused(one, address, port)


@pytest.mark.parametrize("address", ["169.254.169.254", "168.63.129.16"])
def test_metadata_services_are_not_reached(make, outside, address):
    assert outside.run("ping", "-c", "1", address)[0] == 0
    assert refused(make(), address)


def test_the_loopback_of_the_host_is_out_of_reach_over_the_gateway(make):
    """T-H3, with what a container may not do at all: a route for 127/8."""
    one = make(privileged=True)
    listener = internet.Listener("127.0.0.1")
    try:
        one.output("sysctl -w net.ipv4.conf.all.route_localnet=1; ip addr del 127.0.0.1/8 dev lo; "
                   f"ip route add 127.0.0.0/8 via {one.info()['HostIP']}")
        refused(one, "127.0.0.1", listener.port)
        assert not listener.peers
    finally:
        listener.close()


# ---- life -------------------------------------------------------------------------------------

def test_nothing_of_it_is_left_when_it_is_gone(make, net):
    before = oracle.snapshot(net)
    one = make()
    assert oracle.links(net) and oracle.addresses(net)
    one.destroy()
    oracle.settled(net, before)


def test_many_at_once_never_share_an_address(net):
    """25 clients, 10 containers each, one after the other."""
    before = oracle.snapshot(net)
    held, clashes, failures, lock = set(), [], [], threading.Lock()

    def work(n):
        try:
            for i in range(10):
                handle = net.client.create(f"many-{n}-{i}")
                address = net.client.info(handle)["ContainerIP"]
                with lock:
                    if address in held:
                        clashes.append(address)
                    held.add(address)
                    held.discard("")
                with lock:
                    held.discard(address)
                net.client.destroy(handle)
        except Exception as failure:  # noqa: BLE001 # told by the main thread
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and not clashes
    oracle.settled(net, before)


def test_two_hundred_live_at_once(server):
    """Each with a network of its own, all different; and then none."""
    before = oracle.snapshot(server)
    handles = [f"live-{n}" for n in range(200)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(server.client.create, handles))
        infos = server.client.ok("GET", "/containers/bulk_info?handles=" + ",".join(handles))
        addresses = {infos[handle]["Info"]["ContainerIP"] for handle in handles}
        assert len(addresses) == 200 and "" not in addresses
        assert len(oracle.links(server)) == 200 and set(handles) <= set(server.client.handles())
        for handle in handles[::50]:
            assert infos[handle]["Info"]["ContainerIP"] in server.client.output(handle, "ip -4 -o addr show eth0")
        list(pool.map(server.client.destroy, handles))
    oracle.settled(server, before)


def test_three_hundred_one_after_the_other(server):
    """More than the pool has addresses: each comes round again."""
    before = oracle.snapshot(server)
    seen = set()
    for n in range(300):
        handle = server.client.create(f"cycle-{n}")
        seen.add(server.client.info(handle)["ContainerIP"])
        server.client.destroy(handle)
    assert 200 < len(seen) <= 256 and "" not in seen
    oracle.settled(server, before)


def test_addresses_survive_a_restart_and_are_not_given_out_again(start_server, outside):
    one = start_server("--network-pool", "10.77.0.0/29")
    one.client.create("first")
    address = one.client.info("first")["ContainerIP"]
    one.kill()
    one.start()
    assert one.client.info("first")["ContainerIP"] == address
    assert one.client.sh("first", "ping -c 1 -W 5 8.8.8.8")[0] == 0
    one.client.create("second")
    assert one.client.info("second")["ContainerIP"] not in ("", address)
    reply = one.client.request("POST", "/containers", {"handle": "third"})
    assert reply.status == 500 and reply.json["Message"] == "insufficient subnets remaining in the pool"
    one.client.destroy("first")
    one.client.create("third")
    assert one.client.info("third")["ContainerIP"] == address
    assert one.client.sh("third", "ping -c 1 -W 5 8.8.8.8")[0] == 0


def test_what_a_dead_server_left_is_swept_and_what_is_foreign_is_not(start_server):
    one = start_server()
    one.client.create("gone")
    (link,) = oracle.links(one)
    foreign = f"cl{one.tag}-0affffff"
    subprocess.run(["ip", "link", "add", foreign, "type", "bridge"], check=True)
    try:
        one.kill()
        one.start("--destroy-containers-on-startup")
        wait_until(lambda: oracle.links(one) == [foreign], "our link is gone, the other is there")
        assert link != foreign and not oracle.addresses(one)
    finally:
        subprocess.run(["ip", "link", "del", foreign], check=True)


def test_a_foreign_link_of_our_name_is_left_alone(start_server):
    """T-H9: the address that would need the name is passed over."""
    foreign = "clzy-0a4d0002"
    subprocess.run(["ip", "link", "add", foreign, "type", "bridge"], check=True)
    try:
        one = start_server("--network-pool", "10.77.0.0/28", "--network-tag", "zy")
        one.client.create("a")
        assert one.client.info("a")["ContainerIP"] not in ("", "10.77.0.2"), one.log_text()
        one.client.destroy("a")
        one.terminate()
        subprocess.run(["ip", "link", "show", foreign], check=True, stdout=subprocess.DEVNULL)
    finally:
        subprocess.run(["ip", "link", "del", foreign], check=True)


# ---- the rules --------------------------------------------------------------------------------

def flush():
    subprocess.run(["nft", "flush", "ruleset"], check=True)


def test_a_table_that_somebody_flushed_is_there_again(make, net):
    """T-H4: nothing passes meanwhile, and everything afterwards."""
    one, other = make(), make()
    before = oracle.rule_elements(net)
    flush()
    wait_until(lambda: oracle.rule_elements(net) == before, "the table is back")
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS
    assert refused(one, other.info()["ContainerIP"])
    wait_until(lambda: "cloche.table-repaired" in net.log_text(), "it is told")


def test_a_container_made_after_a_flush_is_filtered(make, net):
    flush()
    one, other = make(), make()
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS
    assert refused(one, other.info()["ContainerIP"])


def test_a_firewall_that_drops_what_is_forwarded_is_named(start_server, outside):
    subprocess.run(["iptables-nft", "-P", "FORWARD", "DROP"], check=True)
    try:
        one = start_server()
        (line,) = [x for x in one.log_lines() if x["message"] == "cloche.firewall-drops-forwarded"]
        assert line["data"]["table"] == "filter" and f"cl{one.tag}-*" in line["data"]["to-do"]
        one.client.create("a")
        assert one.client.sh("a", "ping -c 1 -W 1 8.8.8.8")[0] != 0
        for end in ("-i", "-o"):
            subprocess.run(["iptables-nft", "-I", "FORWARD", end, f"cl{one.tag}-+", "-j", "ACCEPT"], check=True)
        assert one.client.sh("a", "ping -c 1 -W 5 8.8.8.8")[0] == 0
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "filter"], check=True)
    assert "cloche.firewall-drops-forwarded" not in start_server().log_text()


def test_firewalld_is_named_by_its_name(start_server, outside):
    """Its chain accepts by its policy; what rejects is its last rule."""
    subprocess.run(["nft", "add table inet firewalld; add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }; add rule inet firewalld filter_FORWARD reject"],
                   check=True)
    try:
        one = start_server()
        (line,) = [x for x in one.log_lines() if x["message"] == "cloche.firewall-drops-forwarded"]
        assert line["data"]["table"] == "firewalld"
    finally:
        subprocess.run(["nft", "delete", "table", "inet", "firewalld"], check=True)


def test_rules_of_others_stay_as_they_are(start_server):
    subprocess.run(["nft", "add table inet theirs; add chain inet theirs c { type filter hook forward priority 5; }; "
                    "add rule inet theirs c counter accept"], check=True)
    listing = ["nft", "-s", "list", "table", "inet", "theirs"]
    try:
        before = subprocess.check_output(listing)
        one = start_server()
        one.client.create("a")
        one.client.destroy("a")
        one.terminate()
        assert subprocess.check_output(listing) == before
    finally:
        subprocess.run(["nft", "delete", "table", "inet", "theirs"], check=True)


def host_network():
    """Everything of this namespace that a server could change, by kind; without its own tables. Forwarding is on
    already: it is what a server may change, and much else of the kernel's follows from it."""
    def told(*command):
        return subprocess.check_output(command, stderr=subprocess.DEVNULL).decode().splitlines()

    tables = [line.split()[1:] for line in told("nft", "list", "tables")]
    rules = {f"{family} {name}": told("nft", "-s", "list", "table", family, name)
             for family, name in tables if not name.startswith("cloche-")}
    sysctls = [line for line in told("sysctl", "-a", "--pattern", r"^net\.")
               if not re.search(r"nf_conntrack_count|\.cl..-|random|net\.netfilter\.nf_conntrack_(?:events|acct)|max_orphans", line)]
    return {"rules": rules, "ip rule": told("ip", "rule"), "ip -6 rule": told("ip", "-6", "rule"),
            "routes": [line for line in told("ip", "-4", "route", "show", "table", "all") if not re.search(r"dev cl..-", line)],
            "routes 6": [line for line in told("ip", "-6", "route", "show", "table", "all") if not re.search(r"dev cl..-|fe80::", line)],
            "links": [line.split(": ")[1] for line in told("ip", "-o", "link") if not re.search(r": cl..-", line)],
            "sysctls": sysctls}


def calm_host_network():
    """A link that comes or goes while its directory is read hides another one there: read until it is told twice."""
    return wait_until(lambda: (now := host_network()) == host_network() and now, "the host's network is at rest")


def test_the_hosts_network_is_the_same_before_and_after(start_server, outside):
    subprocess.run(["nft", "add table inet theirs; add chain inet theirs c { type filter hook forward priority 5; }; "
                    "add rule inet theirs c counter accept"], check=True)
    subprocess.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"], check=True)
    try:
        before = calm_host_network()
        assert before["links"] and len(before["sysctls"]) > 300 and before["rules"]
        one = start_server("--v6-enable", "--deny-network", "8.0.0.0/8")
        for handle, more in (("a", {}), ("b", {"network": "10.60.0.0/24", "netin": [{}], "netout_rules": [{"protocol": 1}]}),
                             ("c", {"privileged": True, "netin": [{"host_port": 12900}]})):
            one.client.create(handle, **more)
            assert one.client.sh(handle, "ping -c 1 -W 5 9.9.9.9")[0] == 0
        during = calm_host_network()
        for handle in "abc":
            one.client.destroy(handle)
        one.terminate()
        after = calm_host_network()
        for kind, state in before.items():
            assert during[kind] == state, f"{kind} while it ran"
            assert after[kind] == state, f"{kind} afterwards"
    finally:
        subprocess.run(["nft", "delete", "table", "inet", "theirs"], check=True)


def test_a_second_server_of_the_same_tag_has_no_network_and_says_why(start_server):
    first = start_server()
    second = start_server("--network-tag", first.tag)
    second.client.create("a")
    assert second.client.info("a")["ContainerIP"] == ""
    (line,) = [x for x in second.log_lines() if x["message"] == "cloche.no-network"]
    assert "another cloche" in line["data"]["reason"]
    first.client.create("b")
    assert first.client.info("b")["ContainerIP"]
