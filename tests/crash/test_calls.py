"""System calls of the server that fail: what was asked is refused with the kernel's reason or done all the same, nothing
is left of it, and everything works again without a restart."""
import pytest
from crashlib import injected, sample, try_to  # first: it finds the tests of the API
import oracle
import scenarios
from conftest import nothing_left, server, start_server  # noqa: F401
from serverproc import NO_POOL
from test_kills import n_calls, the_server
from test_worker_health import Watched
from victims import victim, victims  # noqa: F401

RECORDS = "pwrite64,fsync,fdatasync,ftruncate"
CHANGES = f"mkdir,mkdirat,mknodat,renameat,renameat2,rename,unlinkat,unlink,rmdir,symlinkat,linkat,chmod,fchmodat,{RECORDS}"
BIRTHS = "clone,clone3,fork,vfork"


def refused(victim, scenario, n, errno, calls, text, **more):  # noqa: F811
    """The operation while calls fail: the failure's text, None if it succeeded."""
    scenario.before(victim)
    with injected(n, errno, [victim.pid], calls=calls, **more) as injector:
        failure = try_to(scenario.act, victim)
    print(f"{type(scenario).__name__} {n} {errno}: {injector.hits}, {failure!r}")
    victim.check()
    assert not failure or text in str(failure), failure
    return failure


@pytest.mark.parametrize("name", ["Create", "SetProperty", "NetIn", "VolumeCreate", "VolumeProperty"])
def test_4_11_the_record_cannot_be_written(victim, name):  # noqa: F811
    scenario = getattr(scenarios, name)()
    assert refused(victim, scenario, "1+", "EIO", RECORDS, "disk I/O error"), "taken for success"
    scenario.after(victim)
    oracle.settled(victim, victim.before)


def change_until_refused(victim):  # noqa: F811
    """Long properties, by twos, until the log of the record is synced: the refusal."""
    for n in range(4000):
        path, value = f"/containers/box/properties/p{n % 2}", f"{n:05d}" * 2000
        if failure := try_to(lambda one: one.client.ok("PUT", path, {"value": value}), victim):
            return str(failure)
    raise AssertionError("nothing was ever synced")


def test_4_11_a_sync_fails(victim):  # noqa: F811
    """What was written may be lost, and no later success says otherwise: from then on the record is read only, until a
    restart. What runs goes on."""
    victim.client.create("box")
    with injected("1+", "EIO", [victim.pid], calls="fsync,fdatasync"):
        change_until_refused(victim)
    assert "the disk has failed to keep" in change_until_refused(victim)
    reply = victim.client.request("GET", "/ping")
    assert reply.status == 500 and "the disk has failed to keep" in reply.json["Message"], reply
    assert "the disk has failed to keep" in str(try_to(lambda one: one.client.create("new"), victim))
    assert victim.client.handles() == ["box"]
    assert victim.client.output("box", "echo runs") == "runs\n"
    victim.kill()
    victim.start()
    assert victim.client.request("GET", "/ping").status == 200
    assert victim.client.output("box", "echo runs") == "runs\n"
    victim.client.destroy("box")
    oracle.settled(victim, victim.before)


def test_4_11_a_worker_whose_record_is_not_kept_is_not_ready(start_server):  # noqa: F811
    """It lives, and finishes what runs."""
    one = Watched(start_server, *NO_POOL)
    one.server.client.create("box")
    with injected("1+", "EIO", [one.server.pid], calls="fsync,fdatasync"):
        change_until_refused(one.server)
    readyz = one.get("/readyz")
    failing = {check["name"]: check["reason"] for check in readyz.json["checks"] if not check["ok"]}
    assert (readyz.status, readyz.json["status"]) == (503, "failing")
    assert "the disk has failed to keep" in failing["record"], failing
    assert one.server.client.output("box", "echo runs") == "runs\n"


def test_4_11_a_destroy_after_a_sync_has_failed(victim):  # noqa: F811
    """Nothing runs any more, and the rest waits for a record that keeps it."""
    victim.client.create("box")
    with injected("1+", "EIO", [victim.pid], calls="fsync,fdatasync"):
        change_until_refused(victim)
        assert "the disk has failed to keep" in str(try_to(lambda one: one.client.destroy("box"), victim))
    assert victim.client.handles("garden.state=all") == ["box"]
    victim.kill()
    victim.start()
    if victim.client.handles("garden.state=all"):
        victim.client.destroy("box")
    oracle.settled(victim, victim.before)


def is_of_the_store(failure):
    """Of a file, or of the record."""
    return "Read-only" in str(failure) or "I/O error" in str(failure) or "readonly" in str(failure)


def test_4_12_containers_on_a_store_that_is_read_only(victim):  # noqa: F811
    """Nothing new, and what runs goes on: it is attached, run in and stopped. It is destroyed, or later."""
    scenario = scenarios.Attach()
    scenario.before(victim)
    with injected("1+", "EROFS", [victim.pid], calls=CHANGES):
        for change in (lambda one: one.client.create("new"), scenarios.SetProperty().act, scenarios.NetIn().act):
            failure = try_to(change, victim)
            assert failure and is_of_the_store(failure), failure
        assert victim.client.handles("garden.state=all") == ["box"]
        scenario.act(victim)
        assert victim.client.output("box", "echo runs") == "runs\n"
        waiting = victim.client.run("box", {"path": "/bin/sh", "args": ["-c", "read x"]})
        failure = try_to(victim.client.stop, "box", True)
        assert not failure or is_of_the_store(failure), failure
        assert waiting.wait() == 137
        failure = try_to(victim.client.destroy, "box")
        assert not failure or is_of_the_store(failure), failure
    victim.check()
    assert bool(failure) == ("box" in victim.client.handles("garden.state=all"))
    for handle in victim.client.handles("garden.state=all"):
        victim.client.destroy(handle)
    assert victim.client.handles("garden.state=all") == []
    scenario = scenarios.Create()
    scenario.act(victim)
    scenario.after(victim)
    oracle.settled(victim, victim.before)


@pytest.mark.parametrize("name", ["VolumeCreate", "VolumeCopyOfFresh"])
def test_4_12_the_store_is_read_only(victim, name):  # noqa: F811
    """What runs, runs on."""
    victim.client.create("other")
    scenario = getattr(scenarios, name)()
    scenario.before(victim)
    with injected("1+", "EROFS", [victim.pid], calls=CHANGES):
        failure = try_to(scenario.act, victim)
        assert victim.client.output("other", "echo runs") == "runs\n"
    assert failure and is_of_the_store(failure), failure
    victim.client.destroy("other")
    scenario.after(victim)
    oracle.settled(victim, victim.before)


@pytest.mark.parametrize("name", ["Create", "Run", "RunImage", "VolumeStreamIn"])
@pytest.mark.parametrize("of_children", [False, True], ids=["server", "children"])
def test_4_16_nobody_is_born(victim, name, of_children):  # noqa: F811
    scenario = getattr(scenarios, name)()
    calls = n_calls(victim, scenario, the_server, calls=BIRTHS, of_children=of_children)
    for n in sample(f"births of {name} {of_children}", range(1, len(calls) + 1), 2):
        refused(victim, scenario, n, "EAGAIN", BIRTHS, "", of_children=of_children)
        scenario.after_loss(victim)
        oracle.settled(victim, victim.before, timeout=150)  # whoever was told of an exit has a minute to close


def test_4_18_a_group_is_busy(victim):  # noqa: F811
    """Destroyed, or there and destroyed by who asks again."""
    victim.client.create("box")
    with injected("1+", "EBUSY", [victim.pid], calls="rmdir,unlinkat"):
        failure = try_to(victim.client.destroy, "box")
    assert bool(failure) == ("box" in victim.client.handles("garden.state=all"))
    if failure:
        assert "busy" in str(failure), failure
        victim.client.destroy("box")
    oracle.settled(victim, victim.before)
