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

import scripts
import trees
from common import Candidate, Server, Target, Times, new_descendants, rounds
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

    def __init__(self, server, disk, driver_program, remarks):
        self.server, self.volumes, self.garden = server, server.volumes, server.garden
        self.target = Target("cloche", driver_program, server.garden_at, server.volumes_at, server)
        self.disk, self.times, self.stream_times, self.remarks = disk, Times(), Times(), remarks
        self.n = 0

    def name(self, prefix):
        self.n += 1
        return f"{prefix}-{self.n}"

    def take(self, what, action, *args):
        return self.times.take(f"{what}/cloche", action, *args)

    def settle(self):
        """Destroyed volumes are deleted behind the reply, which the next case should not pay for."""
        volumes = self.disk / "work" / "volumes"
        deadline = time.monotonic() + 300
        while any(volumes.glob("d*/*")):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{volumes}: doomed and dead are never empty")
            time.sleep(0.005)


# ---- plain requests

def request_candidates(bench, targets):
    """Empty volumes and a copy of one, through everybody's API, and what two directories and a rename cost."""
    directory = bench.disk / "floor"
    directory.mkdir()
    bench.target.driver.learn("empty", scripts.VOLUMES)
    bench.target.driver.learn("asynchronous", scripts.VOLUMES_ASYNC)
    for target in targets:
        target.driver.learn("empty", scripts.VOLUMES)
        target.driver.learn("asynchronous", scripts.VOLUMES_ASYNC)

    def ask(target):
        for name in ("empty", "asynchronous"):
            for label, values in target.driver.run(name, "kept")[1].items():
                if label.startswith("volume "):
                    bench.times.ms[f"{label}, empty/{target.name}"] += values

    def floor():
        os.makedirs(directory / "new" / "volume")
        os.rename(directory / "new", directory / "live")

    def bare():
        for what in ("volume create, empty", "volume create, asynchronous, first poll, empty"):
            bench.times.take(f"{what}/2 mkdir and rename", floor)
            shutil.rmtree(directory / "live")

    everybody = [Candidate(t.name, functools.partial(ask, t)) for t in (bench.target, *targets)]
    return [*everybody, Candidate("2 mkdir and rename", bare)]


# ---- whole volumes

def copies_and_flips(bench, size, handle):
    bench.target.driver.learn("copies", scripts.copies(handle))
    for label, values in bench.target.driver.run("copies", "kept", 1, size.n_each)[1].items():
        bench.times.ms[f"{size.what(label)}/cloche"] += values


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


def candidates(cycles):
    """Without a name of their own, but for what they do."""
    return [Candidate(getattr(cycle.func, "__qualname__", "a tool"), cycle) for cycle in cycles]


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
            rounds(size.n_lives, 0, candidates(cycles), bench.remarks, size.what("volumes"))


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
        rounds(n_gzip, 0, candidates(sum(cycles.values(), [])), bench.remarks, f"streams of {name}")
        del cycles["gzip"]
        rounds(n_rounds - n_gzip, 0, candidates(sum(cycles.values(), [])), bench.remarks, f"streams of {name}")
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
    rounds(n, 30, candidates(cycles), bench.remarks, "whole checks")


# ---- all of it

@contextlib.contextmanager
def opened(main, name):
    """The server of these cases, on a disk of their own."""
    is_large = os.environ.get("BENCH_LARGE") == "1"
    inodes = ("-i", "4096") if is_large else ()
    with contextlib.ExitStack() as stack:
        disk = Disk(main.scratch, name, ("mkfs.ext4", "-q", "-F", *inodes), (20 if is_large else 8) << 30)
        stack.callback(disk.close)
        server = Server(main.opts.program, disk.path / "work", disk.path / "log")
        main.servers.append(server)
        stack.callback(main.end, server)
        bench = Bench(server, disk.path, main.driver_program, main.remarks)
        stack.callback(bench.target.close)
        bench.stack = stack
        yield bench


def measure(main):
    plan = BRIEF if main.opts.brief else PLAN
    with opened(main, "volumes") as bench:
        targets = [t for t in main.usable() if t.volumes and not t.server and not t.is_null]
        everybody = request_candidates(bench, targets)
        rounds(3, 0, everybody, bench.remarks, "the warm-up")
        bench.times.ms.clear()
        rounds(plan.n_rounds, 5, everybody, bench.remarks, "volume requests")
        bench.settle()
        is_large = os.environ.get("BENCH_LARGE") == "1"
        run_sizes(bench, plan.sizes + ((LARGE,) if is_large else ()), trees.text_pool(), main.scratch)
        run_list(bench, plan.n_list)
        run_checks(bench, plan.n_checks, main.opts.root, bench.stack)
        main.times.ms.update(bench.times.ms)


def measure_streams(main):
    plan = BRIEF if main.opts.brief else PLAN
    with opened(main, "streams") as bench:
        main.streams = run_streams(bench, plan.streams, trees.text_pool())
        main.streams["ms"] = bench.stream_times.ms
        for name, values in bench.times.ms.items():
            main.times.ms[name] += values
