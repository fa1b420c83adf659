"""Failure points (backend/base/fault.def) of a server that has them: at each it is killed, and where it can it fails. The
operation is then absent or whole."""
import os
import re

import pytest
from crashlib import has_died, sample, try_to  # first: it finds the tests of the API
import oracle
import scenarios
from conftest import nothing_left, server  # noqa: F401
from faulty import PROGRAM, TOP, program  # noqa: F401
from gardenlib import GUARD, wait_until
from scenarios import Create, Destroy, Run, RunImage, VolumeCopyOfFresh, VolumeCreate, VolumeDestroy
from victims import victim, victims  # noqa: F401


def how_to_start():
    return {"program": PROGRAM}


class Adoption(scenarios.Attach):
    """A start, with a container that has a process."""

    def act(self, one):
        one.kill()
        one.start()


class Answered(Run):
    """It runs; a server that cannot take it up ends it."""

    def look(self, one):
        if "p" in (one.client.info("box")["ProcessIDs"] or []):
            super().look(one)
        else:
            wait_until(lambda: one.client.sh("box", "ps | grep -q '[r]ead x'")[0] == 1, "it is ended")


class Exit(scenarios.Attach):
    """The process ends, and the shim is to say so."""


# the point's name: the operation that comes past it
OF_SERVER = {
    **dict.fromkeys(("create_reserved", "create_recorded", "create_addressed", "create_rooted", "create_spawned",
                     "create_on_disk", "create_grouped", "create_asked", "create_born", "create_limited", "create_named",
                     "create_active", "attach_recorded"), Create),
    "run_entered": Run,
    "run_answered": Answered,
    **dict.fromkeys(("pea_recorded", "pea_on_disk", "pea_grouped"), RunImage),
    **dict.fromkeys(("destroy_begun", "destroy_ended", "destroy_ungrouped", "destroy_buried", "destroy_detached",
                     "destroy_released", "destroy_forgotten", "detach_forgotten"), Destroy),
    **dict.fromkeys(("volume_reserved", "volume_made", "volume_filled", "volume_recorded", "volume_moved", "volume_live"),
                    VolumeCreate),
    **dict.fromkeys(("copy_recorded", "copy_moved", "copy_noted", "copy_shared"), VolumeCopyOfFresh),
    **dict.fromkeys(("volume_dead", "volume_doomed", "volume_buried", "volume_forgotten"), VolumeDestroy),
    **dict.fromkeys(("adopt_loaded", "adopt_connected", "adopt_answered", "adopt_told", "adopt_settled", "adopt_swept"), Adoption),
}
OF_SHIM = {"run_received": Run, "run_told": Run, "run_succeeded": Run, "exit_noted": Exit}
FAILED = {name: scenarios.FailedDestroy for name, scenario in OF_SERVER.items() if scenario is Destroy}
POINTS = dict(re.findall(r"FAULT_POINT\((\w+), (\d)\)", (TOP / "backend/base/fault.def").read_text()))
OF_HELLO = {"hello_full", "hello_cut"}  # test_hello.py
FAILING = [name for name, fails in POINTS.items() if fails == "1" and name not in OF_HELLO]


def with_point(one, name, action):
    one.env = {**os.environ, "CLOCHE_FP": f"{name}:1:{action}"}


def restart(one):
    if not one.is_ended:
        one.kill()
    one.start()


def restart_plain(one):
    one.env = None
    restart(one)


def prepare(one, scenario, name, action):
    """What it needs, and a server that has the point. An adoption starts one itself."""
    with_point(one, name, action)
    if isinstance(scenario, Adoption):
        one.env = None
    restart(one)
    scenario.before(one)
    with_point(one, name, action)


def test_every_point_is_in_the_table():
    assert POINTS.keys() == OF_SERVER.keys() | OF_SHIM.keys() | OF_HELLO
    sources = "".join(path.read_text() for folder in ("backend", "server", "volumes")
                      for path in (TOP / folder).rglob("*.c"))
    assert sorted(re.findall(r"\bFAULT\((\w+),", sources)) == sorted(POINTS), "each is passed in one place"


@pytest.mark.parametrize("name", OF_SERVER)
def test_the_server_is_killed_at(victim, name):  # noqa: F811
    scenario = OF_SERVER[name]()
    prepare(victim, scenario, name, "kill")
    failure = try_to(scenario.act, victim)
    assert has_died(victim, GUARD), f"nobody has passed {name}: {failure!r}"
    restart_plain(victim)
    scenario.after(victim)
    oracle.settled(victim, victim.before)


@pytest.mark.parametrize("name", OF_SHIM)
def test_the_shim_is_killed_at(victim, name):  # noqa: F811
    scenario = OF_SHIM[name]()
    prepare(victim, scenario, name, "kill")
    assert try_to(scenario.act, victim), f"nobody has passed {name}"
    wait_until(lambda: scenarios.is_dead(victim, "box"), "its death is known")
    restart_plain(victim)
    scenario.after_loss(victim)
    oracle.settled(victim, victim.before)


@pytest.mark.parametrize("name", sample("failing points", FAILING, 12))
def test_it_fails_at(victim, name):  # noqa: F811
    """Whoever asked is told so."""
    scenario = ({**OF_SERVER, **OF_SHIM} | FAILED)[name]()
    prepare(victim, scenario, name, "ENOSPC")
    log_size = victim.log_path.stat().st_size
    failure = try_to(scenario.act, victim)
    if isinstance(scenario, Adoption):
        assert "No space left" in victim.log_text(log_size)
        assert victim.client.handles("garden.state=all") == [], "it could not be had"
        scenario.before(victim)
    else:
        assert failure and "No space left" in str(failure), f"{name}: {failure!r}"
    victim.check()
    scenario.after(victim)
    restart_plain(victim)
    oracle.settled(victim, victim.before)


@pytest.mark.parametrize("name", ["create_born", "volume_moved"])
def test_it_waits_at(victim, name):  # noqa: F811
    """And goes on."""
    scenario = OF_SERVER[name]()
    prepare(victim, scenario, name, "delay=50")
    scenario.act(victim)
    scenario.after(victim)
    restart_plain(victim)
    oracle.settled(victim, victim.before)
