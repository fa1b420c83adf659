"""What all parts share: the server, what is measured through an API, times, rounds."""
import collections
import contextlib
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import netns
from client import Garden, Volumes
from driver import Driver, PeerFailed

ID_BASE = 1879048192 + 1024 * 65536
FAILURES = (PeerFailed, RuntimeError, OSError, EOFError, ValueError, subprocess.SubprocessError)


class Server:
    """Our server with its work directory on a fresh disk; its log goes to a file there."""

    numbers = itertools.count()
    next_range = 0

    def __init__(self, program, work, log, *args, n_ranges=256):
        self.command = [program, "--work-dir", work, "--bind-ip", "127.0.0.1", "--bind-port", "0",
                        "--baggageclaim-bind-port", "0", *self._own_ranges(next(self.numbers), n_ranges), *args]
        self.log, self.work, self.groups = log, work, set()
        self.start()

    @classmethod
    def _own_ranges(cls, n, n_ranges):
        """Servers side by side share neither ids nor networks."""
        first = ID_BASE + (cls.next_range + 4000 * int(os.environ.get("CLOCHE_SLOT", "0"))) * 65536
        cls.next_range += n_ranges
        return ["--id-pool-start", str(first), "--id-pool-count", str(n_ranges), "--network-tag", f"b{n}",
                "--network-pool", f"10.{200 + n}.0.0/16"]

    def start(self):
        """Returns the seconds until it served."""
        begin = time.perf_counter()
        offset = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=log)
        try:
            addresses = self._addresses(offset)
        except BaseException:
            self.kill()
            raise
        seconds = time.perf_counter() - begin
        self.garden_at, self.volumes_at = addresses
        self.garden, self.volumes = Garden(self.garden_at), Volumes(self.volumes_at)
        return seconds

    def _addresses(self, offset):
        """Reads the log as it grows: all of it, again and again, would take a processor of the server's."""
        text = b""
        with open(self.log, "rb") as log:
            log.seek(offset)
            while True:
                text += log.read()
                *lines, text = text.split(b"\n")
                for line in lines:
                    if b'"cloche.serving"' in line:
                        data = json.loads(line)["data"]
                        hosts = (data[name].rsplit(":", 1) for name in ("address", "baggageclaim"))
                        return [(host, int(port)) for host, port in hosts]
                if self.process.poll() is not None:
                    raise PeerFailed(f"the server did not start: {self.log.read_bytes()[offset:][-500:].decode()}")
                time.sleep(0.0005)

    def note_groups(self):
        """The names of its cgroups, for who looks afterwards what is left: those of the processes below the shims."""
        found = families()
        for shim, _ in found[self.process.pid]:
            for pid, _ in found[shim]:
                with contextlib.suppress(OSError):
                    text = pathlib.Path(f"/proc/{pid}/cgroup").read_text()
                    self.groups |= set(re.findall(r"/(cloche-[0-9a-f]{8})(?:/|$)", text, re.M))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill()

    def close(self):
        """Also after its death: what it has left is removed by one that comes after it."""
        if self.process.poll() is not None:
            self.start()
        self.note_groups()
        try:
            for handle in self.garden.handles():
                self.garden.destroy(handle)
        finally:
            self.volumes.close()
            self.end()


class Target:
    """What answers both APIs, and the driver that asks it. Without a server it is somebody else's."""

    def __init__(self, name, program, garden_at, volumes_at=None, server=None, rootfs=None, network=None):
        self.name, self.server, self.rootfs = name, server, rootfs
        self.garden_at, self.volumes_at = garden_at, volumes_at
        self.garden = Garden(garden_at, network)
        self.is_null = self.is_dead = False
        self.volumes = Volumes(volumes_at, network) if volumes_at else None
        prefix = () if network is None else netns.on_the_host()
        self.driver = Driver(program, garden_at, volumes_at or garden_at, prefix)

    def close(self):
        self.driver.close()
        if self.volumes:
            self.volumes.close()


class Times:
    """Milliseconds by "what/who", and how to take them."""

    def __init__(self):
        self.ms = collections.defaultdict(list)

    def take(self, name, action, *args):
        begin = time.perf_counter()
        result = action(*args)
        self.ms[name].append((time.perf_counter() - begin) * 1e3)
        return result

    def add(self, who, labels):
        for what, values in labels.items():
            self.ms[f"{what}/{who}"] += values


class Candidate:
    """One of those that take turns. It may fail, which ends its part, not the others'."""

    def __init__(self, name, cycle, every=1):
        self.name, self.cycle, self.every = name, cycle, every


class Deadline:
    """Until when a case makes further rounds. It makes a few in any case."""

    MIN_ROUNDS = 3

    def __init__(self):
        self.at, self.cut = None, []

    def set(self, seconds):
        self.at = seconds and time.monotonic() + seconds

    def has_passed(self, n_done, n, what):
        if not self.at or n_done < self.MIN_ROUNDS or time.monotonic() < self.at:
            return False
        self.cut.append(f"{n - n_done} of {n} rounds of {what}: no time was left")
        return True


DEADLINE = Deadline()


def rounds(n, pause_ms, candidates, remarks, what):
    """Every round runs all of them, each in turn first. The pause before each lets the kernel come to rest: it moves a
    process into a cgroup for nothing when it has just moved another, which no lone client ever sees."""
    left = list(candidates)
    for i in range(n):
        if DEADLINE.has_passed(i, n, what):
            break
        turn = i % max(1, len(left))
        for candidate in left[turn:] + left[:turn]:
            if i % candidate.every:
                continue
            time.sleep(pause_ms / 1e3)
            try:
                candidate.cycle()
            except FAILURES as failure:
                remarks.append(f"{candidate.name} failed in round {i + 1} of {what}, where it ends: {failure}")
                left.remove(candidate)
    return left


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def families():
    """All processes there are: (pid, name) by parent."""
    found = collections.defaultdict(list)
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            name, rest = path.read_text().split("(", 1)[1].rsplit(")", 1)
            found[int(rest.split()[1])].append((int(path.parent.name), name))
    return found


def children(parent):
    return families()[parent]


def new_descendants(family, seen):
    """Processes that began since the last call with the same sets and descend from the family, which grows by them.
    Cheap, since it looks at new processes only."""
    for pid in sorted({int(name) for name in os.listdir("/proc") if name.isdigit()} - seen):
        seen.add(pid)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) in family:
                family.add(pid)
