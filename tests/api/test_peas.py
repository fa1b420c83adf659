"""Processes with an image of their own: lines 102 to 104 of Garden's acceptance list, and what becomes of them. Their
groups and limits: test_pea_groups.py."""
import os
import re
import sqlite3

import oracle
import pytest
import roots
from archives import Member, contents
from conftest import Container, Volume
from gardenlib import wait_until
from test_wire import assert_error


@pytest.fixture
def in_pea(box, pea_root):
    """Run a script in an image, in the test's container: its output."""
    def run(script, **spec):
        return box.output(script, image={"uri": str(pea_root)}, **spec)

    return run


def layers(server):
    return [path for path in (server.work / "containers/live").glob("*/pea-*")]


def nothing_of_peas(server):
    wait_until(lambda: not layers(server), "no layer of a pea is left")


def test_line_102_namespaces(box, in_pea):
    kinds = "cgroup ipc mnt net pid user uts"
    script = f"for k in {kinds}; do readlink /proc/self/ns/$k; done"
    ours, theirs = box.output(script).split(), in_pea(script).split()
    assert [kind for kind, a, b in zip(kinds.split(), ours, theirs) if a != b] == ["mnt"]


def test_a_root_of_its_own(server, box, in_pea):
    assert in_pea("cat /image-file; pwd; echo x >/image-file; cat /image-file") == "from the pea's image\n/\nx\n"
    assert box.output("cat /image-file") == "from the image\n"
    assert in_pea("cat /image-file") == "from the pea's image\n"  # each has a layer of its own
    nothing_of_peas(server)


def test_line_103_hosts_are_the_containers(box, in_pea):
    box.output("echo '10.9.8.7 added' >>/etc/hosts; echo 'nameserver 10.9.8.6' >/etc/resolv.conf")
    assert in_pea("cat /etc/hosts") == box.output("cat /etc/hosts")
    assert in_pea("cat /etc/resolv.conf") == "nameserver 10.9.8.6\n"
    assert in_pea("hostname") == box.output("hostname")


@pytest.mark.parametrize("user,expected", [
    (None, "0:0:/root"), ("", "0:0:/root"), ("peauser", "1234:1010:/home/peauser"), ("1234", "1234:1010:/home/peauser"),
    ("5:6", "5:6:/"), ("alice", "1001:1010:/home/alice")])
def test_line_104_users_are_the_images(in_pea, user, expected):
    spec = {} if user is None else {"user": user}
    assert in_pea("echo $(id -u):$(id -g):$HOME; pwd", **spec) == expected + "\n/\n"


def test_line_104_dir(in_pea):
    assert in_pea("pwd", dir="/home/alice") == "/home/alice\n"
    assert in_pea("pwd; stat -c %u .", dir="/made/here", user="alice") == "/made/here\n1001\n"


@pytest.mark.parametrize("user", ["nobody-here", "a:b", "x:1"])
def test_what_is_no_user(server, box, pea_root, user):
    reply = box.client.run_refused(box.handle, {"path": "true", "user": user, "image": {"uri": str(pea_root)}})
    assert f"'{user}' is not a valid uid:gid" in assert_error(reply, 500)["Message"]
    assert not layers(server)


def test_it_is_as_confined_as_the_others(box, pea_root):
    fields = "Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp".split()

    def status(**spec):
        lines = box.output("cat /proc/self/status", **spec).splitlines()
        return {key: value for key, value in (line.split(":\t", 1) for line in lines if ":\t" in line) if key in fields}

    def limits(**spec):
        return [line for line in box.output("cat /proc/self/limits", **spec).splitlines() if "signals" not in line]

    image = {"image": {"uri": str(pea_root)}}
    for user in ("root", "alice"):
        assert status(user=user) == status(user=user, **image)
        assert limits(user=user) == limits(user=user, **image)
    for script in ("sed s,/pea-.*,/, /proc/self/cgroup", "cat /proc/self/uid_map", "ls /dev", "readlink /proc/self/fd/3",
                   "ls /sys/fs/cgroup", "ulimit -n", "umask", "cat /proc/1/comm"):
        assert box.sh(script) == box.sh(script, **image), script
    seen = box.output("ls /proc/self/fd", **image).split()
    assert seen[:3] == ["0", "1", "2"] and len(seen) == 4
    assert box.sh("unshare -U true", **image)[0] != 0


def test_mounts_are_locked(box, pea_root):
    """Nothing that covers something can be taken away, or be written."""
    image = {"image": {"uri": str(pea_root)}}
    masked = "cat /proc/kcore /proc/keys | wc -c; echo x >/proc/sysrq-trigger || echo refused; touch /sys/x || echo refused"
    assert box.output(masked, **image) == "0\nrefused\nrefused\n"
    table = box.output("cat /proc/self/mountinfo", **image)
    assert not re.search(r" (shared|master):", table)
    points = [line.split()[4] for line in table.splitlines()]
    assert points[0] == "/" and {"/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/etc/hosts"} <= set(points)
    undone = {line[0] for line in box.probe("mounts", **image) if line[-1] == "ok"}
    assert not undone & {"umount", "clear-ro", "clear-nodev", "clear-nosuid", "reveal"}, undone


def pea_pids(box, init=None):
    """Of processes in the container whose parent is the shim."""
    init = init or box.init_pid()
    namespace = os.readlink(f"/proc/{init}/ns/pid")
    found = []
    for pid in oracle.children(parent_of(init)):
        try:
            if pid != init and os.readlink(f"/proc/{pid}/ns/pid") == namespace:
                found.append(pid)
        except OSError:
            pass
    return found


def parent_of(pid):
    return int(oracle.read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[1])


# ---- streams, signals, ends ---------------------------------------------------------------------------------------------

def test_streams_and_status(box, pea_root):
    process = box.run("cat; echo err >&2; exit 7", image={"uri": str(pea_root)})
    process.stdin("hello\n")
    process.end_stdin()
    assert (process.wait(), process.stdout, process.stderr) == (7, b"hello\n", b"err\n")
    assert box.attach(process.id).wait() == 7


@pytest.mark.parametrize("number,status", [(0, 143), (1, 137)])
def test_signals(box, pea_root, number, status):
    process = box.run("echo ready; sleep 1000 & wait", image={"uri": str(pea_root)})
    process.wait_output(b"ready")
    process.signal(number)
    assert process.wait_exit_line() == status
    process.close()


def test_a_terminal(box, pea_root):
    process = box.run("test -t 1 && tty && stty size", image={"uri": str(pea_root)},
                      tty={"window_size": {"columns": 90, "rows": 30}})
    assert process.wait() == 0 and process.stdout.endswith(b"30 90\r\n") and process.stdout.startswith(b"/dev/pts/")


def test_stop_and_destroy(server, make_container, root, pea_root):
    box = make_container(rootfs=str(root))
    spec = {"image": {"uri": str(pea_root)}}
    process = box.run("trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done", **spec)
    process.wait_output(b"ready")
    box.client.stop(box.handle)
    assert process.wait() == 42
    process = box.run("echo ready; sleep 1000", **spec)
    process.wait_output(b"ready")
    box.destroy()
    assert process.wait_exit_line() == 137
    process.close()
    nothing_of_peas(server)


def test_init_is_untouched_and_the_orphans_end(box, pea_root):
    init = box.init_pid()
    box.output("(sleep 1000 </dev/null >/dev/null 2>&1 &) ; true", image={"uri": str(pea_root)})
    assert box.init_pid() == init and box.output("cat /proc/1/comm") == "garden-init\n"
    wait_until(lambda: "sleep" not in box.output("cat /proc/[0-9]*/comm"), "what it has started ends with it")


def test_init_dies_under_it(box, pea_root):
    process = box.run("echo ready; sleep 1000", image={"uri": str(pea_root)})
    process.wait_output(b"ready")
    os.kill(box.init_pid(), 9)
    assert process.wait_exit_line() == 137
    process.close()


def test_many_at_once(server, box, pea_root):
    processes = [box.run(f"echo {n} >/mine; sleep 0.1; cat /mine", image={"uri": str(pea_root)}) for n in range(12)]
    for n, process in enumerate(processes):
        process.end_stdin()
        assert (process.wait(), process.stdout) == (0, f"{n}\n".encode())
    nothing_of_peas(server)
    wait_until(lambda: not os.listdir(server.work / "containers/dead"), "their layers are deleted")


# ---- bind mounts ----------------------------------------------------------------------------------------------------------

def test_its_own_bind_mounts_and_not_the_containers(make_container, root, pea_root, tmp_path, volume, server):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/of-a").write_text("a\n")
    volume.fill(Member("of-volume", b"v\n", mode=0o666))
    box = make_container(rootfs=str(root), bind_mounts=[{"src_path": str(tmp_path / "a"), "dst_path": "/container"}])
    box.output("mkdir /shared; echo c >/shared/f")
    image = {"image": {"uri": str(pea_root)}}
    status, _, err = box.sh("cat /container/of-a", **image)
    assert status == 1 and b"No such file or directory" in err
    binds = [{"src_path": str(tmp_path / "a"), "dst_path": "/a"}, volume.bind("/v"),
             {"src_path": "/shared", "dst_path": "/s", "mode": 1, "origin": 1},
             {"src_path": "/shared", "dst_path": "/ro", "origin": 1}]
    assert box.output("cat /a/of-a /v/of-volume /s/f; echo n >/s/new; echo w >/v/of-volume; touch /ro/x 2>&1 || true; "
                      "touch /a/x || true", bind_mounts=binds, **image).startswith("a\nv\nc\n")
    assert box.output("ls /shared") == "f\nnew\n" and volume.file("of-volume") == b"w\n"
    assert os.listdir(tmp_path / "a") == ["of-a"] and " /v " not in box.output("cat /proc/self/mountinfo")
    nothing_of_peas(server)
    volume.destroy()
    wait_until(lambda: not server.volume_files(), "the volume is used no more")


def test_line_52_bind_mounts_without_an_image(box, tmp_path):
    reply = box.client.run_refused(box.handle, {"path": "true", "bind_mounts": [
        {"src_path": str(tmp_path), "dst_path": "/x"}]})
    assert_error(reply, 500, "", "Running a process with bind mounts and no image provided is not allowed")


# ---- what fails leaves nothing ----------------------------------------------------------------------------------------------

def failures(pea_root, tmp_path):
    image = {"uri": str(pea_root)}
    evil = roots.make_evil(tmp_path / "evil", roots.busybox_of(pea_root), "proc", "link-to-sentinel", tmp_path / "s")
    return {
        "no such image": ({"image": {"uri": "docker:///nowhere"}}, "--image-map"),
        "no such path": ({"image": {"uri": "/no/such/image"}}, "No such file"),
        "no such program": ({"image": image, "path": "nope"}, "executable file not found in $PATH"),
        "no program": ({"image": image, "path": ""}, "path"),
        "no such source": ({"image": image, "bind_mounts": [{"src_path": "/no/such", "dst_path": "/x"}]}, "/no/such"),
        "no such source inside": ({"image": image, "bind_mounts": [
            {"src_path": "/no/such", "dst_path": "/x", "origin": 1}]}, "/no/such"),
        "a tree of the kernel's": ({"image": image, "bind_mounts": [
            {"src_path": "/proc", "dst_path": "/x", "origin": 1}]}, "not permitted"),
        "a link for /proc": ({"image": {"uri": str(evil)}}, "put proc"),
        "limits of nothing": ({"limits": {"memory_limits": {"limit_in_bytes": 1 << 26}}}, "limits: only a process"),
        "limits of a wrong kind": ({"image": image, "limits": 7}, "limits"),
        "a bad env": ({"image": image, "env": ["x"]}, "NAME=value"),
    }


def test_failed_peas_leave_no_record(server, box, pea_root, tmp_path):
    for what, (spec, why) in failures(pea_root, tmp_path).items():
        reply = box.client.run_refused(box.handle, {"id": "the-one", "path": "/bin/true", **spec})
        assert reply.status in (500, 501) and why in reply.json["Message"], (what, reply)
        assert not layers(server) and not pea_pids(box), what
        assert box.client.request("GET", f"{box.path}/processes/the-one").status == 404
    assert box.run("exit 3", id="the-one", image={"uri": str(pea_root)}).wait() == 3


# ---- a server that comes back -------------------------------------------------------------------------------------------------

def test_line_34_they_live_on(start_server, root, pea_root, tmp_path):
    server = start_server()
    tmp_path.chmod(0o755)
    box = Container(server, rootfs=str(root))
    volume = Volume(server.volumes).fill("f")
    image = {"image": {"uri": str(pea_root)}, "bind_mounts": [
        volume.bind("/v"), {"src_path": str(tmp_path), "dst_path": "/host"}]}
    waits = box.run("echo ready; sleep 0.2; while [ ! -e /host/go ]; do sleep 0.02; done; exit 9", id="waits", **image)
    waits.wait_output(b"ready")
    ends = box.run("echo ready; sleep 0.5; exit 11", id="ends", **image)
    ends.wait_output(b"ready")
    init = box.init_pid()
    (pid,) = [pid for pid in pea_pids(box) if b"/host/go" in open(f"/proc/{pid}/cmdline", "rb").read()]
    server.kill()
    wait_until(lambda: pea_pids(box, init) == [pid], "one has ended meanwhile")
    server.start()
    box.client = server.client
    assert box.attach("ends").wait() == 11
    wait_until(lambda: len(layers(server)) == 1, "the layer of one is gone")
    (tmp_path / "go").touch()
    assert box.attach("waits").wait() == 9
    nothing_of_peas(server)
    server.volumes.destroy(volume.handle)
    wait_until(lambda: not server.volume_files(), "its volume is used no more")


def test_an_image_that_only_a_pea_uses_stays(start_server, root, pea_root, tmp_path):
    roots.pack(pea_root, tmp_path / "image.tar")
    server = start_server()
    box = Container(server, rootfs=str(root))
    process = box.run("echo ready; read x; cat /image-file", id="p", image={"uri": str(tmp_path / "image.tar")})
    process.wait_output(b"ready")
    server.kill()
    server.start()
    box.client = server.client
    assert len(os.listdir(server.work / "images")) == 1
    again = box.attach("p")
    again.stdin("\n")
    again.wait_output(b"from the pea's image")
    again.close()


def test_privileged(make_container, root, pea_root):
    box = make_container(rootfs=str(root), privileged=True)
    image = {"image": {"uri": str(pea_root)}}
    script = "cat /image-file; grep Cap /proc/self/status; cat /proc/self/uid_map"
    assert box.output(script, **image).splitlines()[1:] == box.output(script).splitlines()[1:]
    assert box.output("id -u; stat -c %u /home/alice", user="peauser", **image) == "1234\n1001\n"


def test_a_volume_is_copied_while_it_runs(box, pea_root, volume, make_volume):
    """It may write at any time, so nothing that it has mounted is shared."""
    process = box.run("echo one >/v/one; echo ready; read x; echo two >/v/two; echo done; read x",
                      image={"uri": str(pea_root)}, bind_mounts=[volume.bind("/v")])
    process.wait_output(b"ready")
    copy = make_volume(parent=volume)
    process.stdin("\n")
    process.wait_output(b"done")
    assert set(contents(copy.tree())) == {"one"} and set(contents(volume.tree())) == {"one", "two"}
    process.stdin("\n")
    assert process.wait() == 0


def test_what_a_crash_leaves_of_one_goes(start_server, root):
    """The record is there before the layer, and the layer before the process."""
    server = start_server()
    box = Container(server, rootfs=str(root))
    (live,) = [path for path in (server.work / "containers/live").iterdir() if (path / "upper/etc").exists()
               or str(path.name) in oracle.read(f"/proc/{box.init_pid()}/cgroup")]
    server.kill()
    (live / "pea-77/upper").mkdir(parents=True)
    db = sqlite3.connect(server.work / "state.db")
    db.executescript(f"INSERT INTO peas VALUES ('{live.name}', 77); INSERT INTO peas VALUES ('{live.name}', 78)")
    db.close()
    server.start()
    box.client = server.client
    assert not layers(server) and box.output("echo alive") == "alive\n"
    db = sqlite3.connect(server.work / "state.db")
    assert db.execute("SELECT * FROM peas").fetchall() == []
    db.close()
