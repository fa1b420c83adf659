"""What a container may use: lines 87 to 90 and 128 of garden.md, rows 1.6; P0 line 42."""
import re

import pytest

import oracle
from conftest import Container, unique_name
from gardenlib import Hijacked
from serverproc import refused_start
from test_wire import assert_error

MIB = 1 << 20
V1 = (oracle.CGROUPS / "memory/memory.limit_in_bytes").exists()


def limits(memory=None, pids=None, **cpu):
    made = {}
    if memory is not None:
        made["memory_limits"] = {"limit_in_bytes": memory}
    if pids is not None:
        made["pid_limits"] = {"max": pids}
    if cpu:
        made["cpu_limits"] = cpu
    return made


def asked(box, name):
    return box.client.ok("GET", f"{box.path}/limits/{name}")


def file_of(box, controller, name):
    """A file of its group, read inside: its own read-only view."""
    path = f"/sys/fs/cgroup/{controller}/{name}" if V1 else f"/sys/fs/cgroup/{name}"
    return box.output(f"cat {path}").strip()


@pytest.fixture
def limited(make_container):
    return lambda **values: make_container(limits=limits(**values))


def test_line_87_memory(limited):
    box = limited(memory=64 * MIB)
    assert asked(box, "memory") == {"limit_in_bytes": 64 * MIB}
    assert box.sh("dd if=/dev/zero of=/dev/shm/x bs=1M count=65")[0] == 137
    assert box.output("rm -f /dev/shm/x; dd if=/dev/zero of=/dev/shm/x bs=1M count=58 2>/dev/null; echo lives") == (
        "lives\n")


def test_memory_and_swap_have_one_limit(limited, start_server):
    box = limited(memory=64 * MIB)
    memory, swap = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if V1 else ("memory.max", "memory.swap.max")
    assert file_of(box, "memory", memory) == str(64 * MIB)
    assert file_of(box, "memory", swap) == (str(64 * MIB) if V1 else "0")
    server = start_server("--disable-swap-limit")
    box = Container(server, limits=limits(memory=64 * MIB))
    assert file_of(box, "memory", memory) == str(64 * MIB)
    assert file_of(box, "memory", swap) != (str(64 * MIB) if V1 else "0")


def test_a_huge_memory_limit_is_capped(limited):
    box = limited(memory=2**64 - 1)
    assert asked(box, "memory") == {"limit_in_bytes": 2**63 - 1}


def test_line_88_pids(limited):
    box = limited(pids=50)
    assert file_of(box, "pids", "pids.max") == "50"
    status, _, err = box.sh("i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done")
    assert status != 0 and (b"can't fork" in err or b"Resource temporarily unavailable" in err), err
    unlimited = limited(pids=0)
    assert file_of(unlimited, "pids", "pids.max") == "max"
    assert unlimited.output("i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; echo $i") == "60\n"


@pytest.mark.parametrize("given, weighs", [
    ({"limit_in_shares": 100}, (100, 17)), ({"weight": 123}, (123, 20)), ({"limit_in_shares": 1024}, (1024, 100)),
    ({"weight": 280, "limit_in_shares": 50}, (280, 37))], ids=str)
def test_line_89_cpu(limited, given, weighs):
    box = limited(**given)
    weighs = weighs[0 if V1 else 1]
    assert asked(box, "cpu") == {"limit_in_shares": weighs}
    assert file_of(box, "cpu", "cpu.shares" if V1 else "cpu.weight") == str(weighs)
    if V1:
        assert file_of(box, "cpu", "cpu.cfs_quota_us") == "-1"


@pytest.mark.skipif(not V1, reason="v2 takes every number")
@pytest.mark.parametrize("field", ["weight", "limit_in_shares"])
def test_too_few_shares(client, field):
    name = unique_name()
    reply = client.request("POST", "/containers", {"handle": name, "limits": {"cpu_limits": {field: 1}}})
    assert_error(reply, 500, "", f"limits.cpu_limits.{field}: minimum allowed cpu-shares is 2")
    assert name not in client.handles("garden.state=all")


@pytest.mark.parametrize("shares, quota", [(128, 1280), (50, 1000)])
def test_quota_by_option(start_server, shares, quota):
    server = start_server("--cpu-quota-per-share", "10")
    box = Container(server, limits=limits(limit_in_shares=shares))
    if V1:
        assert file_of(box, "cpu", "cpu.cfs_period_us") == "100000"
        assert file_of(box, "cpu", "cpu.cfs_quota_us") == str(quota)
    else:
        assert file_of(box, "cpu", "cpu.max") == f"{quota} 100000"
    other = Container(server)
    assert file_of(other, "cpu", "cpu.cfs_quota_us" if V1 else "cpu.max") in ("-1", "max 100000")


def test_line_90_no_limits(container):
    for name in ("bandwidth", "cpu", "disk", "memory"):
        assert asked(container, name) == {}
    if V1:
        assert file_of(container, "cpu", "cpu.shares") == "1024"
    else:
        assert file_of(container, "cpu", "cpu.weight") == "100"


def test_bandwidth_is_kept(make_container):
    box = make_container(limits={"bandwidth_limits": {"rate": 1000, "burst": 2000}})
    assert asked(box, "bandwidth") == {"rate": 1000, "burst": 2000}


def test_too_little_memory_to_begin_with(client):
    name = unique_name()
    reply = client.request("POST", "/containers", {"handle": name, "limits": limits(memory=4096)})
    assert_error(reply, 500)
    assert re.match("limits.memory_limits.limit_in_bytes: 4096 bytes are too few", reply.json["Message"])
    assert name not in client.handles("garden.state=all")
    client.create(name)
    client.destroy(name)


def test_a_pids_limit_that_leaves_no_room(limited):
    """Init alone fills it: the container is there, and a run says why nothing runs."""
    box = limited(pids=1)
    with pytest.raises(Hijacked) as refusal:
        box.run("true")
    assert "Resource temporarily unavailable" in refusal.value.reply.json["Message"]


def test_what_the_container_sees_is_read_only(limited):
    box = limited(memory=64 * MIB, pids=20, limit_in_shares=50)
    for controller, name in (("memory", "memory.limit_in_bytes" if V1 else "memory.max"), ("pids", "pids.max"),
                             ("cpu", "cpu.shares" if V1 else "cpu.weight")):
        path = f"/sys/fs/cgroup/{controller}/{name}" if V1 else f"/sys/fs/cgroup/{name}"
        assert "Read-only file system" in box.sh(f"echo 1000000 > {path}")[2].decode()
        assert box.output(f"stat -c %u {path}") == "65534\n", "the host's root owns it"


def test_p0_42_limits_hold_for_the_first_instruction(limited, root, make_container):
    box = make_container(rootfs=str(root), limits=limits(memory=64 * MIB, pids=20))
    groups = {tuple(line) for line in box.probe("cgroup")}
    for line in groups:
        assert line[0].endswith(":/"), line


def test_limits_survive_the_server(start_server):
    server = start_server()
    given = {**limits(memory=64 * MIB, pids=20, weight=300), "bandwidth_limits": {"rate": 5}}
    box = Container(server, limits=given)
    before = {name: asked(box, name) for name in ("bandwidth", "cpu", "disk", "memory")}
    server.kill()
    server.start()
    box.client = server.client
    assert {name: asked(box, name) for name in before} == before
    assert before["memory"] == {"limit_in_bytes": 64 * MIB}
    assert file_of(box, "pids", "pids.max") == "20"


def test_destroy_with_limits_leaves_nothing(server, limited):
    for _ in range(3):
        box = Container(server, limits=limits(memory=64 * MIB, pids=20, weight=300))
        box.output("true")
        box.destroy()


@pytest.mark.parametrize("option, value", [
    ("--cpu-quota-per-share", "1000001"), ("--cpu-quota-per-share", "-1"), ("--cpu-entitlement-per-share", "much"),
    ("--cpu-entitlement-per-share", "-0.5")])
def test_options_out_of_range(tmp_path, option, value):
    code, text = refused_start(option, value, directory=tmp_path)
    assert code == 1 and option in text
