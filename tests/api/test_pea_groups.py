"""The groups of processes with an image of their own: line 105 of Garden's acceptance list, and what ends with them."""
import os
import threading

import cgrouplib
import oracle
import pytest
from conftest import Container, Volume
from gardenlib import Hijacked, wait_until
from test_exit_reasons import ended_lines, reason, usage
from test_limits import MIB, V1, limits
from test_peas import layers, nothing_of_peas, parent_of, pea_pids

TOO_MUCH = "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null; s=$?; rm -f /dev/shm/x; exit $s"


@pytest.fixture
def image(pea_root):
    return {"image": {"uri": str(pea_root)}}


def ours(groups):
    """Without those of controllers that containers have no groups of."""
    return {name: path for name, path in groups.items() if "/cloche-" in str(path)}


def groups_of_container(box):
    return ours(cgrouplib.groups_of(box.init_pid()))


def ready(box, script="cat", **spec):
    process = box.run(f"echo ready; {script}", **spec)
    process.wait_output(b"ready")
    return process


def groups_of_pea(box):
    (pid,) = pea_pids(box)
    return ours(cgrouplib.groups_of(pid))


def pea_groups_left(box, containers):
    """Groups of processes of the container, below and beside its own."""
    return [path for own in set(containers.values())
            for path in [*own.glob("pea-*"), *own.parent.glob(f"{own.name}-p*")]]


def no_groups_left(box, containers):
    wait_until(lambda: not pea_groups_left(box, containers), "its groups are gone")


def test_line_105_it_counts_in_the_containers_groups(box, image):
    own = groups_of_container(box)
    process = ready(box, **image)
    found = groups_of_pea(box)
    assert found["unified"].parent == own["unified"] and found["unified"].name.startswith("pea-")
    assert {**found, "unified": None} == {**own, "unified": None}
    assert "0::/pea-" in box.output("cat /proc/self/cgroup", **image)
    process.end_stdin()
    assert process.wait() == 0
    no_groups_left(box, own)


def test_line_105_the_containers_limit_holds(make_container, root, image):
    box = make_container(rootfs=str(root), limits=limits(memory=32 * MIB))
    assert box.sh(TOO_MUCH, **image)[0] == 137
    assert "out of memory: limit 32.0 MiB" in reason(box)


def test_line_105_empty_limits_are_none(make_container, root, image):
    box = make_container(rootfs=str(root), limits=limits(memory=32 * MIB))
    own = groups_of_container(box)
    process = ready(box, limits={}, **image)
    assert all(path.parent == own[name].parent and path != own[name] for name, path in groups_of_pea(box).items())
    process.end_stdin()
    process.wait()
    assert box.sh(TOO_MUCH, limits={}, **image)[0] == 0
    no_groups_left(box, own)


def test_line_105_limits_of_its_own(make_container, root, image):
    box = make_container(rootfs=str(root), limits=limits(memory=256 * MIB))
    own = {"limits": {"memory_limits": {"limit_in_bytes": 24 * MIB}, "cpu_limits": {"weight": 123}}}
    process = ready(box, **own, **image)
    groups = groups_of_pea(box)
    memory = groups["memory"] / "memory.limit_in_bytes" if V1 else groups["unified"] / "memory.max"
    weight = groups.get("cpu", groups.get("cpu,cpuacct")) / "cpu.shares" if V1 else groups["unified"] / "cpu.weight"
    assert (int(memory.read_text()), int(weight.read_text())) == (24 * MIB, 123 if V1 else 20)
    process.end_stdin()
    process.wait()
    status, _, err = box.sh(TOO_MUCH, **own, **image)
    assert status == 137 and b"cloche: killed by OOM: limit 24.0 MiB, peak 24.0 MiB, a process started by sh(" in err
    assert "out of memory: limit 24.0 MiB" in reason(box) and box.info()["Events"] == ["Out of memory"]
    assert box.sh(TOO_MUCH)[0] == 0, "the others have the container's limit"


@pytest.mark.skipif(not V1, reason="v2 takes every number")
def test_limits_that_cannot_be(box, pea_root):
    reply = box.client.run_refused(box.handle, {"path": "true", "image": {"uri": str(pea_root)},
                                                "limits": {"cpu_limits": {"weight": 1}}})
    assert (reply.status, reply.json["Message"]) == (500, "limits.cpu_limits.weight: minimum allowed cpu-shares is 2")


def test_devices_are_narrowed_beside_the_container_too(box, image, tmp_path):
    process = ready(box, limits={}, **image)
    (pid,) = pea_pids(box)
    nodes = ["c:1:3", "c:1:1", cgrouplib.disk_node()]
    assert [done[1] for done in cgrouplib.attempts_from(pid, tmp_path, nodes).values()] == ["ok", "EPERM", "EPERM"]
    process.end_stdin()
    process.wait()


@pytest.mark.parametrize("apart", [False, True], ids=["below", "beside"])
def test_what_it_has_started_ends_before_its_volume_is_free(server, box, image, apart):
    """Its orphans write on and on, and take no signal: nothing is given back before they are gone."""
    spec = {**image, **({"limits": {}} if apart else {})}
    volume = Volume(server.volumes)
    script = "(trap '' TERM HUP; while :; do date >/v/x 2>&1; done) </dev/null >/dev/null 2>&1 & while [ ! -e /v/x ]; do :; done"
    own = groups_of_container(box)
    box.output(script, bind_mounts=[volume.bind("/v")], **spec)
    volume.destroy()
    wait_until(lambda: not server.volume_files(), "the volume is used no more")
    no_groups_left(box, own)
    nothing_of_peas(server)


def test_a_killed_one_takes_its_children_along(box, image):
    own = groups_of_container(box)
    process = ready(box, "sleep 1000 & wait", **image)
    process.signal(1)
    assert process.wait_exit_line() == 137
    process.close()
    no_groups_left(box, own)
    wait_until(lambda: "sleep" not in box.output("cat /proc/[0-9]*/comm"), "the child is gone")


def test_destroy_takes_the_groups_along(server, make_container, root, image):
    box = make_container(rootfs=str(root))
    own = groups_of_container(box)
    processes = [ready(box, "sleep 1000", **image, **more) for more in ({}, {"limits": {}})]
    box.destroy()
    assert not any(path.exists() for path in own.values()) and not pea_groups_left(box, own)
    for process in processes:
        assert process.wait_exit_line() == 137
        process.close()


def test_usage_of_one(box, image):
    """Its name, its number inside, and what it wrote."""
    box.output("echo $$; dd if=/dev/zero of=/x bs=1M count=4 conv=fsync 2>/dev/null", **image)
    assert usage(box)["written_bytes"] >= 4 * MIB and usage(box)["exit_status"] == 0
    process = box.run("echo $$; kill -9 $$", limits={"memory_limits": {"limit_in_bytes": 64 * MIB}}, **image)
    assert process.wait() == 137 and int(process.stdout) > 1
    assert reason(box) == "killed by signal 9 (KILL)" and ended_lines(box)[-1]["reason"] == reason(box)
    status, _, err = box.program("/bin/dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=40", **image,
                                 limits={"memory_limits": {"limit_in_bytes": 24 * MIB}})
    assert status == 137 and err.split(b"process ")[1].startswith(b"dd(") and b"dd(0)" not in err


# ---- while it is made: its builder is stopped by freezing the group that it is born into ---------------------------------

def frozen(group, value):
    (group / "cgroup.freeze").write_text(value)
    wait_until(lambda: f"frozen {value}" in (group / "cgroup.events").read_text(), "the group obeys")


def builder_of(group):
    """The builder below a container's frozen group."""
    def pids():
        return [int(pid) for file in group.glob("pea-*/cgroup.procs") for pid in file.read_text().split()]

    wait_until(lambda: len(pids()) == 1, "the builder is there")
    return pids()[0]


def run_in_background(box, spec):
    replies = []

    def run():
        try:
            replies.append(box.client.run_refused(box.handle, {"path": "/bin/true", "id": "p", **spec}))
        except (Hijacked, OSError, EOFError, AssertionError, ValueError) as error:
            replies.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, replies


def test_kill_of_the_server_while_one_is_made(start_server, root, image):
    server = start_server()
    box = Container(server, rootfs=str(root))
    volume = Volume(server.volumes)
    own, shim = groups_of_container(box), parent_of(box.init_pid())
    frozen(own["unified"], "1")
    thread, _ = run_in_background(box, {**image, "bind_mounts": [volume.bind("/v")]})
    builder = builder_of(own["unified"])
    assert parent_of(builder) == shim
    server.kill()
    thread.join(30)
    server.start()
    box.client = server.client
    wait_until(lambda: not os.path.exists(f"/proc/{builder}"), "the builder is gone")
    assert not layers(server) and not pea_groups_left(box, own)
    frozen(own["unified"], "0")
    assert box.output("echo alive") == "alive\n" and not pea_pids(box)
    server.volumes.destroy(volume.handle)
    wait_until(lambda: not server.volume_files(), "its volume is used no more")
    assert box.run("exit 3", id="p", **image).wait() == 3


def test_a_run_that_takes_too_long(server, box, image, volume):
    """The answer comes when the time is over; by then its builder is dead, and nothing is left to it."""
    own = groups_of_container(box)
    frozen(own["unified"], "1")
    thread, replies = run_in_background(box, {**image, "bind_mounts": [volume.bind("/v")]})
    builder = builder_of(own["unified"])
    thread.join(120)
    assert replies[0].status == 504, replies
    assert not os.path.exists(f"/proc/{builder}") or oracle.read(f"/proc/{builder}/stat").split()[2] == "Z"
    assert not pea_groups_left(box, own) and not layers(server)
    frozen(own["unified"], "0")
    volume.destroy()
    wait_until(lambda: not server.volume_files(), "its volume is used no more")


# ---- metrics ------------------------------------------------------------------------------------------------------------

BUSY = "dd if=/dev/zero of=/x bs=1M count=9 2>/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; read x"


def metrics_of(client, process):
    entry = client.ok("GET", f"/containers/bulk_metrics?handles={process.id},nobody")
    assert entry["nobody"]["Err"]["Message"] == "unknown handle: nobody"
    assert entry[process.id]["Err"] is None, entry
    return entry[process.id]["Metrics"]


@pytest.mark.parametrize("apart", [False, True], ids=["below", "beside"])
def test_line_106_metrics_of_one(start_server, root, image, apart):
    server = start_server()
    box = Container(server, rootfs=str(root))
    spec = {**image, **({"limits": {"memory_limits": {"limit_in_bytes": 64 * MIB}}} if apart else {})}
    process = box.run(BUSY, **spec)
    process.wait_output(b"done")
    for after_restart in (False, True):
        if after_restart:
            server.kill()
            server.start()
            box.client = server.client
        found = metrics_of(box.client, process)
        assert found["CPUStat"]["Usage"] > 1000000 and found["PidStat"]["Current"] == 1
        assert found["MemoryStat"]["TotalUsageTowardLimit"] > 0 and found["Age"] > 0
        assert (found["MemoryStat"]["hierarchical_memory_limit"] == 64 * MIB) == apart
        assert 9 * MIB <= found["DiskStat"]["ExclusiveBytesUsed"] < 10 * MIB
        assert found["DiskStat"]["TotalBytesUsed"] - found["DiskStat"]["ExclusiveBytesUsed"] > 500000
    again = box.attach(process.id)
    again.end_stdin()
    assert again.wait() == 1  # read has seen the end
    entry = box.client.ok("GET", f"/containers/bulk_metrics?handles={process.id}")[process.id]
    assert entry["Err"]["Message"] == f"unknown handle: {process.id}"
