"""A made-up internet beside the run's own network namespace: one router namespace behind an uplink that carries
the default route, with addresses of the real one, and a small peer that answers there."""
import re
import socket
import subprocess
import sys
import threading


UPLINK, HOST_ADDRESS, ROUTER = "uplink0", "192.0.2.2", "192.0.2.1"
HOST_ADDRESS_6, ROUTER_6 = "2001:db8:1::2", "2001:db8:1::1"
ADDRESSES = ("8.8.8.8", "9.9.9.9", "1.0.0.5", "169.254.169.254", "168.63.129.16")
ADDRESSES_6 = ("2001:4860:4860::8888", "fd00:ec2::254")

# The peer: TCP tells what address it is asked from, UDP the same.
PEER = """
import socket, sys, threading
def tcp(sock):
    while True:
        con, address = sock.accept()
        con.sendall(address[0].encode() + b"\\n")
        con.close()
def udp(sock):
    while True:
        data, address = sock.recvfrom(2048)
        sock.sendto(address[0].encode() + b"\\n", address)
def serve(kind, address, port, work):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((address, port))
    if kind == socket.SOCK_STREAM:
        sock.listen(64)
    threading.Thread(target=work, args=(sock,), daemon=True).start()
print("here", flush=True)
sys.stdin.readline()
for port in (53, 80, 443):
    for address in ("0.0.0.0", "::"):
        serve(socket.SOCK_STREAM, address, port, tcp)
    # an answer must come from the address that was asked
    for address in sys.argv[1:] or ("0.0.0.0", "::"):
        serve(socket.SOCK_DGRAM, address, port, udp)
print("ready", flush=True)
sys.stdin.read()
"""


def ip(*words, pid=None):
    enter = ["nsenter", "-t", str(pid), "-n"] if pid else []
    subprocess.run([*enter, "ip", *words], check=True)


def start(peer):
    """Its addresses are there: it may serve."""
    peer.stdin.write(b"\n")
    peer.stdin.flush()
    assert peer.stdout.readline() == b"ready\n"


class Internet:
    """Ends with close; its namespace is gone with its process."""

    def __init__(self):
        self.process = subprocess.Popen(["unshare", "-n", sys.executable, "-c", PEER,
                                         *ADDRESSES, *ADDRESSES_6], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        pid = self.pid = self.process.pid
        assert self.process.stdout.readline() == b"here\n"
        ip("link", "add", UPLINK, "type", "veth", "peer", "name", "in0", "netns", str(pid))
        ip("addr", "add", f"{HOST_ADDRESS}/24", "dev", UPLINK)
        ip("addr", "add", f"{HOST_ADDRESS_6}/64", "dev", UPLINK, "nodad")
        ip("link", "set", UPLINK, "up")
        ip("link", "set", "lo", "up", pid=pid)
        ip("addr", "add", f"{ROUTER}/24", "dev", "in0", pid=pid)
        ip("addr", "add", f"{ROUTER_6}/64", "dev", "in0", "nodad", pid=pid)
        for address in ADDRESSES:
            ip("addr", "add", f"{address}/32", "dev", "lo", pid=pid)
        for address in ADDRESSES_6:
            ip("addr", "add", f"{address}/128", "dev", "lo", "nodad", pid=pid)
        ip("link", "set", "in0", "up", pid=pid)
        start(self.process)
        ip("route", "add", "default", "via", ROUTER)
        ip("-6", "route", "add", "default", "via", ROUTER_6)

    def run(self, *command):
        """Run a program out there: its exit status and what it wrote."""
        done = subprocess.run(["nsenter", "-t", str(self.pid), "-n", *command], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, check=False)
        return done.returncode, done.stdout.decode()

    def close(self):
        ip("link", "del", UPLINK)
        self.process.stdin.close()
        self.process.wait(60)


def inside(container, code, *args):
    """Run Python code in the container's network namespace alone: its exit status and what it wrote."""
    done = subprocess.run(["nsenter", "-t", str(container.init_pid()), "-n", sys.executable, "-c", code, *args],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    return done.returncode, done.stdout.decode()


ASK = """
import socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(float(sys.argv[3]))
sock.connect((sys.argv[1], int(sys.argv[2])))
sock.send(b"x")
print(sock.recv(100).decode().strip())
"""


def ask(container, address, port=53, patience=20):
    """What a UDP peer says to the container, or None."""
    status, out = inside(container, ASK, address, str(port), str(patience))
    assert status == 0 or re.search("timed out|refused|No route|Permission denied", out), out
    return out.strip() if status == 0 else None


class Peer:
    """The same peer as outside, in the network namespace of a process."""

    def __init__(self, pid):
        self.process = subprocess.Popen(["nsenter", "-t", str(pid), "-n", sys.executable, "-c", PEER],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"here\n"
        start(self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)


class Listener:
    """A TCP server in this namespace that counts who comes."""

    def __init__(self, address, port=0):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((address, port))
        self.sock.listen(16)
        self.port = self.sock.getsockname()[1]
        self.peers = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                connection, peer = self.sock.accept()
            except OSError:
                return
            self.peers.append(peer[0])
            connection.sendall(b"listener\n")
            connection.close()

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.thread.join(60)
