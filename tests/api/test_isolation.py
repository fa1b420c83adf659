"""Isolation as the acceptance list has it: lines 78-86."""
import re

import oracle
import pytest
from conftest import Container, unique_name
from test_users import status_lines

CAP_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
DEFAULT_CAPS = 0xa80425fb
PRIVILEGED_USER_CAPS = 0xa82425fb


def caps(lines):
    return {name: int(lines[name], 16) for name in CAP_SETS}


def all_the_same(value):
    return {"CapInh": 0, "CapPrm": value, "CapEff": value, "CapBnd": value, "CapAmb": 0}


def mounts(box, **spec):
    """Mount points in the container: type, options of the mount and of the file system."""
    found = {}
    for line in box.output("cat /proc/self/mountinfo", **spec).splitlines():
        left, right = line.split(" - ")
        fields, (kind, source, options) = left.split(), right.split(" ", 2)
        found[fields[4]] = (kind, set(fields[5].split(",")), set(options.split(",")), source)
    return found


@pytest.fixture(scope="module")
def privileged(server, root, nothing_left):
    box = Container(server, unique_name(), rootfs=str(root), privileged=True)
    yield box
    box.destroy()


@pytest.mark.parametrize("kind", ["uid", "gid"])
def test_line_78_id_map(server, box, kind):
    lines = [line.split() for line in box.output(f"cat /proc/self/{kind}_map").splitlines()]
    assert len(lines) == 1, "one extent"
    inside, outside, count = map(int, lines[0])
    assert (inside, count) == (0, 65536)
    assert server.pool[0] <= outside < server.pool[0] + server.pool[1] * 65536
    assert (outside - server.pool[0]) % 65536 == 0


def test_line_78_files_of_the_image_are_roots(box, container):
    assert box.output("stat -c %u:%g /etc/passwd /bin /bin/busybox /home/alice") == (
        "0:0\n0:0\n0:0\n1001:1010\n")
    assert container.output("stat -c %u:%g /etc/passwd /bin /bin/busybox / /tmp") == "0:0\n" * 5


@pytest.mark.parametrize("kind", ["uid", "gid"])
def test_line_78_reference_map(start_server, root, kind):
    box = Container(start_server("--idmap=maximal"), rootfs=str(root))
    rows = [line.split() for line in box.output(f"cat /proc/self/{kind}_map").splitlines()]
    assert rows == [["0", "4294967294", "1"], ["1", "1", "4294967293"]]
    assert box.output("stat -c %u:%g /etc/passwd") == "0:0\n"
    box.destroy()


def test_line_79_privileged(server, privileged):
    user = privileged.output("readlink /proc/self/ns/user").strip()
    assert user == oracle.Task("self").namespace("user")
    bounding = int(re.search(r"CapBnd:\s+(\w+)", oracle.read(f"/proc/{server.pid}/status"))[1], 16)
    assert caps(status_lines(privileged)) == all_the_same(bounding)
    expected = {**all_the_same(0), "CapBnd": PRIVILEGED_USER_CAPS & bounding}
    assert caps(status_lines(privileged, user="alice")) == expected
    others = privileged.output("for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done")
    mine = {oracle.Task("self").namespace(n) for n in ("net", "ipc", "uts", "pid", "mnt")}
    assert not mine & set(others.split())


def test_line_80_capabilities(box):
    init = dict(line.split(":", 1) for line in box.output("cat /proc/1/status").splitlines())
    assert caps(init) == all_the_same(DEFAULT_CAPS)
    assert caps(status_lines(box)) == all_the_same(DEFAULT_CAPS)
    assert caps(status_lines(box, tty={})) == all_the_same(DEFAULT_CAPS)
    for user in ("alice", "1234:4321", "testuser:staff"):
        expected = {**all_the_same(0), "CapBnd": DEFAULT_CAPS}
        assert caps(status_lines(box, user=user)) == expected


def test_line_81_filter(box):
    for user in ("root", "alice"):
        lines = status_lines(box, user=user)
        assert lines["Seccomp"].strip() == "2"
        status, _, err = box.sh("unshare -U true", user=user)
        assert status != 0 and b"Operation not permitted" in err


def test_line_81_programs_of_another_user(box):
    box.output("cp /bin/probe /tmp/suid; chmod 4755 /tmp/suid; cp /bin/probe /tmp/sgid; "
               "chgrp 1011 /tmp/sgid; chmod 2755 /tmp/sgid")
    assert box.output("/tmp/suid ids", user="testuser") == "1000 0 1000 1000\n"
    assert box.output("/tmp/sgid ids", user="testuser") == "1000 1000 1000 1011\n"


MASKED_FILES = ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "timer_list",
                "timer_stats", "sched_debug", "scsi")
MASKED = [f"/proc/{name}" for name in MASKED_FILES] + ["/sys/firmware",
                                                       "/sys/devices/virtual/powercap"]


@pytest.mark.parametrize("path", MASKED)
def test_line_82_masked(box, path):
    found = box.output(f"[ -e {path} ] || exit 0; stat -c '%F' {path}; "
                       f"if [ -d {path} ]; then ls -A {path}; else stat -c %t:%T {path}; fi")
    assert found in ("", "directory\n", "character special file\n1:3\n"), found


def test_line_82_what_exists_on_the_host_is_there_and_masked(box):
    import os
    for path in MASKED:
        if os.path.exists(path):
            assert box.sh(f"[ -e {path} ]")[0] == 0, path


def test_line_83_mounts(box):
    table = mounts(box)
    for point, kind, options in (
            ("/proc", "proc", {"rw", "nosuid", "nodev", "noexec"}),
            ("/sys", "sysfs", {"ro", "nosuid", "nodev", "noexec"}),
            ("/dev/shm", "tmpfs", {"rw", "nosuid", "nodev"}),
            ("/dev/pts", "devpts", {"rw", "nosuid", "noexec"}),
            ("/dev/mqueue", "mqueue", {"rw", "nosuid", "nodev", "noexec"}),
            ("/dev", "tmpfs", {"nosuid", "noexec"})):
        found = table[point]
        assert found[0] == kind and options <= found[1], (point, found)
    assert {"mode=620", "ptmxmode=666"} <= table["/dev/pts"][2]
    assert {"nodev"} <= table["/"][1], table["/"]
    assert box.output("stat -c %a:%u:%g /dev/shm /dev") == "1777:0:0\n755:0:0\n"
    assert box.sh("dd if=/dev/urandom of=/dev/shm/x bs=1k count=64", user="alice")[0] == 0


def test_mounts_show_no_path_of_the_host(server, box):
    text = box.output("cat /proc/self/mountinfo /proc/mounts")
    assert str(server.work) not in text and str(server.directory) not in text


NODES = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9",
         "tty": "5:0"}


def test_line_84_devices(box):
    names = box.output("cd /dev; for f in *; do [ -c $f ] && [ ! -L $f ] && echo $f; done; true")
    assert set(names.split()) == set(NODES)
    for name, number in NODES.items():
        assert box.output(f"stat -c %t:%T:%a /dev/{name}") == f"{number}:666\n"
    assert box.output("stat -c %t:%T:%a /dev/pts/ptmx") == "5:2:666\n"
    links = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
             "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}
    for name, target in links.items():
        assert box.output(f"readlink /dev/{name}").strip() == target
    assert box.output("find /dev -type b") == ""
    assert box.sh("[ -e /dev/fuse ]")[0] == 1


def test_line_84_devices_work(box):
    assert box.output("head -c 5 /dev/zero | wc -c; head -c 8 /dev/urandom | wc -c; "
                      "echo x > /dev/null; echo x > /dev/full || echo full", user="alice"
                      ).split() == ["5", "8", "full"]


def test_line_84_privileged_has_fuse(privileged):
    assert privileged.output("stat -c %t:%T /dev/fuse") == "a:e5\n"
    assert privileged.probe("open", "/dev/fuse")[0] == ["write", "/dev/fuse", "ok"]


@pytest.mark.parametrize("path", ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern",
                                  "/proc/sys/kernel/panic", "/proc/irq/default_smp_affinity"])
def test_line_85_kernel_files_are_read_only(box, path):
    result = box.probe("open", path)[0]
    assert result[2] in ("EROFS", "EACCES", "EPERM", "ENOENT"), result


def test_line_86_tmp(box, container):
    assert box.output("stat -c %a /tmp") == container.output("stat -c %a /tmp") == "1777\n"
    box.output("echo x > /tmp/x", user="alice")


def test_privileged_containers_run_as_named_users(privileged):
    assert privileged.output("id -un; id -u", user="alice") == "alice\n1001\n"


def test_privileged_switched_off(start_server):
    client = start_server("--disable-privileged-containers").client
    reply = client.request("POST", "/containers", {"privileged": True})
    assert reply.status == 500
    assert reply.json["Message"] == "privileged container creation is disabled"
    for spec in ({"Privileged": True}, {"PRIVILEGED": True}):
        assert client.request("POST", "/containers", spec).status == 500
    for spec in ({"privileged": 1}, {"privileged": "true"}):
        assert client.request("POST", "/containers", spec).status >= 400
    assert client.handles("garden.state=all") == []
    client.create()


def test_privileged_lifecycle_leaves_nothing(server, root):
    before = oracle.snapshot(server)
    for _ in range(3):
        box = Container(server, rootfs=str(root), privileged=True)
        assert box.sh("mount -t tmpfs x /tmp && echo y > /tmp/y; exit 3")[0] == 3
        box.run("sleep 1000", tty={}).wait_for(lambda: True, "its start")
        box.destroy()
    oracle.settled(server, before)
