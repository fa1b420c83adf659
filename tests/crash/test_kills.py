"""4.1, 4.2, 4.3: SIGKILL at every system call that changes something, of each operation. The calls of a whole operation
are counted first; then it is cut off before the n-th, for a sample of all n (CLOCHE_CRASH=all: each)."""
import contextlib

import pytest
from crashlib import Injector, has_died, injected, sample, shims_and_inits, try_to  # first: it finds the tests of the API
import oracle
import scenarios
from conftest import have_server, nothing_left, server  # noqa: F401
from gardenlib import GUARD
from serverproc import BUSYBOX_ROOT, NO_POOL, Server

IN_SHORT = 1  # of each operation
NAMES = [scenario.__name__ for scenario in scenarios.ALL]


def start_victim(directory):
    """A server that is killed again and again, with one volume."""
    have_server()
    one = Server(*NO_POOL, directory=directory)
    one.default_rootfs = str(BUSYBOX_ROOT)
    one.source = directory / "source"
    (one.source / "d").mkdir(parents=True)
    for name in ("d/one", "d/two"):
        (one.source / name).write_text(f"content of {name}")
    one.volumes.make(scenarios.BASE)
    one.volumes.fill(scenarios.BASE, "file")
    oracle.learn_cgroup_name(one)
    for scenario in (scenarios.Destroy(), scenarios.RunImage(), scenarios.VolumeStreamIn(), scenarios.VolumeCopy()):
        scenario.before(one)  # threads and files that stay from the first time on
        scenario.act(one)
        scenario.after(one)
    one.before = oracle.snapshot(one)
    return one


@pytest.fixture(scope="module")
def victims():
    """The one that is there, until a test has failed with it."""
    here = []
    yield here
    for one in here:
        one.finish()


@pytest.fixture
def victim(victims, request, tmp_path_factory):
    if not victims:
        victims.append(start_victim(tmp_path_factory.mktemp("victim")))
    n_failed = request.session.testsfailed
    yield victims[0]
    if request.session.testsfailed > n_failed:
        with contextlib.suppress(Exception):
            victims.pop().finish()


def n_calls(victim, scenario, pids, **more):
    scenario.before(victim)
    with injected(1, "list", pids(victim), **more) as injector:
        scenario.act(victim)
    scenario.after(victim)
    return injector.hits


def the_server(victim):
    return [victim.pid]


def cut(victim, scenario, n, pids, **more):
    """The operation, cut off before the n-th call; what was hit."""
    scenario.before(victim)
    injector = Injector(n, "kill", pids(victim), **more)
    failure = try_to(scenario.act, victim)
    hits = injector.end()
    return (hits or [None])[0], failure


@pytest.mark.parametrize("name", NAMES)
def test_the_server_is_killed(victim, name):
    scenario = getattr(scenarios, name)()
    calls = n_calls(victim, scenario, the_server)
    for n in sample(f"{name} server", range(1, len(calls) + 1), IN_SHORT):
        hit, failure = cut(victim, scenario, n, the_server)
        print(f"{name} {n} of {len(calls)}: {hit}, {failure!r}")
        if hit:
            assert has_died(victim, GUARD)
            victim.start()
        scenario.after(victim)
        oracle.settled(victim, victim.before)


@pytest.mark.parametrize("name", NAMES)
def test_its_children_are_killed(victim, name):
    """Shims, builders and helpers that the operation starts: the server lives, and says what has failed."""
    scenario = getattr(scenarios, name)()
    calls = n_calls(victim, scenario, the_server, of_children=True)
    for n in sample(f"{name} children", range(1, len(calls) + 1), IN_SHORT):
        hit, failure = cut(victim, scenario, n, the_server, of_children=True)
        print(f"{name} {n} of {len(calls)}: {hit}, {failure!r}")
        victim.check()
        scenario.after_loss(victim)
        oracle.settled(victim, victim.before)


@pytest.mark.parametrize("name", [one.__name__ for one in scenarios.CONTAINERS if one.before is not scenarios.Create.before])
def test_the_shim_or_init_is_killed(victim, name):
    scenario = getattr(scenarios, name)()
    calls = n_calls(victim, scenario, shims_and_inits)
    for n in sample(f"{name} shim", range(1, len(calls) + 1), IN_SHORT):
        hit, failure = cut(victim, scenario, n, shims_and_inits)
        print(f"{name} {n} of {len(calls)}: {hit}, {failure!r}")
        victim.check()
        scenario.after_loss(victim)
        oracle.settled(victim, victim.before)
