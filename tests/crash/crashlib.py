"""What the tests of failures share: the tests of tests/api as a library, the injector, and who may be hit by it."""
import contextlib
import datetime
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "api"))

import oracle  # noqa: E402
from cgrouplib import groups_of  # noqa: E402
from conftest import build_tool  # noqa: E402
from gardenlib import GUARD, Hijacked  # noqa: E402
from volumelib import Refused  # noqa: E402

LONG = os.environ.get("CLOCHE_CRASH") == "all"  # make crash
SEED = os.environ.get("CLOCHE_SEED", str(datetime.date.today().toordinal()))  # another one every day
CUT = (OSError, EOFError, ValueError)  # how a client sees that its server is gone
REFUSED = (Hijacked, Refused, AssertionError)  # and how that something does not work


def sample(name, numbers, n):
    """All of them in the long form, else n, others on another day."""
    numbers = list(numbers)
    if LONG or len(numbers) <= n:
        return numbers
    return sorted(random.Random(f"{SEED} {name}").sample(numbers, n))


class Injector:
    """tests/tools/inject.c at work on some processes; .hits are the lines it said: call and process."""

    def __init__(self, n, action, pids, of_children=False, of_family=False, calls=None):
        options = ["-c"] * of_children + ["-f"] * of_family + (["-s", calls] if calls else [])
        self.hits = []
        self.process = subprocess.Popen(
            [build_tool("inject", "-lseccomp"), *options, str(n), action, *map(str, pids)],
            stdout=subprocess.PIPE, text=True)
        first = self.process.stdout.readline()
        assert first == "ready\n", f"inject {n} {action}: {first}"
        self.reader = threading.Thread(target=self.read)  # the pipe may be too small for all of them
        self.reader.start()

    def read(self):
        self.hits.extend(line.strip() for line in self.process.stdout)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(GUARD)
        self.reader.join()
        return self.hits


@contextlib.contextmanager
def injected(*args, **more):
    injector = Injector(*args, **more)
    try:
        yield injector
    finally:
        injector.end()


def try_to(act, *args):
    """What came of it: None, or how it failed. Nobody keeps its connections: a server may wait for their end."""
    try:
        act(*args)
        return None
    except (*CUT, *REFUSED) as failure:
        failure.__context__ = failure.__cause__ = None
        return failure.with_traceback(None)


def has_died(server, seconds=0.01):
    """A server that was hit."""
    try:
        server.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    server.is_ended = server.is_killed = True
    return True


def shims_and_inits(server):
    """Those of containers that are born, one after the other."""
    tasks = oracle.all_tasks()
    shims = oracle.shim_pids(server, tasks)
    return sorted(shims) + sorted(pid for pid, task in tasks.items() if task.parent in shims and task.name == "garden-init")


@contextlib.contextmanager
def memory_group(limit_bytes):
    """A group below this process's, v1 or v2, for those whom the kernel is to kill."""
    groups = groups_of(os.getpid())
    group = groups.get("memory", groups.get("unified")) / f"cloche-test-{os.getpid()}"
    group.mkdir()
    try:
        name = "memory.limit_in_bytes" if "memory" in groups else "memory.max"
        (group / name).write_text(str(limit_bytes))
        yield group
    finally:
        group.rmdir()
