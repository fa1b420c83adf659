"""The volume cases of bench.py, on a file system of their own: what is made, copied, flipped and destroyed at several
sizes beside cp, chown and rm; streams beside tar; lists; memory; a whole check of a resource."""
import collections
import contextlib
import functools
import os
import pathlib
import shutil
import statistics
import threading
import time
from typing import NamedTuple

import trees
from common import Server, Times, new_descendants, quantile, rounds, table
from peers import Disk, ID_BASE, Runc, unpack

MB = 1_000_000
ENCODINGS = ("raw", "gzip", "zstd", "s2")


class Size(NamedTuple):
    """A tree, and how often what is done to it. Peers take as long as it is large."""
    n_files: int
    file_bytes: int
    n_lives: int
    n_each: int  # copies and flips in each life

    def what(self, action):
        return f"{action}, {self.n_files:,} files"


class Plan(NamedTuple):
    sizes: tuple
    streams: dict  # name: tree, rounds, and how many of them with gzip, which takes longer than all others
    n_rounds: int
    n_list: int
    n_checks: int


PLAN = Plan(sizes=(Size(200, 10_000, 20, 5), Size(20_000, 10_000, 4, 20)),
            streams={"20,000 files, 200 MB": ((20_000, 10_000), 3, 2), "8 files of 100 MB": ((8, 100 * MB), 3, 1)},
            n_rounds=200, n_list=5000, n_checks=30)
LARGE = Size(1_000_000, 0, 2, 20)  # empty: it is their number that counts
BRIEF = Plan(sizes=(Size(200, 1000, 3, 2), Size(1000, 1000, 2, 2)),
             streams={"1,000 files, 1 MB": ((1000, 1000), 2, 1), "8 files of 1 MB": ((8, MB), 1, 1)},
             n_rounds=10, n_list=100, n_checks=3)


class Bench:
    """A server on the disk, its times, and how to wait for what it does behind our back."""

    def __init__(self, server, disk):
        self.server, self.volumes, self.garden = server, server.volumes, server.garden
        self.disk, self.times, self.stream_times = disk, Times(), Times()
        self.n = 0

    def name(self, prefix):
        self.n += 1
        return f"{prefix}-{self.n}"

    def take(self, what, action, *args):
        return self.times.take(f"{what}/cloche", action, *args)

    def settle(self):
        """Destroyed volumes are deleted behind the reply, which the next case should not pay for."""
        dead = self.disk / "work" / "volumes" / "dead"
        deadline = time.monotonic() + 300
        while any(dead.iterdir()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{dead} is never empty")
            time.sleep(0.005)


# ---- plain requests

def request_cycles(bench):
    """Empty volumes, made both ways, and what the same two directories and the rename cost by themselves."""
    volumes, directory = bench.volumes, bench.disk / "floor"
    directory.mkdir()

    def synchronous():
        handle = bench.name("empty")
        bench.take("create, synchronous", volumes.create, handle)
        bench.take("destroy, empty", volumes.destroy, handle)

    def asynchronous():
        handle = bench.name("empty")
        bench.take("create, asynchronous, first poll", volumes.create_async, handle)
        volumes.forget(handle)
        volumes.destroy(handle)

    def floor():
        os.makedirs(directory / "new" / "volume")
        os.rename(directory / "new", directory / "live")

    def bare():
        for what in ("create, synchronous", "create, asynchronous, first poll"):
            bench.times.take(f"{what}/2 mkdir and rename", floor)
            shutil.rmtree(directory / "live")

    return synchronous, asynchronous, bare


# ---- whole volumes

def copies_and_flips(bench, size, handle):
    volumes = bench.volumes
    for _ in range(size.n_each):
        copy = bench.name("copy")
        bench.take(size.what("copy"), volumes.copy, copy, handle)
        for value in (True, False):
            bench.take(size.what("privileged flip"), volumes.set_privileged, handle, value)
        bench.take(size.what("destroy of a copy"), volumes.destroy, copy)


def copy_from_idle(bench, size, volume):
    """As a step's output is copied: its container has ended its work and lives."""
    garden, box, copy = bench.garden, bench.name("box"), bench.name("copy")
    bind = {"src_path": volume["path"], "dst_path": "/v", "mode": 1}
    garden.create(box, bind_mounts=[bind])
    garden.run(box, "/bin/touch", "/v/made")
    bench.take(size.what("copy of what an idle container has"), bench.volumes.copy, copy, volume["handle"])
    bench.take(size.what("first run after that"), garden.run, box, "/bin/true")
    garden.destroy(box)
    bench.volumes.destroy(copy)


def life(bench, size, source, turn):
    """In every second one the first copy is made while a container has the volume."""
    volume = bench.volumes.import_(bench.name("whole"), source)
    if next(turn):
        copy_from_idle(bench, size, volume)
    else:
        copy = bench.name("copy")
        bench.take(size.what("copy, the first"), bench.volumes.copy, copy, volume["handle"])
        bench.volumes.destroy(copy)
    copies_and_flips(bench, size, volume["handle"])
    bench.take(size.what("destroy"), bench.volumes.destroy, volume["handle"])
    bench.settle()


def turns():
    while True:
        yield False
        yield True


def run_sizes(bench, sizes, pool, scratch):
    for size in sizes:
        with contextlib.ExitStack() as stack:
            source = trees.make_tree(bench.disk / "trees" / str(size.n_files), size.n_files, size.file_bytes, pool)
            stack.callback(shutil.rmtree, source)
            cycles = [functools.partial(life, bench, size, source, turns()),
                      functools.partial(trees.Tools(source).cycle, bench.times, size.what)]
            if shutil.which("mkfs.xfs"):
                xfs = Disk(scratch, f"xfs-{size.n_files}", ("mkfs.xfs", "-q"), 6 << 30)
                stack.callback(xfs.close)
                cycles.append(functools.partial(trees.Reflinks(source, xfs.path).cycle, bench.times, size.what))
            rounds(size.n_lives, 0, cycles)


# ---- streams

class Peaks:
    """The most memory that the server and its helpers ever had during a stream, in kB (VmHWM)."""

    def __init__(self, server_pid):
        self.pid, self.kb = server_pid, {}
        self.is_over = threading.Event()

    def _note(self, pid):
        """A helper's child, which does the work, has its parent's command line."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            name = words[2] if words[1:2] == ["tree"] else "server"
            if pid != self.pid and name == "server":
                return  # not yet what it will be
            with open(f"/proc/{pid}/status", encoding="ascii") as f:
                peak = next((int(line.split()[1]) for line in f if line.startswith("VmHWM")), 0)
            self.kb[name] = max(self.kb.get(name, 0), peak)

    def _watch(self):
        family, seen = {self.pid}, set()
        while not self.is_over.wait(0.02 if len(family) < 5 else 0.1):
            new_descendants(family, seen)
            for pid in family - {self.pid}:
                self._note(pid)

    def __enter__(self):
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # forget the server's earlier peak
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()
        self._note(self.pid)


def stream(bench, name, encoding, source, peaks):
    """Into an empty volume; the target's end is one more destroy of that size."""
    target = bench.name("target")
    bench.volumes.create(target)
    with Peaks(bench.server.process.pid) as peak:
        n_bytes = bench.stream_times.take(f"{name}, {encoding}/cloche", bench.volumes.relay, source, target, encoding)
    for who, kb in peak.kb.items():
        row = peaks.setdefault((name, encoding), {"bytes": n_bytes})
        row[who] = max(row.get(who, 0), kb)
    bench.take(f"destroy of what was streamed in, {name}", bench.volumes.destroy, target)
    bench.settle()


def run_streams(bench, streams, pool):
    """Out of one volume and into another at the same time, as web does between two steps."""
    peaks, n_bytes = {}, {}
    for name, (shape, n_rounds, n_gzip) in streams.items():
        source = trees.make_tree(bench.disk / "trees" / f"stream-{shape[0]}", *shape, pool, files_per_dir=100)
        n_bytes[name] = trees.tree_bytes(source)
        handle = bench.name("source")
        bench.volumes.import_(handle, source)
        cycles = collections.defaultdict(list)
        for encoding in ENCODINGS:
            cycles[encoding].append(functools.partial(stream, bench, name, encoding, handle, peaks))
            if encoding in trees.PIPES:
                cycles[encoding].append(functools.partial(trees.stream_cycle, encoding, source, bench.stream_times,
                                                f"{name}, {encoding}"))
        rounds(n_gzip, 0, sum(cycles.values(), []))
        del cycles["gzip"]
        rounds(n_rounds - n_gzip, 0, sum(cycles.values(), []))
        bench.volumes.destroy(handle)
        shutil.rmtree(source)
        bench.settle()
    return {"bytes": n_bytes, "peaks_kb": {", ".join(key): row for key, row in peaks.items()}}


# ---- lists, and a check

def run_list(bench, n):
    handles = [f"listed-{i:05}" for i in range(n)]
    for handle in handles:
        bench.volumes.create(handle, properties={"kind": "listed"})
    for _ in range(200):
        bench.take(f"list of {n:,}", bench.volumes.list)
    bench.take(f"destroy of {n:,} in one request", bench.volumes.destroy_many, handles)
    bench.settle()


def check(bench, image):
    """What a check of a resource needs: a copy of its root, a container on it, one process."""
    handle, box, garden = bench.name("root"), bench.name("check"), bench.garden
    begin = time.perf_counter()
    path = bench.take("check: copy of the root", bench.volumes.copy, handle, image)["path"]
    bench.take("check: create", lambda: garden.create(box, rootfs=f"raw://{path}"))
    bench.take("check: run true", garden.run, box, "/bin/true")
    bench.take("check: destroy", garden.destroy, box)
    bench.take("check: destroy of the copy", bench.volumes.destroy, handle)
    bench.times.ms["whole check/cloche"].append((time.perf_counter() - begin) * 1e3)


def runc_check(runc, image, tree):
    trees.run("cp", "-a", image, tree)
    runc.create()
    runc.run()
    runc.destroy()
    trees.run("rm", "-rf", tree)


def run_checks(bench, n, root, stack):
    image = bench.name("image")
    bench.volumes.import_(image, root)
    cycles = [functools.partial(check, bench, image)]
    if program := shutil.which("runc"):
        tree = unpack(root, bench.disk / "runc-image", ID_BASE)
        runc = Runc(program, bench.disk / "runc-tree", bench.disk / "runc")
        stack.callback(runc.close)
        cycles.append(functools.partial(bench.times.take, "whole check/cp -a and runc", runc_check, runc, tree,
                                        bench.disk / "runc-tree"))
    for cycle in cycles:
        cycle()  # warm both
    for name, values in bench.times.ms.items():
        if "check" in name:
            values.clear()
    rounds(n, 30, cycles)


# ---- all of it

def measure(opts, scratch, stack):
    plan = BRIEF if opts.brief else PLAN
    is_large = os.environ.get("BENCH_LARGE") == "1"
    inodes = ("-i", "4096") if is_large else ()
    disk = Disk(scratch, "volumes", ("mkfs.ext4", "-q", "-F", *inodes), (20 if is_large else 8) << 30)
    stack.callback(disk.close)
    server = Server(opts.program, disk.path / "work", disk.path / "log")
    stack.callback(server.close)
    bench, pool = Bench(server, disk.path), trees.text_pool()

    cycles = request_cycles(bench)
    rounds(3, 0, cycles)
    bench.times.ms.clear()
    rounds(plan.n_rounds, 5, cycles)
    bench.settle()
    run_sizes(bench, plan.sizes + ((LARGE,) if is_large else ()), pool, scratch)
    run_list(bench, plan.n_list)
    run_checks(bench, plan.n_checks, opts.root, stack)
    raw = run_streams(bench, plan.streams, pool)
    return {"ms": bench.times.ms, "stream_ms": bench.stream_times.ms, **raw}


def print_actions(ms):
    rows = []
    for name, values in ms.items():
        what, who = name.split("/", 1)
        mine, p50 = ms[f"{what}/cloche"], statistics.median(values)
        rows.append((what, who, len(values), f"{min(values):,.2f}", f"{p50:,.2f}", f"{quantile(values, 0.99):,.2f}",
                     f"{statistics.median(mine) / p50:.2g}" if who != "cloche" else "-"))
    order = list(ms)
    table(sorted(rows, key=lambda row: order.index(f"{row[0]}/cloche")),
          ("what", "who", "times", "min ms", "p50 ms", "p99 ms", "cloche's p50 is so many times that"))


def print_streams(ms, n_bytes):
    rows = []
    for name, values in ms.items():
        what, who = name.split("/", 1)
        tree, encoding = what.rsplit(", ", 1)
        p50 = statistics.median(values)
        ratios = ("-", "-")
        if who == "cloche":
            mine = ms[f"{what}/{trees.PIPES[encoding][0]}"] if encoding in trees.PIPES else None
            gzip = ms[f"{tree}, gzip/{trees.PIPES['gzip'][0]}"]
            ratios = [f"{statistics.median(peer) / p50:.2f}" if peer else "-" for peer in (mine, gzip)]
        rows.append((tree, encoding, who, len(values), *(f"{v / 1e3:.2f}" for v in (min(values), p50, max(values))),
                     f"{n_bytes[tree] / p50 / 1e3:,.0f}", *ratios))
    table(sorted(rows, key=lambda row: (list(n_bytes).index(row[0]), ENCODINGS.index(row[1]))),
          ("out and in of", "encoding", "who", "times", "min s", "p50 s", "max s", "MB/s", "so many times as fast as that pipe",
           "and as the one with gzip"))


def print_report(raw):
    print_actions(raw["ms"])
    print_streams(raw["stream_ms"], raw["bytes"])
    table([(what, f"{row['bytes'] / MB:,.0f}", *(f"{row.get(who, 0):,}" for who in ("out", "in", "server")))
           for what, row in raw["peaks_kb"].items()],
          ("most memory in a stream of", "MB on the wire", "helper out, kB", "helper in, kB", "server, kB"))
