#!/usr/bin/env python3
"""Measures cloche beside runc and the kernel's own floor, in interleaved rounds, and prints tables. Asserts nothing.

Run as root after `make all`. What each figure means is in RESULTS.md."""
import argparse
import collections
import contextlib
import functools
import json
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "api"))

import lasting
import netns
import volumes
from client import Connection
from common import Server, Times, children, pss_kb, quantile, rounds, table
from peers import Disk, Floor, Runc, bare_relay, unpack, ID_BASE

BUILD = pathlib.Path(__file__).parents[2] / "build" / "release"
MIB = 1 << 20
FLOORS = {"floor": (), "floor + cgroup.procs": ("--cgroup-move",), "floor + tasks": ("--cgroup-tasks",)}


def cloche_cycle(garden, times):
    begin = time.perf_counter()
    times.take("create/cloche", garden.create, "bench")
    times.take("run/cloche", garden.run, "bench", "/bin/true")
    times.take("destroy/cloche", garden.destroy, "bench")
    times.ms["cycle/cloche"].append((time.perf_counter() - begin) * 1e3)


def floor_cycle(floor, name, times):
    figures = floor.cycle()
    for action, ms in figures.items():
        times.ms[f"{action}/{name}"].append(ms)
    times.ms[f"cycle/{name}"].append(sum(figures.values()))


def runc_cycle(runc, times):
    begin = time.perf_counter()
    times.take("create/runc", runc.create)
    times.take("run/runc", runc.run)
    times.take("destroy/runc", runc.destroy)
    times.ms["cycle/runc"].append((time.perf_counter() - begin) * 1e3)


def requests(garden, n, times):
    """Small requests: on a kept connection, and as Go clients make them, each on its own."""
    kept = Connection(garden.address)
    for _ in range(n):
        times.take("ping, kept connection", kept.call, "GET", "/ping")
        times.take("ping, new connection", garden.call, "GET", "/ping")
    kept.close()


def memory(server, n, times):
    """PSS over n idle containers; also what a list and a property cost with so many."""
    garden, pid = server.garden, server.process.pid
    figures, anon_before = {"server before": pss_kb(pid)}, pss_kb(pid, "Pss_Anon")
    for i in range(n):
        garden.create(f"idle-{i}")
    shims = [child for child, name in children(pid) if name == "cloche-shim"]
    inits = [child for shim in shims for child, name in children(shim) if name == "garden-init"]
    if len(shims) != n or len(inits) != n:
        raise RuntimeError(f"{len(shims)} shims and {len(inits)} inits for {n} containers")
    figures["server with them"] = pss_kb(pid)
    figures["shim, mean"] = statistics.mean(map(pss_kb, shims))
    figures["init, mean"] = statistics.mean(map(pss_kb, inits))
    figures["growth of the server for each (anonymous)"] = (pss_kb(pid, "Pss_Anon") - anon_before) / n
    figures["a container"] = sum(list(figures.values())[-3:])
    kept = Connection(garden.address)
    for _ in range(200):
        times.take(f"list of {n}", kept.call, "GET", "/containers")
        times.take("set a property", kept.call, "PUT", "/containers/idle-0/properties/key", {"value": "text"})
    kept.close()
    for i in range(n):
        garden.destroy(f"idle-{i}")
    return figures


def count(connection, early, want):
    """Reads a socket to its end, looking at nothing. Returns MB/s; `early` bytes came before."""
    space, total = memoryview(bytearray(MIB)), early
    begin = time.perf_counter()
    while got := connection.recv_into(space):
        total += got
    seconds = time.perf_counter() - begin
    if total != want:
        raise RuntimeError(f"{total} bytes came instead of {want}")
    return total / seconds / 1e6


OUTPUTS = {
    "head -c 1073741824": ("/bin/head", "-c", "1073741824", "/dev/zero"),
    "dd bs=1M count=1024": ("/bin/dd", "if=/dev/zero", "bs=1M", "count=1024", "status=none"),
}


def output(garden, tree, n):
    """MB/s of each program, through the server and through a bare relay, in turn."""
    rates = collections.defaultdict(list)
    garden.create("output")
    for _ in range(n):
        for name, (path, *args) in OUTPUTS.items():
            process, ids = garden.start("output", path, *args)
            stream = garden.stdout("output", ids)
            rates[f"{name}, cloche"].append(count(stream.socket, len(stream.buffer), 1 << 30))
            stream.close()
            garden.wait(process)
            with bare_relay([tree / path[1:], *args]) as client:
                rates[f"{name}, bare pipe to TCP"].append(count(client, 0, 1 << 30))
    garden.destroy("output")
    return rates


def parallel(garden, clients, n):
    """Whole cycles a second by several clients at once."""
    failures = []

    def work(client):
        try:
            for i in range(n):
                handle = f"p-{client}-{i}"
                garden.create(handle)
                garden.run(handle, "/bin/true")
                garden.destroy(handle)
        except Exception as failure:  # pylint: disable=broad-except
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return clients * n / (time.perf_counter() - begin)


def print_cycles(ms):
    rows = []
    for action in ("create", "run", "destroy", "cycle"):
        for name in ("cloche", *FLOORS, "runc"):
            values = ms.get(f"{action}/{name}")
            if not values:
                continue
            mine, p50 = ms.get(f"{action}/cloche"), statistics.median(values)
            ratio = f"{statistics.median(mine) / p50:.2f}" if mine else "-"
            rows.append((action, name, f"{min(values):.2f}", f"{p50:.2f}", f"{quantile(values, 0.99):.2f}", ratio))
    table(rows, ("what", "who", "min ms", "p50 ms", "p99 ms", "cloche's p50 is so many times that"))


def print_requests(ms):
    rows = [(name, f"{min(v):.3f}", f"{statistics.median(v):.3f}", f"{quantile(v, 0.99):.3f}")
            for name, v in ms.items() if "/" not in name]
    table(rows, ("request", "min ms", "p50 ms", "p99 ms"))


def print_report(raw):
    print_cycles(raw["ms"])
    if "pss_kb" in raw:
        print_requests(raw["ms"])
        table([(name, f"{kb:,.0f}") for name, kb in raw["pss_kb"].items()],
              (f"memory, {raw['idle']} idle containers", "PSS kB"))
    if "output" in raw:
        table([(name, f"{statistics.median(v):,.0f}", f"{max(v):,.0f}") for name, v in raw["output"].items()],
              ("output of one process to a client that counts", "median MB/s", "max MB/s"))
    if "cycles_per_second" in raw:
        table([(n, f"{rate:.0f}") for n, rate in raw["cycles_per_second"].items()],
              ("clients at once", "create, run, destroy cycles a second"))


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--pause-ms", type=float, default=30, help="rest before each cycle (30)")
    parser.add_argument("--idle", type=int, default=50, help="idle containers for the memory rows (50)")
    parser.add_argument("--outputs", type=int, default=5, help="runs of each output row (5)")
    parser.add_argument("--only-peers", action="store_true", help="floor and runc, no server")
    parser.add_argument("--only-volumes", action="store_true", help="the cases of volumes.py alone")
    parser.add_argument("--brief", action="store_true", help="small volumes and few rounds, to see that it works")
    parser.add_argument("--program", type=pathlib.Path, default=BUILD / "cloche")
    parser.add_argument("--root", type=pathlib.Path, default=BUILD / "busybox-root.tar", help="tar of the root")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the raw figures")
    return parser.parse_args()


def measure(opts, disk, stack):
    times, floor_program = Times(), Floor.build(disk / "floor")
    tree = unpack(opts.root, disk / "tree", 0)
    raw = {"ms": times.ms, "idle": opts.idle}

    cycles = []
    for name, flags in FLOORS.items():
        floor = Floor(floor_program, tree, disk / f"state of {name}", *flags)
        stack.callback(floor.close)
        cycles.append(functools.partial(floor_cycle, floor, name, times))
    if program := shutil.which("runc"):
        runc = Runc(program, unpack(opts.root, disk / "runc-tree", ID_BASE), disk / "runc")
        stack.callback(runc.close)
        cycles.append(functools.partial(runc_cycle, runc, times))
    if not opts.only_peers:
        server = Server(opts.program, disk / "work", disk / "log")
        stack.callback(server.close)
        cycles.append(functools.partial(cloche_cycle, server.garden, times))

    rounds(3, 0, cycles)  # warm everything
    times.ms.clear()
    rounds(opts.rounds, opts.pause_ms, cycles)
    if not opts.only_peers:
        requests(server.garden, opts.rounds * 5, times)
        raw["pss_kb"] = memory(server, opts.idle, times)
        raw["output"] = output(server.garden, tree, opts.outputs)
        raw["cycles_per_second"] = {n: parallel(server.garden, n, 50) for n in (1, 8)}
    return raw


def stop(number, _):
    raise SystemExit(f"bench.py: ended by signal {number}")


def containers(opts, scratch, stack):
    disk = Disk(scratch)
    stack.callback(disk.close)
    raw = measure(opts, disk.path, stack)
    print_report(raw)
    return raw


def volume_cases(opts, scratch, stack):
    raw = volumes.measure(opts, scratch, stack)
    volumes.print_report(raw)
    return raw


def lasting_cases(opts, scratch, stack):
    raw = lasting.measure(opts, scratch, stack)
    lasting.print_report(raw)
    return raw


def main():
    opts = options()
    if os.geteuid() != 0:
        sys.exit("bench.py: needs root")
    if opts.brief:
        opts.rounds, opts.outputs, opts.idle = 5, 1, 5
    parts = {"containers": containers, "lasting": lasting_cases, "volumes": volume_cases}
    for part, is_left_out in (("containers", opts.only_volumes), ("lasting", opts.only_volumes or opts.only_peers),
                              ("volumes", opts.only_peers)):
        if is_left_out:
            del parts[part]
    netns.enter()  # links, rules and sysctls of the machine stay as they are
    signal.signal(signal.SIGTERM, stop)  # so that what follows is taken down
    raw = {}
    for name, part in parts.items():
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="cloche-bench-"))
        scratch.chmod(0o755)  # the trees below are read by mapped users
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, scratch)
            raw[name] = part(opts, scratch, stack)
    if opts.json:
        opts.json.write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
