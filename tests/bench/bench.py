#!/usr/bin/env python3
"""Measures cloche beside other programs and the kernel's own floor, in interleaved rounds: tables, JSON and a plot.

Run as root after `make all`. What the figures mean is in README.md beside this file."""
import argparse
import collections
import contextlib
import datetime
import json
import os
import pathlib
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "api"))

import containers
import driver
import leaks
import netns
import output
import readers
import report
import scale
import volumes
from common import DEADLINE, FAILURES, Server, Target, Times
from peers import Disk

TOP = pathlib.Path(__file__).parents[2]
BUILD = TOP / "build" / "release"

CASES = {
    "cycles": containers.cycles,  # create, run, destroy, the whole: everybody in turn
    "requests": containers.requests,  # ping, list, info, properties, attach
    "parallel": containers.parallel,  # 1, 8 and 32 clients
    "concourse": containers.concourse,  # recorded calls of a check and a task
    "output": output.throughput,
    "loss": output.loss,
    "readers": readers.measure,
    "profile": scale.profile,  # a create by phases, as the server sees it
    "many": scale.many,  # memory, creates and restarts with up to 1,000
    "idle": scale.nothing,
    "volumes": volumes.measure,
    "streams": volumes.measure_streams,
}
# Which a case may take: then the round that it is in is its last. With setting up and removing all of it less than ten minutes.
SECONDS = {"cycles": 60, "requests": 15, "parallel": 60, "concourse": 20, "output": 40, "loss": 20, "readers": 20,
           "profile": 15, "many": 100, "idle": 10, "volumes": 60, "streams": 60}
OWN = {"readers", "profile", "many", "idle", "volumes", "streams"}  # cases about a server of ours
PEERS = ("null server", "cloche, no pool", *containers.FLOORS, *containers.TOOLS)


class Plan(NamedTuple):
    """How much of everything."""
    n_rounds: int = 100
    n_idle: int = 50
    n_requests: int = 200
    n_parallel: int = 240
    n_parallel_rounds: int = 3
    n_flows: int = 40
    n_outputs: int = 4
    output_mib: int = 1024
    n_losses: int = 3
    n_lines: int = 1_000_000
    n_attaches: int = 500
    many: tuple = (1, 100, 1000)
    n_beside: int = 60
    idle_seconds: float = 5


BRIEF = Plan(n_rounds=4, n_idle=3, n_requests=5, n_parallel=32, n_parallel_rounds=1, n_flows=2, n_outputs=1, output_mib=16,
             n_losses=1, n_lines=50_000, n_attaches=20, many=(1, 20), n_beside=3, idle_seconds=0.5)


class Bench:
    """What all cases share, and what they find."""

    def __init__(self, opts, scratch, stack):
        self.opts, self.scratch, self.stack = opts, scratch, stack
        self.plan = BRIEF if opts.brief else Plan()
        self.is_root = os.geteuid() == 0
        self.times = Times()
        self.missing, self.remarks = [], []
        self.targets, self.servers, self.server = [], [], None
        self.rates, self.costs, self.output_rates = (collections.defaultdict(list) for _ in range(3))
        self.profiles = collections.defaultdict(lambda: collections.defaultdict(list))
        self.memory, self.attach_kb, self.idle, self.rss, self.losses = {}, {}, {}, {}, {}
        self.loss_bytes, self.streams = 0, None
        self.driver_program = driver.build(scratch / "driver")
        if self.is_root:
            disk = Disk(scratch)
            stack.callback(disk.close)
            self.disk = disk.path
        else:
            self.disk = scratch

    def wants(self, name):
        return not self.opts.peers or name in self.opts.peers

    def usable(self):
        """Targets that have not failed, of which somebody has made sure that they still answer."""
        for target in self.targets:
            if not target.is_dead and target.server and target.server.process.poll() is not None:
                target.is_dead = True
                self.remarks.append(f"{target.name}: the server has ended")
        return [target for target in self.targets if not target.is_dead]

    @contextlib.contextmanager
    def part(self, who, what):
        """A failure in it is a remark."""
        try:
            yield
        except FAILURES as failure:
            self.remarks.append(f"{getattr(who, 'name', who)} failed in {what}: {failure}")

    def end(self, server):
        with self.part("a server", "its end"):
            server.close()

    def add_target(self, *args, **more):
        target = Target(args[0], self.driver_program, *args[1:], **more)
        self.stack.callback(target.close)
        self.targets.append(target)
        return target

    def start_server(self, name, *args):
        word = name.replace(", ", "-").replace(" ", "-")
        server = Server(self.opts.program, self.disk / f"work-{word}", self.disk / f"log-{word}", *args)
        self.servers.append(server)
        self.stack.callback(self.end, server)
        self.add_target(name, server.garden_at, server.volumes_at, server=server)
        return server

    def open_targets(self):
        for label, garden, volumes_at in self.opts.others:
            with self.part(label, "the first call"):
                self.add_target(label, garden, volumes_at, rootfs=self.opts.peer_rootfs, network=netns.host_fd)
        if self.wants("null server"):
            null = driver.NullServer(self.driver_program)
            self.stack.callback(null.close)
            self.add_target("null server", null.address).is_null = True
        if self.is_root and not self.opts.only_peers:
            self.server = self.start_server("cloche")
            if self.wants("cloche, no pool"):
                self.start_server("cloche, no pool", "--container-pool", "0")

    def run(self, names):
        for name in names:
            if name in OWN and not self.server:
                self.missing.append(f"{name}: needs a server of our own")
                continue
            begin = time.monotonic()
            DEADLINE.set(0 if self.opts.no_deadlines else SECONDS[name])
            with self.part("bench.py", name):
                CASES[name](self)
            self.missing += DEADLINE.cut
            DEADLINE.cut.clear()
            print(f"bench.py: {name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)

    def raw(self, about):
        found = {"about": about, "ms": dict(self.times.ms), "cycles_per_second": containers.by_clients(self.rates),
                 "processor_ms_per_cycle": containers.by_clients(self.costs),
                 "output": dict(self.output_rates), "lost": {"/".join(key): v for key, v in self.losses.items()},
                 "loss_bytes": self.loss_bytes, "memory_kb": self.memory, "attach_kb": self.attach_kb,
                 "profile_us": self.profiles, "idle": self.idle, "rss_kb": self.rss}
        mine = [value for (_, who), values in self.losses.items() if who == "cloche" for value in values]
        if mine:
            found["lost_most"] = max(mine)
        if self.streams:
            found["streams"] = self.streams
        return json.loads(json.dumps(found))


# ---- options

def names(kind, known):
    def split(text):
        """Not at a comma that belongs to a name."""
        found = [name for name in known if name in text.split("+")]
        unknown = set(text.split("+")) - set(known)
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {kind} '{min(unknown)}'; there are: {' + '.join(known)}")
        return found
    return split


def address(text):
    """host:port of a URL, as numbers: the driver looks up no names."""
    url = urllib.parse.urlsplit(text if "//" in text else f"//{text}")
    try:
        if url.scheme not in ("", "http") or not url.hostname or not url.port:
            raise ValueError
    except ValueError as failure:
        raise argparse.ArgumentTypeError(f"'{text}': http://HOST:PORT is expected") from failure
    return ("127.0.0.1" if url.hostname == "localhost" else url.hostname, url.port)


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", type=names("case", list(CASES)), default=list(CASES), metavar="CASE+CASE", help="these cases")
    parser.add_argument("--peers", type=names("peer", list(PEERS)), metavar="PEER+PEER", help="beside these peers alone")
    parser.add_argument("--garden", type=address, action="append", default=[], metavar="URL", help="another Garden server")
    parser.add_argument("--baggageclaim", type=address, action="append", default=[], metavar="URL", help="and its volumes")
    parser.add_argument("--label", action="append", default=[], metavar="NAME", help="and what it is called")
    parser.add_argument("--peer-rootfs", metavar="URI", help="root of containers there")
    parser.add_argument("--pause-ms", type=float, default=30, help="rest before each cycle")
    parser.add_argument("--only-peers", action="store_true", help="no server of ours")
    parser.add_argument("--brief", action="store_true", help="little of everything, to see that it works")
    parser.add_argument("--no-deadlines", action="store_true", help="all rounds, however long they take")
    parser.add_argument("--program", type=pathlib.Path, default=BUILD / "cloche")
    parser.add_argument("--root", type=pathlib.Path, default=BUILD / "busybox-root.tar", help="tar of the root")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="write figures.json, report.md and ratios.svg")
    opts = parser.parse_args()
    if len(opts.garden) != len(opts.label) or len(opts.baggageclaim) not in (0, len(opts.garden)):
        parser.error("each --garden needs a --label, and a --baggageclaim if one has it")
    if len({*opts.label, *PEERS, "cloche"}) != len(opts.label) + len(PEERS) + 1:
        parser.error("two --label, or one and a peer, have the same name")
    for path in (opts.program, opts.root):
        if not path.exists():
            parser.error(f"{path} is not there: make all")
    opts.others = list(zip(opts.label, opts.garden, opts.baggageclaim or [None] * len(opts.garden)))
    return opts


# ---- all of it

def run_text(*command):
    return subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          check=False).stdout.strip()


def machine():
    cpu = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    groups = "v2" if pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1 or hybrid"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return f"{os.cpu_count()} processors ({cpu}), {memory} GiB, Linux {platform.release()}, cgroups {groups}"


def about(bench, begin):
    dirty = "+" if run_text("git", "status", "--porcelain", "-uno") else ""
    load = os.getloadavg()[0]
    return {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "commit": run_text("git", "rev-parse", "--short", "HEAD") + dirty, "command": shlex.join(sys.argv),
            "machine": f"{machine()}, load {load:.1f} at the end", "seconds": time.monotonic() - begin,
            "missing": bench.missing, "remarks": bench.remarks}


def write(out, raw, text):
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(raw, indent=1) + "\n")
    (out / "report.md").write_text(text)
    if not report.plot(raw["ms"], out / "ratios.svg"):
        print("bench.py: no plot: python3-matplotlib is not installed, or nothing was compared", file=sys.stderr)


def find_leaks(scratch, servers):
    """What goes by itself is given time: the kernel removes links behind our back."""
    group_names = set().union(*(server.groups for server in servers))
    deadline = time.monotonic() + 30
    while found := leaks.look([scratch], group_names, netns.host_fd is not None):
        if time.monotonic() > deadline:
            return [f"left behind: {what}" for what in found]
        time.sleep(0.05)
    return []


def stop(number, _):
    raise SystemExit(f"bench.py: ended by signal {number}")


def measure(opts, begin):
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="cloche-bench-"))
    scratch.chmod(0o755)  # the trees below are read by mapped users
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch)
        bench = Bench(opts, scratch, stack)
        if not bench.is_root:
            bench.missing.append("cloche, floor, runc, crun, podman and volumes: need root")
        with bench.part("bench.py", "the start of servers"):
            bench.open_targets()
        bench.run(opts.only)
    bench.remarks += find_leaks(scratch, bench.servers)
    return bench, bench.raw(about(bench, begin))


def main():
    begin = time.monotonic()
    opts = options()
    if os.geteuid() == 0:
        # links, rules and sysctls of the machine stay as they are; servers given by URL see the files of the bench
        netns.enter(own_mounts=False)
    signal.signal(signal.SIGTERM, stop)  # so that what follows is taken down
    bench, raw = measure(opts, begin)
    text = report.text_of(raw)
    print(text)
    if opts.out:
        write(opts.out, raw, text)
    return 1 if bench.remarks else 0


if __name__ == "__main__":
    sys.exit(main())
