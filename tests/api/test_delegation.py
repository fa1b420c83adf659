"""Where the groups of containers lie on a cgroup v2 host that has controllers there: a server in a group of its own, in
one that it shares, in none at all, in one that it is told. On hybrid hosts there is nothing to hand down."""
import os
import re
import subprocess

import pytest

import cgrouplib
import oracle
from conftest import Container, unique_name
from gardenlib import wait_until
from serverproc import refused_start

TOP = cgrouplib.v2_mount()
needs_controllers = pytest.mark.skipif(
    not TOP or "memory" not in oracle.read(f"{TOP}/cgroup.controllers").split(), reason="v2 has no controllers on this host")


def words(group, name):
    return set(oracle.read(f"{group}/{name}").split())


@pytest.fixture
def group():
    """A group as systemd makes one for a service with Delegate=yes; with what is below it, it ends with the test."""
    path = TOP / unique_name("service")
    path.mkdir()
    yield path
    wait_until(lambda: remove(path), "the group is empty")


def remove(path):
    for top, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(top)
        except OSError:
            return False
    return True


def group_of(box):
    return cgrouplib.groups_of(box.init_pid())["unified"]


def assert_limits_work(group):
    """The files of limits are there, and one holds."""
    for name in ("memory.max", "cpu.max", "pids.max"):
        assert (group / name).exists(), name
    (group / "pids.max").write_text("3")
    assert oracle.read(group / "pids.max") == "3\n"


@needs_controllers
def test_at_the_root(server, container):
    """Where nobody else hands out groups: below the root, whose processes disturb nobody."""
    group = group_of(container)
    assert re.fullmatch(rf"{TOP}/cloche-[0-9a-f]{{8}}/[^/]+", str(group))
    assert {"memory", "cpu", "pids"} <= words(group, "cgroup.controllers")
    assert_limits_work(group)
    assert b"can't fork" in container.sh("sleep 9 & sleep 9 & sleep 9 & sleep 9; true")[2]


@needs_controllers
def test_in_a_group_of_its_own(group, start_server):
    """It moves into a leaf, stays there when it is started anew, and finds its containers."""
    server = start_server(prefix=cgrouplib.started_in(group))
    assert cgrouplib.groups_of(server.pid)["unified"] == group / "server"
    box = Container(server)
    inside = group_of(box)
    assert inside.parent.parent == group
    assert_limits_work(inside)
    assert words(group, "cgroup.procs") == set()
    server.kill()
    server.prefix = cgrouplib.started_in(group / "server")  # as DelegateSubgroup=server has it
    server.start()
    assert cgrouplib.groups_of(server.pid)["unified"] == group / "server"
    box.client = server.client
    assert box.output("echo still here") == "still here\n"
    box.destroy()
    wait_until(lambda: not inside.exists(), "the container's group is gone")


@needs_controllers
def test_in_a_leaf_of_systemds(group, start_server):
    """DelegateSubgroup=server: it stays there, so that the unit can be started anew."""
    (group / "server").mkdir()
    os.setxattr(group, "trusted.delegate", b"1")
    server = start_server(prefix=cgrouplib.started_in(group / "server"))
    assert cgrouplib.groups_of(server.pid)["unified"] == group / "server"
    box = Container(server)
    assert group_of(box).parent.parent == group
    assert words(group / "server", "cgroup.subtree_control") == set()
    box.destroy()


@needs_controllers
def test_in_a_group_with_a_stranger(group, start_server):
    """As from a login shell: that group stays as it is."""
    stranger = subprocess.Popen([*cgrouplib.started_in(group), "sleep", "600"])
    try:
        wait_until(lambda: words(group, "cgroup.procs") == {str(stranger.pid)}, "the stranger is in the group")
        server = start_server(prefix=cgrouplib.started_in(group))
        assert cgrouplib.groups_of(server.pid)["unified"] == group
        box = Container(server)
        assert group_of(box).parent.parent == TOP
        assert_limits_work(group_of(box))
        assert words(group, "cgroup.subtree_control") == set() and words(group, "cgroup.type") == {"domain"}
        box.destroy()
        server.terminate()
    finally:
        stranger.kill()
        stranger.wait()


@needs_controllers
def test_in_a_group_that_is_named(group, start_server):
    server = start_server("--cgroup-parent", f"/{group.name}/deep/er")
    box = Container(server)
    assert group_of(box).parent.parent == group / "deep/er"
    assert_limits_work(group_of(box))
    box.destroy()
    server.terminate()


@needs_controllers
def test_a_named_group_that_is_occupied(group, tmp_path):
    stranger = subprocess.Popen([*cgrouplib.started_in(group), "sleep", "600"])
    try:
        wait_until(lambda: words(group, "cgroup.procs"), "the stranger is in the group")
        code, text = refused_start("--cgroup-parent", f"/{group.name}", directory=tmp_path)
        assert code == 1 and f"--cgroup-parent /{group.name}: hand down controllers: Device or resource busy" in text
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.skipif(not TOP, reason="no cgroup v2 on this host")
def test_another_parent_while_containers_live(group, start_server):
    """They are found where they are; the next server that has none goes where it is told."""
    server = start_server("--container-pool", "0")
    box = Container(server)
    first = group_of(box)
    server.kill()
    server.args = (*server.args, "--cgroup-parent", f"/{group.name}")
    server.start()
    reasons = [line["data"]["reason"] for line in server.log_lines() if line["message"] == "cloche.cgroup-parent-elsewhere"]
    assert f"{first.parent} still holds containers" in reasons
    box.client = server.client
    assert box.output("echo still here") == "still here\n"
    other = Container(server)
    assert group_of(box) == first and group_of(other).parent == first.parent
    box.destroy()
    other.destroy()
    wait_until(lambda: not first.exists(), "its group is gone")
    server.kill()
    server.start()
    assert not first.parent.exists(), "an empty parent of before is removed"
    box = Container(server)
    assert group_of(box).parent.parent == group
    box.destroy()


@pytest.mark.parametrize("path", ["/a/../b", "..", "/" + "a" * 2000])
def test_a_parent_that_is_no_path(tmp_path, path):
    code, text = refused_start("--cgroup-parent", path, directory=tmp_path)
    assert code == 1 and "--cgroup-parent '/" in text and "expected the path of a group" in text


def test_a_parent_that_the_kernel_refuses(tmp_path):
    code, text = refused_start("--cgroup-parent", "/two\nlines", directory=tmp_path)
    assert code == 1 and "--cgroup-parent /two" in text and "Invalid argument" in text


@pytest.mark.skipif(bool(TOP) and "memory" in oracle.read(f"{TOP}/cgroup.controllers").split(), reason="v2 has controllers")
def test_a_hybrid_host_is_left_as_it_is(server, container):
    own = cgrouplib.groups_of(server.pid)["unified"]
    assert own.name != "server" and group_of(container).parent.parent == own
    assert "memory" not in words(own, "cgroup.subtree_control")
