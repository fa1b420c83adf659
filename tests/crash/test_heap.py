"""4.15: the n-th allocation of an operation fails, in the server or in the shims: it fails cleanly or succeeds, nothing
is left, nobody dies, and what the heap held is given back (the server has the leak sanitizer, and ends by TERM). The
calls of a whole operation are counted first; then the n-th fails, for a sample of all n (CLOCHE_CRASH=all: each)."""
import mmap
import os
import struct

import pytest
from crashlib import LONG, sample, try_to  # first: it finds the tests of the API
import oracle
import scenarios
from conftest import nothing_left, server  # noqa: F401
from faulty import PROGRAM, program  # noqa: F401
from gardenlib import wait_until
from victims import victim, victims  # noqa: F401

SLOT = struct.Struct("=4Q")  # struct fault_heap
SERVER, SHIM = range(2)
NEVER = 1 << 62
N_SHORT = int(os.environ.get("CLOCHE_HEAP_N", "2"))  # of each operation, if not all


class Heap:
    def __init__(self, path):
        self.path = path
        path.write_bytes(bytes(2 * SLOT.size))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    def set(self, who, *values):
        SLOT.pack_into(self.memory, who * SLOT.size, *values)

    def failing(self, who, n, is_lasting, act, *args):
        """The operation while its n-th call fails: what came of it, how many calls it made, how many were refused."""
        self.set(who, n, is_lasting, 0, 0)
        failure = try_to(act, *args)
        _, _, n_calls, n_refused = SLOT.unpack_from(self.memory, who * SLOT.size)
        self.set(who, 0, 0, 0, 0)
        return failure, n_calls, n_refused


@pytest.fixture(scope="module", autouse=True)
def heap(tmp_path_factory):
    how_to_start.heap = Heap(tmp_path_factory.mktemp("heap") / "heap")
    return how_to_start.heap


def how_to_start():
    return {"program": PROGRAM, "env": {**os.environ, "CLOCHE_HEAP": str(how_to_start.heap.path)}}


class NetIn(scenarios.NetIn):
    def look(self, one):
        """What stood in the way of the list may not have stood in the way of the port."""
        self.act(one)
        assert len(one.client.info("box")["MappedPorts"]) in (1, 2)


class Create(scenarios.Create):
    def after(self, one):
        """What could not be undone is dead, and destroyed by whoever asks."""
        if one.client.handles("garden.state=all") and scenarios.is_dead(one, "box"):
            one.client.destroy("box")
        super().after(one)


class CreatePrivileged(Create):
    privileged = True


class RunImage(scenarios.RunImage):
    def look(self, one):
        """What there was no memory to undo is undone a moment later."""
        failure = None

        def has_looked():
            nonlocal failure
            failure = try_to(super(RunImage, self).look, one)
            return "writes to it" not in str(failure)

        wait_until(has_looked, "its volume is free")
        if failure:
            raise failure


SCENARIOS = {one.__name__: one for one in (*scenarios.ALL, NetIn, Create, CreatePrivileged, RunImage)} | {"Destroy": scenarios.FailedDestroy}


def fail_each(victim, heap, name, who, n_in_short, is_lasting=False):  # noqa: F811
    scenario = SCENARIOS[name]()
    scenario.before(victim)
    failure, n_calls, _ = heap.failing(who, NEVER, False, scenario.act, victim)
    assert not failure
    scenario.after(victim)
    n_taken = 0
    # the first is always made; how many more there are depends on what else the server does meanwhile
    for n in sorted({1, *sample(f"{name} heap {who} {is_lasting}", range(1, n_calls + 1), n_in_short)}):
        scenario.before(victim)
        failure, _, n_refused = heap.failing(who, n, is_lasting, scenario.act, victim)
        print(f"{name} {n} of {n_calls}: {n_refused} refused, {failure!r}")
        n_taken += n_refused > 0
        victim.check()
        scenario.after(victim)
        oracle.settled(victim, victim.before)
    return n_calls, n_taken


@pytest.mark.parametrize("name", SCENARIOS)
def test_4_15_the_server_has_no_memory(victim, heap, name):  # noqa: F811
    n_calls, n_taken = fail_each(victim, heap, name, SERVER, N_SHORT)
    assert n_calls and n_taken


@pytest.mark.parametrize("name", ["Create", "Run", "RunImage", "Attach", "Destroy"])
def test_4_15_a_shim_has_no_memory(victim, heap, name):  # noqa: F811
    fail_each(victim, heap, name, SHIM, 2)


@pytest.mark.skipif(not LONG, reason="make crash")
@pytest.mark.parametrize("name", SCENARIOS)
def test_4_15_the_server_has_no_memory_any_more(victim, heap, name):  # noqa: F811
    """From the n-th call on, until the operation is over."""
    fail_each(victim, heap, name, SERVER, 3, is_lasting=True)


def test_4_15_calls_of_shims_are_counted(victim, heap):  # noqa: F811
    assert fail_each(victim, heap, "Run", SHIM, 4)[1]
