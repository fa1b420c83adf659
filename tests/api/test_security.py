"""Security lines 1-32 of the checklist that apply so far: host code and descriptors, the mount tree,
credentials."""
import os
import re
import signal
import threading

import oracle
import pytest
from conftest import Container, unique_name
from gardenlib import wait_until
from serverproc import NO_POOL, PROGRAM, SANITIZED
from test_isolation import DEFAULT_CAPS, caps
from test_users import status_lines

F_GET_SEALS = 1034
SEALS = 0x2 | 0x4 | 0x8  # shrink, grow, write


def host_side(server):
    """Our processes that are not inside: the server and the shims."""
    return {pid: task for pid, task in oracle.family(server).items()
            if task.name.startswith("cloche")}


def device_of(path):
    """None of a process that has ended: helpers come and go."""
    try:
        return os.stat(path).st_dev
    except (FileNotFoundError, ProcessLookupError):
        return None


def init_of_family(server):
    return [pid for pid, task in oracle.family(server).items() if task.name == "garden-init"]


def test_p0_1_shim_and_init_run_from_sealed_memory(server, box):
    shims = [pid for pid, t in host_side(server).items() if t.name.startswith("cloche-shim")]
    inits = init_of_family(server)
    assert shims and inits
    for pid in (*shims, *inits):
        assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:")
        fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
        try:
            import fcntl
            assert fcntl.fcntl(fd, F_GET_SEALS) & SEALS == SEALS
        finally:
            os.close(fd)
        with pytest.raises(OSError):
            os.close(os.open(f"/proc/{pid}/exe", os.O_WRONLY))


def test_p0_2_shim_and_init_are_static(server, box):
    for pid, task in oracle.family(server).items():
        if task.name.startswith("cloche-shim") or task.name == "garden-init":
            files = set(re.findall(r"\s(/\S+)$", oracle.read(f"/proc/{pid}/maps"), re.M))
            assert all(f.startswith("/memfd:") for f in files), files


@pytest.mark.skipif(SANITIZED, reason="the leak sanitizer does not work below strace")
def test_p0_3_no_other_program_is_started(start_server, root, tmp_path):
    trace = tmp_path / "trace"
    server = start_server(prefix=("strace", "-f", "-qq", "-e", "trace=execve,execveat", "-o", trace))
    traced = next(t.pid for t in oracle.all_tasks().values() if t.parent == server.pid)
    try:
        for spec in ({}, {"rootfs": str(root)}, {"rootfs": str(root), "privileged": True}):
            box = Container(server, **spec)
            assert box.sh("exit 3")[0] == 3
            box.destroy()
    finally:
        os.kill(traced, signal.SIGTERM)  # strace, the process that was started, keeps signals to itself
        server.process.wait(60)
        server.is_ended = True
    started = re.findall(r'execve(?:at)?\((?:\d+, )?"([^"]*)"', trace.read_text())
    own = [p for p in started if p == str(PROGRAM) or p.startswith("/proc/self/fd/") or p == ""]
    inside = [p for p in started if p == "/bin/sh"]
    assert len(own) + len(inside) == len(started), started


START_MODES = {
    "run": {}, "run on a terminal": {"tty": {}}, "run as a user": {"user": "alice"},
    "run as a user on a terminal": {"user": "alice", "tty": {}},
    "run with limits": {"rlimits": {"nofile": 100}}, "run in a made directory": {"dir": "/a/b/c"}}


@pytest.mark.parametrize("mode", START_MODES)
def test_p0_4_descriptors(box, mode):
    lines = box.probe("fds", **START_MODES[mode])
    assert [line[0] for line in lines] == ["0", "1", "2"], lines


def test_p0_4_descriptors_of_many_at_once(box):
    failures = []

    def many():
        for i in range(25):
            lines = box.probe("fds", **({"tty": {}} if i % 2 else {}))
            if [line[0] for line in lines] != ["0", "1", "2"]:
                failures.append(lines)

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_p0_4_descriptors_of_init(box):
    pid = box.init_pid()
    targets = [os.readlink(f"/proc/{pid}/fd/{name}") for name in oracle.listing(f"/proc/{pid}/fd")]
    others = [t for t in targets if not t.startswith(("socket:", "anon_inode:", "/dev/null",
                                                      "/memfd:", "pipe:"))]
    # its own, which it raises for its children: from a procfs that no path in the container leads to
    others.remove(f"/{pid}/oom_score_adj" if f"/{pid}/oom_score_adj" in others else f"/proc/{pid}/oom_score_adj")
    assert not others, targets
    assert len([t for t in targets if t.startswith("socket:")]) <= 1, targets


@pytest.mark.parametrize("privileged", [False])
def test_p0_5_nothing_can_be_caught_before_it_is_another_program(make_container, root, privileged):
    box = make_container(rootfs=str(root), privileged=privileged)
    hunter = box.client.run(box.handle, {"path": "/bin/probe", "args": ["hunt"]})
    hunter.wait_output(b"hunting")
    for _ in range(500):
        assert box.program("/bin/true")[0] == 0
    hunter.end_stdin()
    assert hunter.wait() == 0
    assert re.search(rb"^hits 0 seen [1-9]", hunter.stdout, re.M), hunter.stdout[-2000:]


def test_p0_6_directories_that_are_descriptors(box):
    box.output("echo inside > /etc/hostname")
    box.output("i=3; while [ $i -lt 40 ]; do ln -s /proc/self/fd/$i /w$i; i=$((i+1)); done")
    for n in range(3, 40):
        for directory in (f"/proc/self/fd/{n}", f"/w{n}", f"/proc/1/fd/{n}", f"/proc/self/fd/{n}/x"):
            reply = box.exec_or_refusal("/bin/probe", ["cwd"], dir=directory)
            if reply is None:
                continue
            status, out = reply
            assert status == 0
            cwd, found = out.decode().split()
            assert cwd.startswith("/"), (directory, cwd)
            assert found in ("inside", "ENOENT", "ENOTDIR"), (directory, found)


def test_p0_7_environment_of_host_processes(server, make_container, root):
    evil = ["LD_PRELOAD=/evil.so", "LD_AUDIT=/evil.so", "GCONV_PATH=/evil", "BASH_ENV=/evil"]
    box = make_container(rootfs=str(root), env=evil)
    process = box.run("echo ready; read x", env=evil)
    process.wait_output(b"ready")
    for pid, task in oracle.family(server).items():
        if task.name.startswith("cloche-shim") or task.name == "garden-init":
            text = oracle.read(f"/proc/{pid}/environ")
            assert "evil" not in text and "LD_" not in text
    process.end_stdin()
    process.wait()


def test_p0_9_no_secret_in_logs_or_command_lines(server, make_container, root):
    secret = f"canary-{os.getpid()}-3f9a"
    box = make_container(rootfs=str(root), env=[f"A={secret}"], properties={"p": secret, secret: "q"})
    process = box.run("echo ready; read x; exit 3", env=[f"B={secret}"])
    process.wait_output(b"ready")
    process.stdin(f"{secret}\n")
    box.client.request("PUT", f"{box.path}/properties/{secret}", {"value": secret})
    box.client.request("POST", "/containers", {"image": {
        "uri": f"docker://user:{secret}@host/x", "username": secret, "password": secret}})
    for pid in host_side(server):
        assert secret not in oracle.read(f"/proc/{pid}/cmdline")
    assert process.wait() == 3
    assert secret not in server.log_text()


def test_p0_15_mounts_cannot_be_undone_by_root(box):
    results = box.probe("mounts")
    undone = [r for r in results if r[-1] == "ok"]
    assert not undone and len(results) > 20


def test_p0_15_mounts_are_locked_against_every_capability(box, probe):
    """As a process with all capabilities in the container's user namespace and without a filter."""
    import subprocess
    text = subprocess.run([probe, "enter", str(box.init_pid()), "mounts"], check=True,
                          stdout=subprocess.PIPE).stdout.decode()
    results = [line.split() for line in text.splitlines()]
    undone = [r for r in results if r[-1] == "ok" and r[0] != "allowed"]
    assert not undone, undone
    assert ["allowed", "tmpfs", "ok"] in results, "the attacker had its capabilities"
    tried = {r[0] for r in results}
    assert {"umount", "clear-ro", "clear-nodev", "clear-nosuid", "reveal", "new"} <= tried
    # And all is still in place.
    assert box.output("stat -c %t:%T /proc/keys; ls -A /sys/firmware") == "1:3\n"


def test_p0_20_flags_of_the_root_and_of_binds(make_container, root, tmp_path):
    box = make_container(rootfs=str(root), bind_mounts=[
        {"src_path": str(tmp_path), "dst_path": "/bound"}])
    table = {line.split()[4]: line.split()[5] for line in
             box.output("cat /proc/self/mountinfo").splitlines()}
    assert "nodev" in table["/"].split(",")
    assert {"nodev", "ro"} <= set(table["/bound"].split(","))


@pytest.mark.parametrize("user", ["root", "alice", "1000:1000"])
@pytest.mark.parametrize("tty", [None, {}], ids=["pipes", "tty"])
def test_p0_24_25_credentials(box, user, tty):
    lines = status_lines(box, user=user, **({} if tty is None else {"tty": tty}))
    own = DEFAULT_CAPS if user == "root" else 0
    assert caps(lines) == {"CapInh": 0, "CapPrm": own, "CapEff": own, "CapBnd": DEFAULT_CAPS, "CapAmb": 0}
    assert lines["NoNewPrivs"].strip() == "0"
    assert (lines["Seccomp"].strip(), lines["Seccomp_filters"].strip()) == ("2", "1")


def test_p0_28_29_id_ranges_are_disjoint(server):
    boxes = []

    def make():
        for _ in range(12):
            boxes.append(Container(server, unique_name()))

    threads = [threading.Thread(target=make) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(boxes) == 60
        bases = []
        for pid in init_of_family(server):
            for kind in ("uid", "gid"):
                rows = [row.split() for row in oracle.read(f"/proc/{pid}/{kind}_map").splitlines()]
                assert len(rows) == 1 and rows[0][0] == "0" and rows[0][2] == "65536"
            bases.append(int(rows[0][1]))
        assert len(bases) == len(set(bases)) >= 60  # and those that are not born yet
        assert all(b > 0 and (b - server.pool[0]) % 65536 == 0 for b in bases)
    finally:
        for box in boxes:
            box.destroy()


def test_p0_30_privilege_has_one_spelling(client, make_container, root):
    for spec in ({"privileged": False}, {"privileged": None}, {"Image": {"privileged": True}}):
        box = make_container(rootfs=str(root), **spec)
        assert caps(status_lines(box))["CapEff"] == DEFAULT_CAPS
    for text in (b'{"privileged":false,"privileged":true}', b'{"privileged":false,"Privileged":true}'):
        assert client.request("POST", "/containers", body=text).status == 400


def test_p1_32_processes_start_with_usual_settings(box):
    lines = status_lines(box)
    for name in ("SigBlk", "SigIgn"):
        assert int(lines[name], 16) == 0, (name, lines[name])
    assert box.output("umask; cut -d ' ' -f 19 /proc/self/stat").split() == ["0022", "0"]  # and nice


def test_no_socket_has_an_abstract_name(server, box):
    """T-H1: whoever shares the network namespace could connect to one."""
    names = [line.split()[-1] for line in oracle.read("/proc/net/unix").splitlines()[1:]]
    assert not [name for name in names if name.startswith("@") and "cloche" in name]


def test_host_processes_stay_outside(server, box):
    process = box.run("echo ready; read x")
    process.wait_output(b"ready")
    inside = f"/proc/{box.init_pid()}/root"
    device = os.stat(inside).st_dev
    places = {(task.name, name): place for pid, task in host_side(server).items()
              for name in ("cwd", "root") if (place := device_of(f"/proc/{pid}/{name}"))}
    assert {"cloche", "cloche-shim"} <= {program.split(":")[0] for program, _ in places}, places
    assert device not in places.values(), places
    process.end_stdin()
    process.wait()


def test_init_is_gone_when_its_shim_is_killed(start_server):
    server = start_server(*NO_POOL)
    box = Container(server)
    process = box.run("echo ready; sleep 1000")
    process.wait_output(b"ready")
    shim = next(pid for pid, t in host_side(server).items() if t.name.startswith("cloche-shim"))
    inside = [pid for pid, t in oracle.family(server).items() if t.name in ("garden-init", "sleep", "sh")]
    os.kill(shim, 9)
    wait_until(lambda: not set(inside) & oracle.all_tasks().keys(), "the end of the container")
    assert server.client.request("DELETE", box.path).status == 200


def is_waiting_for_a_shim(server):
    """A client's thread that sleeps on a condition, and not on its connection."""
    threads = (f"/proc/{server.pid}/task/{thread}" for thread in oracle.listing(f"/proc/{server.pid}/task"))
    return any(oracle.read(f"{thread}/comm") == "MHD-connection\n" and "futex" in oracle.read(f"{thread}/wchan")
               for thread in threads)


def test_a_run_meets_the_death_of_init(start_server):
    """Its shim hears of both at once, of the run first; it is the death that stands in the way."""
    server = start_server(*NO_POOL)
    box = Container(server)
    (shim,) = oracle.shim_pids(server, oracle.all_tasks())
    (init,) = init_of_family(server)
    os.kill(shim, signal.SIGSTOP)
    replies = []
    asker = threading.Thread(target=lambda: replies.append(server.client.run_refused(box.handle, {"path": "/bin/true"})))
    asker.start()
    wait_until(lambda: is_waiting_for_a_shim(server), "it is asked")
    os.kill(init, signal.SIGKILL)
    wait_until(lambda: oracle.Task(init).state == "Z", "init is dead")
    os.kill(shim, signal.SIGCONT)
    asker.join()
    assert "the container is dead" in replies[0].json["Message"], replies
