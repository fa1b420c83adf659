"""What bench.py and volumes.py share: the server, times, rounds, tables."""
import collections
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

from client import Garden, Volumes


class Server:
    """The server with its work directory on the fresh disk; its log goes to a file there."""

    def __init__(self, program, work, log, *options):
        command = [program, "--work-dir", work, "--bind-ip", "127.0.0.1", "--bind-port", "0",
                   "--baggageclaim-bind-port", "0", *options]
        read_fd, write_fd = os.pipe()
        self.process = subprocess.Popen(command, stderr=write_fd)
        os.close(write_fd)
        try:
            garden_at, volumes_at = self._addresses(read_fd, log)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.garden, self.volumes = Garden(garden_at), Volumes(volumes_at)
        # somebody has to read the log on, but not this process, which has times to take
        with open(log, "ab") as f:
            self.logger = subprocess.Popen(["cat"], stdin=read_fd, stdout=f)
        os.close(read_fd)

    @staticmethod
    def _addresses(read_fd, log):
        text = b""
        while True:
            got = os.read(read_fd, 65536)
            text += got
            log.write_bytes(text)
            for line in text.split(b"\n")[:-1]:
                if b'"cloche.serving"' in line:
                    data = json.loads(line)["data"]
                    hosts = (data[name].rsplit(":", 1) for name in ("address", "baggageclaim"))
                    return [(host, int(port)) for host, port in hosts]
            if not got:
                raise RuntimeError(f"the server did not start: {text.decode()}")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.logger.wait(timeout=60)

    def close(self):
        try:
            for handle in self.garden.handles():
                self.garden.destroy(handle)
        finally:
            self.volumes.close()
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.logger.wait(timeout=60)


class Times:
    """Milliseconds by name, and how to take them."""

    def __init__(self):
        self.ms = collections.defaultdict(list)

    def take(self, name, action, *args):
        begin = time.perf_counter()
        result = action(*args)
        self.ms[name].append((time.perf_counter() - begin) * 1e3)
        return result


def rounds(n, pause_ms, cycles):
    """Every round runs all cycles, each in turn first. The pause before each lets the kernel come to rest: it moves a
    process into a cgroup for nothing when it has just moved another, which no lone client ever sees."""
    cycles = list(cycles)
    for i in range(n):
        for cycle in cycles[i % len(cycles):] + cycles[: i % len(cycles)]:
            time.sleep(pause_ms / 1e3)
            cycle()


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def pss_kb(pid, field="Pss"):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(field + ":"))


def children(parent):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            name, rest = path.read_text().split("(", 1)[1].rsplit(")", 1)
            if int(rest.split()[1]) == parent:
                found.append((int(path.parent.name), name))
    return found


def new_descendants(family, seen):
    """Processes that began since the last call with the same sets and descend from the family, which grows by them.
    Cheap, since it looks at new processes only."""
    for pid in sorted({int(name) for name in os.listdir("/proc") if name.isdigit()} - seen):
        seen.add(pid)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) in family:
                family.add(pid)


def table(rows, head):
    print("\n| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
