"""Security lines 33-37 and 42-44: the system call filter on every call convention, cgroups, devices."""
import os
import re

import oracle
import pytest

MOUNT_FAMILY = {"mount", "umount2", "pivot_root", "fsopen", "fsconfig", "fsmount", "fspick",
                "open_tree", "move_mount", "mount_setattr"}
EPERM = MOUNT_FAMILY | {
    "unshare-user", "unshare-mnt", "unshare-cgroup", "unshare-time", "clone-user", "clone-net",
    "clone-cgroup", "setns", "bpf", "userfaultfd", "perf_event_open", "personality-odd"}
ENOSYS = {"clone3", "keyctl", "add_key", "request_key", "io_uring_setup", "io_uring_enter",
          "io_uring_register", "unknown-1000", "unknown-5000"}

x86_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86-64 calls")


def by_name(lines):
    return {line[1]: line[2] for line in lines}


@pytest.mark.parametrize("user", ["root", "alice"])
@pytest.mark.parametrize("abi", ["native", pytest.param("i386", marks=x86_only)])
def test_p0_33_34_36_denied_calls(box, abi, user):
    results = by_name(box.probe("syscalls", abi, user=user))
    assert results.pop("getpid") == "ok"
    assert len(results) > 50
    wrong = {}
    for name, result in results.items():
        expected = ["EPERM"] if name in EPERM else ["ENOSYS"] if name in ENOSYS else ["EPERM", "ENOSYS"]
        if result not in expected:
            wrong[name] = f"{result}, not {' or '.join(expected)}"
    assert not wrong


@x86_only
def test_p0_33_x32_numbers(box):
    results = by_name(box.probe("syscalls", "x32"))
    assert set(results.values()) == {"ENOSYS"}, results


ALLOWED_SOCKETS = {"unix", "inet", "inet6", "inet-raw", "netlink-route", "netlink-sock-diag"}
REFUSED = {"EPERM", "EAFNOSUPPORT", "EPROTONOSUPPORT"}


@pytest.mark.parametrize("abi", ["native", "high", pytest.param("i386", marks=x86_only)])
def test_p0_35_address_families(box, abi):
    results = by_name(box.probe("sockets", abi))
    assert {name for name, result in results.items() if result == "ok"} <= ALLOWED_SOCKETS
    assert ALLOWED_SOCKETS <= results.keys()
    for name in ALLOWED_SOCKETS:
        assert results[name] == "ok", (name, results[name])
    for name in results.keys() - ALLOWED_SOCKETS:
        assert results[name] in REFUSED, (name, results[name])


@x86_only
def test_p0_35_address_families_by_socketcall(box):
    """Its arguments cannot be seen by the filter; the families that must not be reached are not."""
    results = by_name(box.probe("sockets", "socketcall"))
    for name in ("vsock", "alg", "rxrpc", "key", "xdp"):
        assert results[name] != "ok", (name, results[name])


def test_p1_8_terminal_injection(box):
    results = box.probe("terminal", tty={})
    assert ["native", "TIOCGWINSZ", "ok"] in [[w.strip() for w in line] for line in results]
    for abi, name, result in ([w.strip() for w in line] for line in results):
        if name in ("TIOCSTI", "TIOCLINUX"):
            assert result == "EPERM", (abi, name, result)


def test_p0_37_the_filter_is_in_place_for_every_process(server, box):
    process = box.run("sleep 1000 & echo ready; wait")
    process.wait_output(b"ready")
    for pid, task in oracle.family(server).items():
        if task.name in ("sh", "sleep"):
            status = oracle.read(f"/proc/{pid}/status")
            assert re.search(r"^Seccomp:\s+2$", status, re.M), task
    process.signal(1)
    process.wait()


def test_ptrace_of_own_children_is_allowed(box):
    assert box.probe("trace") == box.probe("trace", user="alice") == [["ptrace", "child", "ok"]]


def test_open_by_handle(box):
    assert box.probe("handle")[0][2] in ("EPERM", "ENOSYS")


def test_p0_42_the_first_instruction_is_in_the_group(box):
    for spec in ({}, {"tty": {}}, {"user": "alice"}):
        for _ in range(20):
            status, out, _ = box.program("/bin/probe", "cgroup", **spec)
            paths = [line.split(":", 2)[2].strip() for line in out.decode().splitlines()]
            assert status == 0 and paths and set(paths) == {"/"}, out


def group_paths(pid):
    """Controller names -> path below that hierarchy's mount."""
    found = {}
    for line in oracle.read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        found[controllers or "unified"] = path
    return found


def test_p0_42_groups_of_a_container(server, box):
    init = box.init_pid()
    shim = oracle.Task(init).parent  # no other: some live for a moment only
    paths, own = group_paths(init), group_paths(server.pid)
    inside = {name: path for name, path in paths.items() if "/cloche-" in path}
    assert "unified" in inside and oracle.Task(shim).name.startswith("cloche-shim")
    for name in ("memory", "pids", "devices"):
        assert name in inside or name not in paths, name
    leaves = {re.search(r"/cloche-[0-9a-f]{8}/([^/]+)$", path)[1] for path in inside.values()}
    assert len(leaves) == 1 and box.handle not in leaves.pop()
    for name, path in inside.items():
        assert path.startswith(own[name].rstrip("/") + "/")
        assert group_paths(shim)[name] != path, "the shim is outside the container's limits"
    process = box.run("echo ready; read x")
    process.wait_output(b"ready")
    for pid, task in oracle.family(server).items():
        if task.parent == init:
            assert group_paths(pid) == paths
    process.end_stdin()
    process.wait()


@pytest.mark.parametrize("user", ["root", "alice"])
def test_p0_43_cgroup_files_are_read_only(box, user):
    assert box.probe("writable", "/sys", user=user) == []
    table = [line.split() for line in box.output("cat /proc/mounts").splitlines()]
    groups = [row for row in table if row[1].startswith("/sys/fs/cgroup")]
    assert all("ro" in row[3].split(",") for row in groups), groups
    assert box.sh("mkdir /sys/fs/cgroup/x")[0] != 0


def test_p0_43_release_agent(box):
    agents = [oracle.read(p) for p in oracle.CGROUPS.glob("*/release_agent")]
    found = box.output("find /sys -name release_agent")
    for path in found.split():
        assert box.probe("open", path)[0][2] != "ok"
    status, _, _ = box.sh("mkdir -p /tmp/g; mount -t cgroup -o memory none /tmp/g")
    assert status != 0
    assert agents == [oracle.read(p) for p in oracle.CGROUPS.glob("*/release_agent")]


def test_files_of_proc_that_can_be_written(box):
    """Nothing but a process's own files; and the pressure files, which take a trigger from anybody."""
    own = ("/proc/self/", "/proc/thread-self/", "/proc/pressure/")
    assert [path for path, in box.probe("writable", "/proc") if not path.startswith(own)] == []


NODES = ("b:254:0", "b:8:0", "b:7:0", "c:1:1", "c:1:2", "c:10:229", "c:10:232", "c:10:200", "c:0:0")


def test_p0_44_nodes_cannot_be_made(box):
    results = box.probe("nodes", *NODES)
    assert [r[:2] for r in results] == [["mknod", node] for node in NODES]
    assert {r[2] for r in results} == {"EPERM"}


def test_p0_44_nodes_of_an_image_cannot_be_opened(make_container, root, tmp_path, probe):
    import shutil
    import stat
    import roots
    image = roots.make_root(tmp_path / "image", probe)
    disk = os.stat("/").st_dev
    os.mknod(image / "disk", stat.S_IFBLK | 0o666, disk)
    os.mknod(image / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    box = make_container(rootfs=str(image))
    for line in box.probe("open", "/disk", "/null"):
        assert line[2] in ("EACCES", "EPERM", "ENXIO"), line
    shutil.rmtree(image)


UNPRIVILEGED_DEVICES = {
    "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm",
    "c 136:* rwm", "c 10:200 rwm", "c *:* m", "b *:* m"}


def device_list(box):
    path = group_paths(box.init_pid()).get("devices")
    if path is None:
        pytest.skip("no v1 device controller on this host")
    return set(oracle.read(f"{oracle.CGROUPS}/devices{path}/devices.list").splitlines())


def test_p0_44_device_list(box):
    assert device_list(box) == UNPRIVILEGED_DEVICES


def test_p0_44_device_list_of_a_privileged_container(make_container, root):
    box = make_container(rootfs=str(root), privileged=True)
    assert device_list(box) == UNPRIVILEGED_DEVICES | {"c 10:229 rwm"}
    # It may make the node of the host's disk, but not open it: the second refusal, by itself.
    disk = os.stat("/").st_dev
    node = f"b:{os.major(disk)}:{os.minor(disk)}"
    results = box.probe("nodes", node, dir="/dev")
    assert results == [["mknod", node, "ok"], ["open", node, "EPERM"]]
