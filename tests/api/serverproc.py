"""Starts and ends real servers. Each has a work directory and an id pool of its own, and its log in
a file; a server that died, or whose log has a sanitizer's report, fails the run."""
import itertools
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import netns
import oracle
from gardenlib import GUARD, Client, wait_until
from volumelib import VolumeClient

netns.enter()  # before there are threads or servers

TOP = Path(__file__).resolve().parents[2]
MODE = os.environ.get("MODE", "release")
BUILD = Path(os.environ.get("CLOCHE_BUILD", TOP / "build" / MODE))
PROGRAM = BUILD / "cloche"
BUSYBOX_ROOT = BUILD / "busybox-root.tar"

SANITIZED = MODE in ("asan", "tsan")
START_GUARD = 4 * GUARD if SANITIZED else GUARD
SETTLE_S = 5  # older builds do not say it
REPORTS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer",
           "runtime error:")

# Id ranges: a slice of its own for each mode, and for each CLOCHE_SLOT (0 to 7), so that runs can go side by side.
POOL_FIRST = 1879048192 + (1024 + 4000 * int(os.environ.get("CLOCHE_SLOT", "0"))) * 65536
POOL_SLICES = {"release": 0, "asan": 1, "tsan": 2, "break": 3}
NO_POOL = ("--container-pool", "0")  # for tests that count processes, or look at what is left
_slots = itertools.count()
VOLUME_DIRECTORIES = ("init", "live", "dead", "doomed", "layers")


def _pool(count):
    base = POOL_FIRST + POOL_SLICES.get(MODE, 0) * 1000 * 65536
    if count > 64:
        return base, count  # the first 512 ranges belong to the server of the session
    slot = next(_slots) % 7
    return base + (512 + 64 * slot) * 65536, count


_networks = itertools.count()


def _network():
    """A tag for names of links and rules, and a network that no other server of this run has."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    n = next(_networks) % 1296
    return digits[n // 36] + digits[n % 36], f"10.{128 + n // 64}.{n % 64 * 4}.0/22"


def parse_address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


class Server:
    running = []

    def __init__(self, *args, directory=None, pool=64, prefix=(), env=None, log=None, command=(), program=PROGRAM):
        self.owns = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="cloche-test-"))
        self.directory.mkdir(exist_ok=True)
        self.work = self.directory / "work"
        self.pool = pool if isinstance(pool, tuple) else _pool(pool)
        self.tag, self.network = _network()
        self.args, self.prefix, self.env, self.command = args, prefix, env, command
        self.program = program  # of the next start
        self.log_path = Path(log or self.directory / "log")
        self.process = None
        self.is_ended = False  # by us
        self.is_killed = False  # and so has left its containers
        self.cgroup_name = None  # found out by the oracle
        self.running.append(self)
        oracle.know(self)
        self.start()

    def start_process(self, *more):
        """Start, or start again on the same work directory, without waiting for it: how long the log was."""
        command = [*self.prefix, self.program, *self.command, "--work-dir", self.work, "--bind-ip", "127.0.0.1",
                   "--bind-port", "0", "--baggageclaim-bind-port", "0", "--id-pool-start", self.pool[0],
                   "--id-pool-count", self.pool[1], "--network-tag", self.tag, "--network-pool", self.network,
                   *self.args, *more]
        self.is_ended = self.is_killed = False
        log_size = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=self.env)
        return log_size

    def start(self, *more):
        """The same, until it serves, and has done what clients need not wait for."""
        log_size = self.start_process(*more)
        serving = wait_until(lambda: self._serving(log_size), "cloche.serving", START_GUARD)
        self.client = Client(parse_address(serving["data"]["address"]))
        self.volumes = VolumeClient(parse_address(serving["data"]["baggageclaim"]))
        deadline = time.monotonic() + SETTLE_S
        wait_until(lambda: self._is_settled(log_size) or self.process.poll() is not None or time.monotonic() > deadline,
                   "the start's end")

    def _is_settled(self, offset):
        """It has its table of rules, or none, and has looked at the host."""
        said = {line.get("message") for line in self.log_lines(offset)}
        return said & {"cloche.network-ready", "cloche.no-network"} and \
            said & {"cloche.environment-examined", "cloche.environment-unknown"}

    def _serving(self, offset):
        for line in self.log_lines(offset):
            if line.get("message") == "cloche.serving":
                return line
        code = self.process.poll()
        assert code is None, f"the server ended with {code} at its start:\n{self.log_tail()}"
        return None

    @property
    def pid(self):
        """The server's own pid, also when a tool (prefix) started it by exec."""
        return self.process.pid

    def pool_size(self):
        """How many containers it prepares ahead."""
        words = [str(word) for word in self.args]
        return int(words[words.index("--container-pool") + 1]) if "--container-pool" in words else 4

    def log_text(self, offset=0):
        return self.log_path.read_bytes()[offset:].decode("utf-8", "replace")

    def log_lines(self, offset=0):
        lines = []
        for line in self.log_text(offset).splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                try:
                    lines.append(json.loads(line))
                except ValueError:
                    pass
        return lines

    def log_tail(self):
        return self.log_text()[-8000:]

    def check(self):
        """Still alive, and nothing bad in the log."""
        code = self.process.poll()
        assert code is None, f"the server died with {code}:\n{self.log_tail()}"
        self.check_log()

    def check_log(self):
        text = self.log_text()
        for report in REPORTS:
            at = text.find(report)
            assert at < 0, f"{report} in {self.log_path}:\n{text[max(at - 500, 0):at + 6000]}"

    def destroy_all(self):
        """Remove every container, also those that are not listed by default."""
        def remove(handle):
            self.client.request("DELETE", f"/containers/{handle}", timeout=2 * GUARD)

        threads = [threading.Thread(target=remove, args=(h,))
                   for h in self.client.handles("garden.state=all")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def volume_files(self):
        """What there is of volumes on disk, also of those that are being made or removed."""
        directories = [self.work / "volumes" / name for name in VOLUME_DIRECTORIES]
        return [path for directory in directories if directory.is_dir() for path in directory.iterdir()]

    def destroy_volumes(self):
        """Remove every volume, and wait until the disk is free of them."""
        handles = self.volumes.handles()
        self.volumes.destroy_many(handles)
        wait_until(lambda: not self.volume_files(), "no files of volumes left", GUARD + len(handles) // 50)

    def terminate(self):
        """TERM, and wait for a clean end."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(START_GUARD)
        self.is_ended = True
        self.check_log()
        assert code == 0, f"the server ended with {code}:\n{self.log_tail()}"

    def kill(self):
        self.is_ended = self.is_killed = True
        self.process.kill()
        self.process.wait(GUARD)

    def finish(self):
        """The end of a fixture: nothing of this server may stay."""
        try:
            if self.is_killed:
                self.start()
            if not self.is_ended:
                self.check()
                self.destroy_all()
                self.destroy_volumes()
                self.terminate()
        finally:
            self.running.remove(self)
            if self.process.poll() is None:
                self.kill()
        self.check_log()
        if self.owns:
            subprocess.run(["rm", "-rf", "--one-file-system", self.directory], check=False)


def refused_start(*args, prefix=(), directory, env=None):
    """Start a server that must refuse: its exit code and what it wrote."""
    command = [*prefix, PROGRAM, "--work-dir", Path(directory) / "work", "--bind-ip", "127.0.0.1",
               "--bind-port", "0", "--baggageclaim-bind-port", "0", *args]
    result = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=START_GUARD)
    return result.returncode, result.stdout.decode("utf-8", "replace")


def without_library(name):
    """Words in front of a program for whom a shared library is no such thing."""
    path = next(line.split()[-1] for line in subprocess.run(["ldconfig", "-p"], stdout=subprocess.PIPE, check=True,
                                                           text=True).stdout.splitlines() if name in line)
    return ("unshare", "-m", "--propagation", "private", "sh", "-c", f"mount --bind /dev/null {path} && exec \"$@\"", "sh")
