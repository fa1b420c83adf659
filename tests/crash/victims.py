"""A server that is cut off again and again. A module's how_to_start says with what options of Server."""
import contextlib

import pytest
import oracle
import scenarios
from conftest import have_server
from serverproc import BUSYBOX_ROOT, NO_POOL, Server


def start_victim(directory, **more):
    """A server that is killed again and again, with one volume."""
    have_server()
    one = Server(*NO_POOL, directory=directory, **more)
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
        how = getattr(request.module, "how_to_start", dict)
        victims.append(start_victim(tmp_path_factory.mktemp("victim"), **how()))
    n_failed = request.session.testsfailed
    yield victims[0]
    if request.session.testsfailed > n_failed:
        with contextlib.suppress(Exception):
            victims.pop().finish()
