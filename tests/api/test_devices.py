"""Security line 44: the device policy, in both of its forms (the v1 list, and the program on a v2 group), apart from
what user namespaces and mount flags refuse."""
import os
import sqlite3
import subprocess

import pytest

import cgrouplib
import oracle
from conftest import Container
from gardenlib import wait_until

ALLOWED = ["c:1:3", "c:1:5", "c:1:7", "c:1:8", "c:1:9", "c:5:0", "c:5:2", "c:10:200", "c:136:0", "c:136:77"]
FUSE = "c:10:229"
REFUSED = ["c:1:1", "c:1:2", "c:1:4", "c:1:11", "c:5:1", "c:4:0", "c:10:232", "c:10:237", "c:135:0", "c:137:0", "c:195:0",
           "b:1:3", "b:5:0", "b:7:0", "b:8:0", "b:10:200", "b:254:0"]


@pytest.fixture(params=["as it is", "by program"])
def device_server(request, start_server):
    """On a host as this one is, and on one without the v1 controller: there the program alone stands in the way."""
    return start_server(prefix=cgrouplib.WITHOUT_V1_DEVICES if request.param == "by program" else ())


@pytest.mark.parametrize("privileged", [False, True])
def test_p0_44_devices_that_a_group_may_use(device_server, tmp_path, privileged):
    box = Container(device_server, privileged=privileged)
    nodes = [*ALLOWED, FUSE, *REFUSED, cgrouplib.disk_node()]
    results = cgrouplib.attempts_from(box.init_pid(), tmp_path, nodes)
    assert all(result[0] == "ok" for result in results.values()), results
    usable = {node for node, result in results.items() if result[1:] == ["ok", "ok"]}
    refused = {node for node, result in results.items() if result[1:] == ["EPERM", "EPERM"]}
    assert usable == {*ALLOWED, *([FUSE] if privileged else [])}
    assert usable | refused == set(nodes), results
    outside = cgrouplib.attempts_from("self", tmp_path, REFUSED[:3])
    assert "EPERM" not in sum(outside.values(), []), "the attempts themselves would succeed"
    box.destroy()


def test_p0_44_a_privileged_container_makes_nodes_but_cannot_open_them(device_server, root):
    box = Container(device_server, privileged=True, rootfs=str(root))
    loop, disk = "b:7:0", cgrouplib.disk_node()
    assert box.probe("nodes", loop, disk, "c:1:3", dir="/dev") == [
        ["mknod", loop, "ok"], ["open", loop, "EPERM"], ["mknod", disk, "ok"], ["open", disk, "EPERM"],
        ["mknod", "c:1:3", "ok"], ["open", "c:1:3", "ok"]]
    assert box.sh("echo x >/dev/null && head -c 3 /dev/zero /dev/urandom >/dev/null")[0] == 0
    assert box.program("/bin/sh", "-c", "echo on a tty; test -c /dev/tty", tty={})[0] == 0
    box.destroy()


def test_a_host_that_refuses_programs(start_server, deny, tmp_path):
    """Without a device policy there is no container, and nothing of it stays."""
    server = start_server(prefix=(*cgrouplib.WITHOUT_V1_DEVICES, deny, "bpf", "EPERM"))
    for _ in range(2):
        reply = server.client.request("POST", "/containers", json={"handle": "refused"})
        assert reply.status == 500, reply
        assert reply.json["Message"].endswith("device policy: bpf(2) refused to load the program: Operation not permitted")
    assert server.client.handles("garden.state=all") == []
    wait_until(lambda: not groups_below(server), "no group is left")


def groups_below(server):
    """The groups of its containers, found by the name that its database keeps."""
    with sqlite3.connect(f"file:{server.work}/state.db?mode=ro", uri=True) as database:
        name = database.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()[0]
    # os.walk passes over what goes while it looks
    below = [names for directory, names, _ in os.walk(oracle.CGROUPS) if directory.endswith(f"/cloche-{name}")]
    assert below, "the server has its parent group"
    return [name for names in below for name in names]


def test_the_hidden_controller_was_hidden():
    """A control: the prefix works."""
    done = subprocess.run([*cgrouplib.WITHOUT_V1_DEVICES, "cat", "/proc/mounts"], check=True, stdout=subprocess.PIPE)
    assert b" /sys/fs/cgroup/devices " not in done.stdout and b" cgroup2 " in done.stdout
