"""`cloche doctor`, and the same report in the log of a server that starts: each probe is seen to fail where what it looks
for is taken away (tests/tools/deny, capabilities, mounts), and to be silent where it is there."""
import os
import re
import subprocess

import pytest

import cgrouplib
from gardenlib import wait_until
from serverproc import PROGRAM, START_GUARD

LINE = re.compile(r"(works|lacks|fails)  ([^:]+?)(?:: (.+)\. Without it: (.+)\.)?")
REQUIRED = ("capabilities", "namespaces", "idmapped mounts on the work directory", "overlay on the work directory",
            "seccomp filters", "cgroups", "a device policy")
HIDE_CGROUPS = ("unshare", "-m", "--propagation", "private", "/bin/sh", "-c",
                'for fs in $(grep " cgroup2\\? " /proc/mounts | cut -d" " -f2 | sort -r); do umount "$fs" || exit 9; done; '
                'exec "$@"', "sh")


def doctor(directory, *args, prefix=(), env=None):
    """Exit status, and what it said about each feature: (word, reason, loss)."""
    done = subprocess.run([str(word) for word in (*prefix, PROGRAM, "doctor", "--work-dir", directory, *args)], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=START_GUARD,
                          env=env)
    lines = [LINE.fullmatch(line) for line in done.stdout.splitlines()]
    assert all(lines), done.stdout
    return done.returncode, {line[2]: (line[1], line[3], line[4]) for line in lines}


@pytest.fixture
def clean(tmp_path):
    """A work directory in which nothing may stay."""
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def test_this_host(clean):
    status, found = doctor(clean)
    assert [found[name] for name in REQUIRED] == [("works", None, None)] * len(REQUIRED)
    assert "Landlock" in found and "nftables" in found and len(found) >= 15
    words = {word for word, _, _ in found.values()}
    assert status == (2 if "lacks" in words else 0) and "fails" not in words
    for word, reason, loss in found.values():
        assert bool(reason and loss) == (word != "works")
    limit = found["65,536 open files"]
    assert limit[0] == ("works" if os.sysconf("SC_OPEN_MAX") >= 65536 else "lacks")


def test_a_work_directory_that_is_not_there_yet(clean):
    assert doctor(clean / "not/yet")[1]["overlay on the work directory"][0] == "works"


@pytest.mark.parametrize("call,code,feature,reason", [
    ("clone3", "ENOSYS", "namespaces", "clone3 with all of them (see /proc/sys/user/max_*_namespaces): Function not implemented"),
    ("mount_setattr", "EINVAL", "idmapped mounts on the work directory",
     "mount_setattr (its file system cannot be mapped): Invalid argument"),
    ("mount", "EPERM", "overlay on the work directory", "mount and write: Operation not permitted"),
    ("mkdirat", "EROFS", "overlay on the work directory", "make directories: Read-only file system"),
    ("mkdirat", "EROFS", "cgroups", f"make a group in {cgrouplib.v2_mount()}: Read-only file system"),
    ("landlock_create_ruleset", "EOPNOTSUPP", "Landlock", "landlock_create_ruleset: Operation not supported"),
    ("socket", "EPROTONOSUPPORT", "nftables", "netlink: Protocol not supported"),
    ("sendmsg", "EOPNOTSUPP", "veth pairs", "make one: Operation not supported"),
    ("sendmsg", "EOPNOTSUPP", "bridges", "make one: Operation not supported"),
    ("sendmsg", "EINVAL", "ctnetlink", "list connections: Invalid argument"),
    ("sendmsg", "EPERM", "forwarding past the host's firewall", "list chains: Operation not permitted"),
])
def test_a_kernel_that_lacks(clean, deny, call, code, feature, reason):
    status, found = doctor(clean, prefix=(deny, call, code))
    word = "fails" if feature in REQUIRED else "lacks"
    assert found[feature][:2] == (word, reason)
    assert status == (1 if word == "fails" else 2)
    assert {name for name in REQUIRED if found[name][0] != "works"} <= {
        feature, "cgroups" if call == "mkdirat" else feature, "idmapped mounts on the work directory", "overlay on the work directory"}


@pytest.mark.parametrize("rules,table", [
    ("add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }", "filter"),
    ("add table inet firewalld; add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }; add rule inet firewalld filter_FORWARD reject", "firewalld"),
    ("add table inet mine; add chain inet mine in { type filter hook input priority 0; policy drop; }", None),
    ("add table inet mine; add chain inet mine on { type filter hook forward priority 0; policy accept; }", None)])
def test_a_firewall_that_drops_what_is_forwarded(clean, rules, table):
    """As Docker, ufw and firewalld leave it: the operator is told what to do."""
    family, name = rules.split(";")[0].split()[2:]
    subprocess.run(["nft", rules], check=True)
    try:
        word, reason, _ = doctor(clean)[1]["forwarding past the host's firewall"]
    finally:
        subprocess.run(["nft", f"delete table {family} {name}"], check=True)
    assert word == ("lacks" if table else "works")
    if table:
        assert reason.startswith(f"table {table} drops") and "cl-*" in reason and "iptables -I FORWARD -i cl-+ -j ACCEPT" in reason


def test_a_host_without_a_device_policy(clean, deny):
    status, found = doctor(clean, prefix=(*cgrouplib.WITHOUT_V1_DEVICES, deny, "bpf", "EPERM"))
    assert status == 1 and found["a device policy"][:2] == (
        "fails", "no version 1 controller, and bpf(2) refused the program: Operation not permitted")
    assert doctor(clean, prefix=cgrouplib.WITHOUT_V1_DEVICES)[1]["a device policy"][0] == "works"


def test_a_host_without_cgroups(clean):
    status, found = doctor(clean, prefix=HIDE_CGROUPS)
    assert status == 1 and found["cgroups"][:2] == ("fails", "no hierarchy is mounted")
    assert found["cgroup v2"][:2] == ("lacks", "it is not mounted")
    assert found["limits on memory"][:2] == ("lacks", "no controller memory, and none memory of version 1")
    assert found["limits on disk bandwidth"][:2] == ("lacks", "no controller io, and none blkio of version 1")


def test_somebody_who_is_not_root(clean):
    clean.chmod(0o755)
    status, found = doctor(clean, prefix=("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", "-all"))
    assert status == 1 and found["capabilities"][0] == "fails"
    assert "CAP_SYS_ADMIN" in found["capabilities"][1] and found["capabilities"][1].endswith("; it must run as root")


def test_root_without_a_capability(clean):
    status, found = doctor(clean, prefix=("setpriv", "--bounding-set", "-mknod", "--inh-caps", "-all"))
    assert status == 1 and found["capabilities"][:2] == ("fails", "missing: CAP_MKNOD; it must run as root")
    status, found = doctor(clean, prefix=("setpriv", "--bounding-set", "-sys_resource"))
    assert status == 2 and found["CAP_SYS_RESOURCE"][0] == "lacks"


@pytest.mark.parametrize("args", [("--no-such",), ("--id-pool-start", "x"), ("--idmap", "none")])
def test_options_that_cannot_be(args):
    done = subprocess.run([PROGRAM, "doctor", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("cloche: ")


def test_help():
    done = subprocess.run([PROGRAM, "doctor", "--help"], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: cloche doctor")


def test_what_a_doctor_that_was_killed_has_left(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / f".cloche-doctor-{gone.pid}/w").mkdir(parents=True)
    (tmp_path / f".cloche-doctor-{os.getpid()}").mkdir()
    group = cgrouplib.v2_mount() / f"cloche-doctor-{gone.pid}"
    group.mkdir()
    doctor(tmp_path)
    assert not group.exists()
    assert [path.name for path in tmp_path.iterdir()] == [f".cloche-doctor-{os.getpid()}"]


def lacking(server):
    return [line["data"]["what"] for line in server.log_lines() if line["message"] == "cloche.environment-lacks"]


def test_a_server_says_what_it_lacks(start_server, deny, tmp_path):
    _, expected = doctor(tmp_path)
    server = start_server()
    wanted = [f"{name}: {reason}. Without it: {loss}." for name, (word, reason, loss) in expected.items() if word != "works"]
    wait_until(lambda: lacking(server) == wanted, "all is said")
    server = start_server(prefix=(deny, "landlock_create_ruleset", "EOPNOTSUPP"))
    wait_until(lambda: [what for what in lacking(server) if what.startswith("Landlock: ")] == [
        "Landlock: landlock_create_ruleset: Operation not supported. Without it: the helper that packs and unpacks volumes is "
        "confined by its mounts alone."], "it is said")
    assert server.client.sh(server.client.create(), "exit 3")[0] == 3


def test_a_server_whose_doctor_cannot_start(start_server, deny):
    """It serves, and says that it knows nothing."""
    server = start_server(prefix=(deny, "pipe2", "EMFILE"))
    lines = wait_until(lambda: [line for line in server.log_lines() if line["message"] == "cloche.environment-unknown"],
                       "it says so")
    assert len(lines) == 1 and lines[0]["data"]["errno"] == 24
    server.terminate()


def test_a_server_names_its_groups(server):
    lines = [line["data"] for line in server.log_lines() if line["message"] == "cloche.cgroup-parent"]
    assert lines and all("/cloche-" in line["path"] for line in lines)
    unified = next(line for line in lines if line["path"].startswith(f"{cgrouplib.v2_mount()}/"))
    if "memory" in (cgrouplib.v2_mount() / "cgroup.controllers").read_text().split():
        assert {"memory", "cpu", "pids"} <= set(unified["controllers"].split())


def test_the_doctor_leaves_no_process(start_server):
    server = start_server()
    wait_until(lambda: not subprocess.run(["pgrep", "-P", str(server.pid), "-f", "cloche doctor"], stdout=subprocess.PIPE).stdout,
               "the doctor has left")
