"""What becomes of a request for a privileged container, by the operator's mode: T-L1, T-F1, T-E4."""
import itertools
import json
import os
import re

import pytest

import oracle
from conftest import Container, unique_name
from serverproc import refused_start
from test_isolation import DEFAULT_CAPS, PRIVILEGED_USER_CAPS, all_the_same, caps, mounts
from test_security_kernel import UNPRIVILEGED_DEVICES, device_list
from test_users import status_lines

MODES = ("userns", "fuse-only", "ignore")


@pytest.fixture(scope="module")
def servers(nothing_left):
    """A server of each mode, started when it is wanted."""
    from serverproc import Server
    started = {}

    def get(mode):
        if mode not in started:
            started[mode] = Server("--containerd-privileged-mode", mode)
        return started[mode]

    yield get
    for one in started.values():
        one.finish()


@pytest.fixture
def boxes(servers, root):
    made = []

    def make(mode, **spec):
        made.append(Container(servers(mode), unique_name(), rootfs=str(root), **{"privileged": True, **spec}))
        return made[-1]

    yield make
    for box in made:
        box.destroy()


def bounding(server):
    return int(re.search(r"CapBnd:\s+(\w+)", oracle.read(f"/proc/{server.pid}/status"))[1], 16)


def id_map(box):
    return [line.split() for line in box.output("cat /proc/self/uid_map").splitlines()]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_but_full_has_ids_of_its_own(boxes, mode):
    box = boxes(mode)
    rows = id_map(box)
    assert len(rows) == 1 and rows[0][0] == "0" and rows[0][2] == "65536"
    assert box.server.pool[0] <= int(rows[0][1]) < box.server.pool[0] + box.server.pool[1] * 65536
    other = boxes(mode, privileged=False)
    assert id_map(other) != rows
    assert caps(status_lines(other)) == all_the_same(DEFAULT_CAPS)


@pytest.mark.parametrize("mode", MODES)
def test_capabilities(boxes, mode):
    box = boxes(mode)
    everything = bounding(box.server)
    root = {"userns": everything, "fuse-only": PRIVILEGED_USER_CAPS & everything, "ignore": DEFAULT_CAPS}[mode]
    user = {"ignore": DEFAULT_CAPS}.get(mode, PRIVILEGED_USER_CAPS & everything)
    assert caps(status_lines(box)) == all_the_same(root)
    assert caps(status_lines(box, user="alice")) == {**all_the_same(0), "CapBnd": user}
    assert status_lines(box)["Seccomp"].strip() == "2", "there is a filter"


SPELLINGS = [{"privileged": True}, {"Privileged": True}, {"PRIVILEGED": True}]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=json.dumps)
def test_t_l1_ignored_in_every_spelling(servers, root, spelling):
    """Whatever starts a process: run, with and without a terminal, exec."""
    server = servers("ignore")
    box = Container(server, unique_name(), rootfs=str(root), **spelling)
    try:
        assert caps(status_lines(box)) == all_the_same(DEFAULT_CAPS)
        assert caps(status_lines(box, tty={})) == all_the_same(DEFAULT_CAPS)
        reply = server.client.exec(box.handle, {"path": "grep", "args": ["CapEff", "/proc/self/status"],
                                                "privileged": True})
        assert int(reply.body.split()[-1], 16) == DEFAULT_CAPS
        init = dict(line.split(":", 1) for line in box.output("cat /proc/1/status").splitlines())
        assert caps(init) == all_the_same(DEFAULT_CAPS)
        assert box.sh("mount -t tmpfs x /mnt")[0] != 0
        assert box.sh("ls /dev/fuse")[0] != 0
    finally:
        box.destroy()


@pytest.mark.parametrize("body", [b'{"privileged":1}', b'{"privileged":"true"}', b'{"privileged":[true]}',
                                  b'{"privileged":false,"privileged":true}', b'{"privileged":false,"Privileged":true}'])
def test_t_l1_what_is_no_plain_wish_is_refused(servers, body):
    client = servers("ignore").client
    before = client.handles("garden.state=all")
    assert client.request("POST", "/containers", body=body).status in (400, 500)
    assert client.handles("garden.state=all") == before


@pytest.mark.parametrize("mode", MODES)
def test_fuse(boxes, mode):
    box = boxes(mode)
    if mode == "ignore":
        assert box.sh("ls /dev/fuse")[0] != 0
        assert device_list(box) == UNPRIVILEGED_DEVICES
        return
    assert box.output("stat -c %t:%T:%a /dev/fuse") == "a:e5:666\n"
    assert box.probe("open", "/dev/fuse")[0] == ["write", "/dev/fuse", "ok"]
    assert device_list(box) == UNPRIVILEGED_DEVICES | {"c 10:229 rwm"}


@pytest.mark.parametrize("mode", ["userns", "fuse-only"])
def test_it_may_mount_what_is_its_own(boxes, mode):
    box = boxes(mode)
    assert box.output("mount -t tmpfs own /mnt && echo here > /mnt/x && cat /mnt/x; umount /mnt") == "here\n"
    assert box.output("mkdir -p /o/l /o/u /o/w /o/m; mount -t tmpfs x /o; mkdir /o/l /o/u /o/w /o/m; echo low > /o/l/f; "
                      "mount -t overlay o -o lowerdir=/o/l,upperdir=/o/u,workdir=/o/w /o/m && cat /o/m/f") == "low\n"
    # each process has the container's mount namespace, not one of its own
    assert "/o/m" in box.output("cat /proc/self/mountinfo")


@pytest.mark.parametrize("mode", ["userns", "fuse-only"])
def test_t_e4_nothing_that_it_was_given_can_be_undone(boxes, mode):
    box = boxes(mode)
    attempts = {
        "a new proc, without the masks": "mount -t proc proc /mnt",
        "a new sysfs, writable": "mount -t sysfs sysfs /mnt",
        "a mask": "umount /proc/keys",
        "a read-only cover": "umount /proc/sys",
        "sys read-write": "mount -o remount,rw,nosuid,nodev,noexec /sys",
        "cover read-write": "mount -o remount,bind,rw,nosuid,nodev,noexec /proc/sys",
        "groups read-write": "mount -o remount,bind,rw,nosuid,nodev,noexec /sys/fs/cgroup",
        "devices on the root": "mount -o remount,dev /",
        "the host's disk": "mknod /disk b 254 0",
        "kernel messages": "dmesg",
        "a module": "insmod /bin/busybox",
        "the host's name for the kernel": "echo x > /proc/sys/kernel/core_pattern",
        "time": "date -s 2001-01-01 2>&1 | grep -q \"can't set\" && exit 1; exit 0",
    }
    for what, script in attempts.items():
        status, out, err = box.sh(script)
        assert status != 0, f"{what}: {script} worked: {out!r} {err!r}"
    mounted = mounts(box)
    for place in ("/sys", "/proc/sys", "/proc/keys"):
        assert "ro" in mounted[place][1], place


@pytest.mark.parametrize("mode", ["userns", "fuse-only"])
def test_t_f1_no_release_agent(boxes, mode):
    box = boxes(mode)
    for controller in ("memory", "pids", "devices", "cpu"):
        script = (f"mkdir -p /cg && mount -t cgroup -o {controller} none /cg && mkdir -p /cg/x; "
                  "echo 1 > /cg/x/notify_on_release; echo /bin/sh > /cg/release_agent; ls /cg/release_agent; umount /cg")
        _, out, err = box.sh(script)
        assert b"/cg/release_agent\n" not in out or b"No such file" in err or b"denied" in err, (controller, out, err)
    agents = {str(path): oracle.read(path) for path in oracle.CGROUPS.glob("*/release_agent")}
    assert not any("/bin/sh" in agent for agent in agents.values()), agents


def test_userns_may_make_namespaces(boxes):
    box = boxes("userns")
    assert box.output("unshare -m sh -c 'mount -t tmpfs x /mnt && echo inside'") == "inside\n"
    assert box.output("unshare -u sh -c 'hostname other; hostname'; hostname") == f"other\n{box.handle[-49:]}\n"
    assert box.output("unshare -n sh -c 'ip link | wc -l'").strip() == "2"
    assert box.output("unshare -U -r id -u") == "0\n"


def test_fuse_only_may_not(boxes):
    box = boxes("fuse-only")
    for flags in ("-m", "-u", "-n", "-p -f", "-U"):
        assert box.sh(f"unshare {flags} true")[0] != 0, flags


@pytest.mark.parametrize("mode", MODES)
def test_root_is_root_of_nothing_outside(boxes, mode, tmp_path):
    source = tmp_path / "host"
    source.mkdir(mode=0o755)
    (source / "file").write_text("the host's")
    (source / "file").chmod(0o600)
    box = boxes(mode, bind_mounts=[{"src_path": str(source), "dst_path": "/bound", "mode": 1}])
    assert box.sh("cat /bound/file")[0] != 0
    assert box.sh("echo x > /bound/new")[0] != 0
    assert box.sh("chown 0:0 /bound/file")[0] != 0
    assert (source / "file").read_text() == "the host's"


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_of_a_container_outlives_the_servers_option(start_server, root, mode):
    server = start_server("--containerd-privileged-mode", mode)
    box = Container(server, rootfs=str(root), privileged=True)
    before = caps(status_lines(box)), id_map(box)
    server.kill()
    server.args = ("--containerd-privileged-mode", "full")
    server.start()
    box.client = server.client
    assert (caps(status_lines(box)), id_map(box)) == before
    full = Container(server, rootfs=str(root), privileged=True)
    assert id_map(full)[0][:2] == ["0", "0"]


@pytest.mark.parametrize("option, value", itertools.chain(
    [("--containerd-privileged-mode", mode) for mode in ("", "Full", "on")],
    [("--containerd-allowed-device", device) for device in ("b 7:*", "x 1:3 rwm", "b 7:* rwx", "b 7:* rwm extra")]))
def test_nonsense_is_refused_at_the_start(tmp_path, option, value):
    code, text = refused_start(option, value, directory=tmp_path)
    assert code == 1 and option in text


def test_more_devices(start_server, root):
    server = start_server("--containerd-allowed-device", "b 7:* rwm,c 1:11 r")
    box = Container(server, rootfs=str(root))
    assert device_list(box) == UNPRIVILEGED_DEVICES | {"b 7:* rwm", "c 1:11 r"}
    full = Container(server, rootfs=str(root), privileged=True)
    assert device_list(full) == UNPRIVILEGED_DEVICES | {"b 7:* rwm", "c 1:11 r", "c 10:229 rwm"}
    assert full.probe("nodes", "c:1:11", dir="/dev")[0] == ["mknod", "c:1:11", "ok"]
    assert os.stat("/dev/null")
