"""What outlives a server costs: time until serving after kill -9, output with a second reader, idle attaches. A part of
bench.py; alone: lasting.py [N...], only the restarts with N containers."""
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "api"))

import netns
from client import Connection
from common import Server, children, pss_kb, quantile, table

BUILD = pathlib.Path(__file__).parents[2] / "build" / "release"
MANY = ("--id-pool-count", "2048", "--network-pool", "10.128.0.0/18", "--container-pool", "0", "--max-containers", "0")
GIB = 1 << 30


class Killed:
    """Servers one after the other on one work directory."""

    def __init__(self, program, directory):
        self.program, self.directory = program, directory
        self.server = self.start()

    def start(self):
        return Server(self.program, self.directory / "work", self.directory / "log", *MANY)

    def restart(self):
        """Milliseconds from the start of the program until it serves."""
        self.server.kill()
        begin = time.perf_counter()
        self.server = self.start()
        return (time.perf_counter() - begin) * 1e3


def add_containers(garden, first, n, **spec):
    """Four clients at once; each container has a process."""
    def work(part):
        for i in range(first + part, first + n, 4):
            garden.create(f"kept-{i}", **spec)
            control, _ = garden.start(f"kept-{i}", "/bin/sleep", "100000")
            control.close()

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def restarts(program, scratch, counts, rounds):
    """{containers: times until serving}, and of the most containers: list times, and that nothing came twice."""
    killed = Killed(program, scratch)
    figures, have = {}, 0
    try:
        for n in counts:
            add_containers(killed.server.garden, have, n - have)
            have = n
            figures[n] = [killed.restart() for _ in range(rounds)]
            handles = killed.server.garden.handles()
            if sorted(handles) != sorted(f"kept-{i}" for i in range(n)):
                raise RuntimeError(f"{len(handles)} containers instead of {n}")
        kept, lists = Connection(killed.server.garden.address), []
        for _ in range(200):
            begin = time.perf_counter()
            kept.call("GET", "/containers")
            lists.append((time.perf_counter() - begin) * 1e3)
        kept.close()
        return figures, lists
    finally:
        killed.server.close()


def readers(garden, n_readers):
    """MB/s of 1 GiB through n readers at once, which count only."""
    control, ids = garden.start("readers", "/bin/sh", "-c", "read x; exec dd if=/dev/zero bs=1M count=1024 status=none")
    streams, others = [garden.stdout("readers", ids)], []
    for _ in range(n_readers - 1):
        other = Connection(garden.address)
        other.send("GET", f"/containers/readers/processes/{ids['process_id']}")
        other.head()
        streams.append(garden.stdout("readers", json.loads(other.until(b"\n"))))
        others.append(other)
    ends = []

    def count(stream):
        space, total = memoryview(bytearray(1 << 20)), len(stream.buffer)
        while got := stream.socket.recv_into(space):
            total += got
        ends.append(total)

    threads = [threading.Thread(target=count, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    begin = time.perf_counter()
    control.socket.sendall(b'{"process_id":"x","source":0,"data":"\\n"}\n')
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begin
    if ends != [GIB] * n_readers:
        raise RuntimeError(f"{ends} bytes came")
    garden.wait(control)
    for other in (*streams, *others):
        other.close()
    return GIB / seconds / 1e6


def idle_attaches(server, n):
    """kB of the server and of the shim for each idle attach with both streams open."""
    garden, pid = server.garden, server.process.pid
    control, ids = garden.start("readers", "/bin/sleep", "100000")
    shim = max(child for child, name in children(pid) if name == "cloche-shim")
    before, connections = (pss_kb(pid), pss_kb(shim)), [control]
    for _ in range(n):
        attach = Connection(garden.address)
        attach.send("GET", f"/containers/readers/processes/{ids['process_id']}")
        attach.head()
        mine = json.loads(attach.until(b"\n"))
        connections += [attach, garden.stdout("readers", mine)]
    after = pss_kb(pid), pss_kb(shim)
    for connection in connections:
        connection.close()
    return [(a - b) / n for a, b in zip(after, before)]


def measure(opts, scratch, stack):
    counts, rounds = ((10, 20), 2) if opts.brief else ((10, 100, 1000), 5)
    restart_ms, list_ms = restarts(opts.program, scratch, counts, rounds)
    disk = scratch / "streams"
    disk.mkdir()
    server = Server(opts.program, disk / "work", disk / "log", *MANY)
    stack.callback(server.close)
    server.garden.create("readers")
    rates = {n: [readers(server.garden, n) for _ in range(1 if opts.brief else 5)] for n in (1, 2)}
    return {"restart_ms": restart_ms, "list_ms": list_ms, "rates": rates,
            "attach_kb": idle_attaches(server, 50 if opts.brief else 500)}


def print_report(raw):
    table([(n, f"{min(v):.0f}", f"{statistics.median(v):.0f}", f"{max(v):.0f}") for n, v in raw["restart_ms"].items()],
          ("containers with a process each", "until serving after kill -9: min ms", "median ms", "max ms"))
    table([(f"list of {max(raw['restart_ms'])}", f"{statistics.median(raw['list_ms']):.2f}",
            f"{quantile(raw['list_ms'], 0.99):.2f}")], ("request", "p50 ms", "p99 ms"))
    if "rates" not in raw:
        return
    table([(n, f"{statistics.median(v):,.0f}", f"{max(v):,.0f}") for n, v in raw["rates"].items()],
          ("readers of one stream of 1 GiB", "median MB/s", "max MB/s"))
    table([(f"{kb[0]:.1f}", f"{kb[1]:.2f}") for kb in [raw["attach_kb"]]],
          ("an idle attach with standard output: server, PSS kB", "shim"))


def main():
    netns.enter()
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="cloche-bench-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch)
        figures, lists = restarts(BUILD / "cloche", scratch, [int(word) for word in sys.argv[1:]] or [10], 3)
        print_report({"restart_ms": figures, "list_ms": lists})


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("lasting.py: needs root")
    main()
