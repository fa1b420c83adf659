"""4.1, 4.2, 4.3: SIGKILL at every system call that changes something, of each operation. The calls of a whole operation
are counted first; then it is cut off before the n-th, for a sample of all n (CLOCHE_CRASH=all: each)."""
import pytest
from crashlib import Injector, has_died, injected, sample, shims_and_inits, try_to  # first: it finds the tests of the API
import oracle
import scenarios
from conftest import nothing_left, server  # noqa: F401
from gardenlib import GUARD
from victims import victim, victims  # noqa: F401

IN_SHORT = 1  # of each operation
NAMES = [scenario.__name__ for scenario in scenarios.ALL]


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
def test_the_server_is_killed(victim, name):  # noqa: F811
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
def test_its_children_are_killed(victim, name):  # noqa: F811
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
def test_the_shim_or_init_is_killed(victim, name):  # noqa: F811
    scenario = getattr(scenarios, name)()
    calls = n_calls(victim, scenario, shims_and_inits)
    for n in sample(f"{name} shim", range(1, len(calls) + 1), IN_SHORT):
        hit, failure = cut(victim, scenario, n, shims_and_inits)
        print(f"{name} {n} of {len(calls)}: {hit}, {failure!r}")
        victim.check()
        scenario.after_loss(victim)
        oracle.settled(victim, victim.before)
