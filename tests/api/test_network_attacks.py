"""What a container, or worse, somebody with every right in its network namespace, sends and should not."""
import subprocess

import internet
import oracle
import pytest
from netfixtures import make, net, outside, refused, says  # noqa: F401 # fixtures, too

# A UDP datagram with a source address and port of our choice.
SPOOF = """
import socket, struct, sys
source, port, target = sys.argv[1], int(sys.argv[2]), sys.argv[3]
udp = struct.pack("!HHHH", port, 53, 12, 0) + b"fake"
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 7, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for _ in range(3):
    sock.sendto(head + udp, (target, 0))
"""

# Waits for a datagram that it did not ask for; then asks for one itself.
VICTIM = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 5555))
print("here", flush=True)
sys.stdin.readline()
sock.sendto(b"own", ("8.8.8.8", 53))
sock.settimeout(20)
print(sock.recv(100), flush=True)
sock.settimeout(0.3)
try:
    print(sock.recv(100), flush=True)
except TimeoutError:
    print("nothing more", flush=True)
"""

# Whole frames, from addresses that are somebody else's: replies that nobody asked for, requests, router
# advertisements, and plain IP.
FRAMES = """
import socket, struct, sys
gateway, other, own = (socket.inet_aton(x) for x in sys.argv[1:4])
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
mac = b"\\x02\\x66\\x66\\x66\\x66\\x66"
everybody = b"\\xff" * 6
def arp(op, sender, target):
    sock.send(everybody + mac + b"\\x08\\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, op) + mac + sender + mac + target)
for sender in (gateway, other, socket.inet_aton("8.8.8.8")):
    arp(2, sender, sender)
    arp(2, sender, gateway)
    arp(1, sender, gateway)
source = socket.inet_pton(socket.AF_INET6, "fe80::66")
nodes = socket.inet_pton(socket.AF_INET6, "ff02::1")
body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\\x03\\x04\\x40\\xc0" + struct.pack("!III", 9999, 9999, 0) \\
    + socket.inet_pton(socket.AF_INET6, "2001:db8:66::")
pseudo = source + nodes + struct.pack("!II", len(body), 58) + body
total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
while total >> 16:
    total = (total & 0xffff) + (total >> 16)
body = body[:2] + struct.pack("!H", ~total & 0xffff) + body[4:]
for _ in range(3):
    sock.send(b"\\x33\\x33\\x00\\x00\\x00\\x01" + mac + b"\\x86\\xdd" + struct.pack("!IHBB", 6 << 28, len(body), 58, 255)
              + source + nodes + body)
print("sent")
"""


def test_a_source_address_of_a_neighbour_gets_nowhere(make):
    one, victim = make(), make()
    process = subprocess.Popen(["nsenter", "-t", str(victim.init_pid()), "-n", "python3", "-c", VICTIM],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"here\n"
    status, out = internet.inside(one, SPOOF, victim.info()["ContainerIP"], "5555", "8.8.8.8")
    assert status == 0, out
    heard = process.communicate(b"\n", timeout=60)[0].decode().splitlines()
    assert heard == [repr(f"{internet.HOST_ADDRESS}\n".encode()), "nothing more"]


# A sibling at the same bridge: frames under its hardware address, packets and answers to ARP under its address, and
# word to the neighbours, by IPv4 and IPv6, that the address is ours now.
SIBLING = """
import socket, struct, sys
mac, own_mac, target_mac = (bytes.fromhex(x.replace(":", "")) for x in sys.argv[1:4])
address, own, target = (socket.inet_aton(x) for x in sys.argv[4:7])
address_6, own_6 = (socket.inet_pton(socket.AF_INET6, x) if x else b"" for x in sys.argv[7:9])
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
def total(data):
    words = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while words >> 16:
        words = (words & 0xffff) + (words >> 16)
    return struct.pack("!H", ~words & 0xffff)
def packet(source):
    udp = struct.pack("!HHHH", 7, 5555, 12, 0) + b"fake"
    head = struct.pack("!BBHHHBB2s4s4s", 0x45, 0, 20 + len(udp), 7, 0, 64, 17, b"\\0\\0", source, target)
    return b"\\x08\\x00" + head[:10] + total(head) + head[12:] + udp
def arp(sender_mac, sender):
    return b"\\x08\\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 2) + sender_mac + sender + target_mac + target
def advert(source):
    nodes = socket.inet_pton(socket.AF_INET6, "ff02::1")
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + address_6 + b"\\x02\\x01" + own_mac
    body = body[:2] + total(source + nodes + struct.pack("!II", len(body), 58) + body) + body[4:]
    return b"\\x86\\xdd" + struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + nodes + body
for _ in range(3):
    sock.send(target_mac + mac + packet(own))
    sock.send(target_mac + own_mac + packet(address))
    sock.send(target_mac + own_mac + arp(own_mac, address))
    sock.send(target_mac + own_mac + arp(mac, own))
    if address_6:
        for source in (own_6, socket.inet_pton(socket.AF_INET6, "fe80::66")):
            sock.send(b"\\x33\\x33\\0\\0\\0\\x01" + own_mac + advert(source))
print("sent")
"""

TELL = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"last", (sys.argv[1], 5555))
"""

# Tells each datagram that it gets, and from whom, until one says that it was the last.
HEAR = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 5555))
print("here", flush=True)
while True:
    data, address = sock.recvfrom(100)
    print(address[0], data.decode(), flush=True)
    if data == b"last":
        break
"""


def lines(*command):
    """Without the uplink's link-local address, which comes late."""
    return [line for line in subprocess.check_output(command).decode().splitlines()
            if not ("fe80:" in line and internet.UPLINK in line)]


def test_frames_of_others_change_nothing_on_the_host(make, net):
    """T-H2."""
    one, other = make(), make()
    for container in (one, other):
        assert says(container, "8.8.8.8")
    addresses = [one.info()["HostIP"], other.info()["ContainerIP"], one.info()["ContainerIP"]]

    def state():
        ours = subprocess.check_output(["ip", "-o", "neigh", "show", "nud", "all"]).decode().splitlines()
        return (sorted(" ".join(line.split()[:5]) for line in ours if "02:66" in line or addresses[1] in line),
                lines("ip", "-6", "route"), lines("ip", "route"), lines("ip", "-6", "-o", "addr"))

    oracle.wait_for_pool(net)
    before = state()
    assert internet.inside(one, FRAMES, *addresses) == (0, "sent\n")
    assert says(other, "8.8.8.8") == internet.HOST_ADDRESS
    assert state() == before
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS


def test_no_abstract_socket_of_ours_is_there(net):
    """T-H1"""
    names = [line.split()[-1] for line in oracle.read("/proc/net/unix").splitlines() if "@" in line]
    assert not [name for name in names if "cloche" in name]


def test_a_container_on_the_host_with_host_access_reaches_all_but_our_ports(start_server, make, outside):
    import socket
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    server = start_server("--allow-host-access", "--bind-ip", "0.0.0.0", "--bind-port", str(port))
    one = make(server=server)
    listener = internet.Listener("0.0.0.0")
    try:
        assert says(one, one.info()["HostIP"], listener.port) == "listener"
        assert says(one, internet.HOST_ADDRESS, listener.port) == "listener"
        for address in (one.info()["HostIP"], internet.HOST_ADDRESS):
            refused(one, address, port)
    finally:
        listener.close()


def test_a_hermetic_container_has_a_loopback_only(start_server, make, outside):
    server = start_server("--hermetic-without-netout")
    one, two = make(server=server), make(server=server, netout_rules=[{}])
    assert one.output("ls /sys/class/net").split() == ["lo"] and one.info()["ContainerIP"] == ""
    assert one.output("cat /etc/resolv.conf") == "" and one.sh("ping -c 1 -W 5 localhost")[0] == 0
    refused(one, "8.8.8.8")
    assert says(two, "8.8.8.8") == internet.HOST_ADDRESS
    for more, field in (({"netin": [{}]}, "netin"), ({"network": "10.0.0.0/24"}, "network")):
        reply = server.client.request("POST", "/containers", more)
        assert reply.status == 500 and reply.json["Message"].startswith(f"{field}: a container without netout_rules")
    reply = server.client.request("POST", f"{one.path}/net/in", {})
    assert reply.status == 501 and "loopback only" in reply.json["Message"]


def test_without_a_network_there_is_a_loopback_and_a_reason(start_server, make):
    server, second = start_server("--network-tag", "zz"), start_server("--network-tag", "zz")
    one = make(server=second)
    assert one.output("ls /sys/class/net").split() == ["lo"]
    for path, body in (("net/in", {}), ("net/out", {}), ("net/out/bulk", [{}])):
        reply = second.client.request("POST", f"{one.path}/{path}", body)
        assert reply.status == 501 and "another cloche" in reply.json["Message"], reply
    reply = second.client.request("POST", "/containers", {"network": "10.1.0.0/24"})
    assert reply.status == 501 and "another cloche" in reply.json["Message"]
    assert make(server=server).info()["ContainerIP"]


def sysctl(link, name):
    return oracle.read(f"/proc/sys/net/ipv6/conf/{link}/{name}").strip()


@pytest.mark.parametrize("options", [(), ("--v6-enable",)], ids=["IPv4", "IPv6"])
def test_the_hosts_ends_listen_to_no_router_and_have_no_address_but_ours(start_server, make, options):
    server = start_server(*options)
    for network in ("", "10.40.0.0/24"):
        make(server=server, network=network)
    links = oracle.links(server)
    assert len(links) == 3  # one alone, one at a bridge, the bridge
    for link in links:
        assert sysctl(link, "accept_ra") == "0"
        assert options or lines("ip", "-6", "-o", "addr", "show", "dev", link) == []


@pytest.mark.parametrize("options", [(), ("--v6-enable",)], ids=["IPv4", "IPv6"])
def test_a_sibling_of_a_subnet_is_nobody_else(start_server, make, options):
    """T-H2, at a bridge: neither the sibling's neighbours nor the bridge believe it."""
    server = start_server(*options)
    one, victim, friend = (make(server=server, network="10.41.0.0/24") for _ in range(3))
    inits = [box.init_pid() for box in (one, victim, friend)]
    macs = [box.output("cat /sys/class/net/eth0/address").strip() for box in (one, victim, friend)]
    addresses = [box.info()["ContainerIP"] for box in (one, victim, friend)]
    addresses_6 = [box.info()["ContainerIPv6"] for box in (one, victim, friend)]
    with internet.Peer(inits[1]):
        assert says(friend, addresses[1]) == addresses[2]
        if options:
            assert says(friend, addresses_6[1]) == addresses_6[2]

        def state():
            neighbours = lines("nsenter", "-t", str(inits[2]), "-n", "ip", "neigh", "show", "nud", "all")
            return (sorted(" ".join(line.split()[:5]) for line in neighbours if addresses[1] in line or (options and addresses_6[1] in line)),
                    sorted(" ".join(line.split()[:3]) for line in lines("bridge", "fdb", "show", "br", f"cl{server.tag}-b0a290000") if macs[1] in line))

        hearing = subprocess.Popen(["nsenter", "-t", str(inits[2]), "-n", "python3", "-c", HEAR], stdout=subprocess.PIPE)
        assert hearing.stdout.readline() == b"here\n"
        before = state()
        assert len(before[0]) == (2 if options else 1) and len(before[1]) == 1
        sent = internet.inside(one, SIBLING, macs[1], macs[0], macs[2], addresses[1], addresses[0], addresses[2], addresses_6[1], addresses_6[0])
        assert sent == (0, "sent\n")
        status, _ = internet.inside(victim, TELL, addresses[2])
        assert status == 0
        heard = hearing.communicate(timeout=60)[0].decode().splitlines()
        assert heard == [f"{addresses[1]} last"] and state() == before
        assert says(friend, addresses[1]) == addresses[2]
