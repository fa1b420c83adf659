"""What runs out, hangs or dies beside a container that runs: it does not notice, and what is asked meanwhile is answered."""
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
from crashlib import LONG, has_died, memory_group, try_to  # first: it finds the tests of the API
import oracle
from conftest import Container, nothing_left, server, start_server  # noqa: F401
from gardenlib import Hijacked, wait_until
from serverproc import NO_POOL, TOP

COUNTS = "trap 'e=1' TERM; i=0; while [ ! $e ]; do echo $i; i=$((i+1)); usleep 20000; done; echo last; exit 9"


class Counting:
    """A process that goes on printing numbers until it is told to end: none is missing then, and none twice."""

    def __init__(self, box):
        self.box = box
        self.process = box.run(COUNTS)
        self.process.wait_output(b"3\n")

    def goes_on(self):
        n = self.process.stdout.count(b"\n")
        self.process.wait_for(lambda: self.process.stdout.count(b"\n") >= n + 5, "more numbers")

    def end(self):
        self.process.signal(0)  # TERM
        assert self.process.wait() == 9
        lines = self.process.stdout.split()
        assert lines == [*(b"%d" % n for n in range(len(lines) - 1)), b"last"]


@pytest.fixture
def counting(start_server, tmp_path):  # noqa: F811
    """A server with a container that counts."""
    one = start_server(*NO_POOL, directory=tmp_path)
    box = Container(one, "box")
    counting = Counting(box)
    yield counting
    counting.end()
    box.destroy()


def only_shim(server_):
    (pid,) = oracle.shim_pids(server_, oracle.all_tasks())
    return pid


def init_of(shim):
    (pid,) = [pid for pid in oracle.children(shim) if oracle.Task(pid).name == "garden-init"]
    return pid


# ---- shims and inits -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("restarted", [False, True], ids=["own", "adopted"])
@pytest.mark.parametrize("who", ["shim", "init"])
def test_4_3_and_4_6_a_shim_or_an_init_dies(start_server, tmp_path, who, restarted):  # noqa: F811
    """Everybody who waits is told, and everything that ran is gone, before anybody asks."""
    one = start_server(*NO_POOL, directory=tmp_path)
    oracle.learn_cgroup_name(one)
    other = Counting(Container(one, "other"))
    others = set(oracle.shim_pids(one, oracle.all_tasks()))
    box = Container(one, "box")
    (shim,) = set(oracle.shim_pids(one, oracle.all_tasks())) - others
    init = init_of(shim)
    if restarted:
        one.kill()
        other.process.close()
        one.start()
        box.client = one.client
        other = Counting(Container(one, "another"))
    waiting = box.run("sleep 1000 & echo up; read x")
    waiting.wait_output(b"up")
    attached = box.attach(waiting.id)
    pids = oracle.descendants([init], oracle.all_tasks())
    assert len(pids) >= 3
    os.kill(shim if who == "shim" else init, signal.SIGKILL)
    assert waiting.wait() == 137 == attached.wait()
    wait_until(lambda: not any(oracle.Task(pid).alive and oracle.Task(pid).state != "Z" for pid in pids), "all are dead")
    with pytest.raises(Hijacked, match="dead"):
        box.run("true")
    assert one.client.request("PUT", "/containers/box/stop", {"kill": True}).status == 200
    other.goes_on()
    one.client.destroy("box")
    assert "box" not in one.client.handles("garden.state=all")
    one.client.create("box")
    other.end()


@pytest.mark.parametrize("restarted", [pytest.param(False, marks=pytest.mark.skipif(not LONG, reason="make crash")), True],
                         ids=["own", "adopted"])
def test_4_4_a_shim_hangs(start_server, tmp_path, restarted):  # noqa: F811
    """What is asked of its container comes to an end; the container can be destroyed, and its shim is gone then."""
    one = start_server(*NO_POOL, directory=tmp_path)
    Container(one, "box")
    shim = only_shim(one)
    if restarted:
        one.kill()
        one.start()
    other = Counting(Container(one, "other"))
    os.kill(shim, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(Hijacked, match="does not answer"):
        one.client.run("box", {"path": "/bin/true"})
    assert time.monotonic() - begun < 60
    other.goes_on()
    os.kill(shim, signal.SIGCONT)
    assert one.client.output("box", "echo back") == "back\n"
    os.kill(shim, signal.SIGSTOP)
    one.client.destroy("box")
    wait_until(lambda: not oracle.Task(shim).alive, "the shim is gone")
    other.end()


def test_4_4_a_shim_hangs_while_the_server_starts(start_server, tmp_path):  # noqa: F811
    """Its container cannot be had; nothing of it stays."""
    one = start_server(*NO_POOL, directory=tmp_path)
    Container(one, "box")
    shim = only_shim(one)
    Container(one, "other")
    one.kill()
    os.kill(shim, signal.SIGSTOP)
    one.start()
    assert one.client.handles("garden.state=all") == ["other"]
    wait_until(lambda: not oracle.Task(shim).alive, "the shim is gone")
    assert one.client.output("other", "echo usable") == "usable\n"


# ---- descriptors -----------------------------------------------------------------------------------------------------

def limit_files(pid, n):
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (n, before[1]))
    return before


def processor_seconds(pid):
    return sum(map(int, oracle.read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def test_4_13_no_descriptors_for_the_server(counting):
    one = counting.box.server
    before = limit_files(one.pid, len(oracle.open_paths(one.pid)) + 1)
    used = processor_seconds(one.pid)
    failures = [try_to(one.client.create), try_to(counting.box.output, "true"), try_to(one.volumes.make),
                try_to(one.client.handles)]
    for _ in range(5):
        counting.goes_on()
    used = processor_seconds(one.pid) - used
    resource.prlimit(one.pid, resource.RLIMIT_NOFILE, before)
    assert any(failures)
    assert used < 1, f"{used} s of processor time for nothing"
    assert counting.box.output("echo again") == "again\n"
    for handle in set(one.client.handles("garden.state=all")) - {"box"}:
        one.client.destroy(handle)


def test_4_14_no_descriptors_for_a_shim(counting):
    one = counting.box.server
    shim = only_shim(one)
    before = limit_files(shim, len(oracle.open_paths(shim)))
    for _ in range(3):
        refusal = one.client.run_refused("box", {"path": "/bin/true"})
        assert "too many open files" in refusal.json["Message"].lower(), refusal
    counting.goes_on()
    resource.prlimit(shim, resource.RLIMIT_NOFILE, before)
    assert counting.box.output("echo again") == "again\n"


# ---- the disk --------------------------------------------------------------------------------------------------------

@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,nr_inodes=2000", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def on_disk(start_server, disk):  # noqa: F811
    one = start_server(*NO_POOL, directory=disk, log=disk.parent / "log")
    one.client.create("spare")
    counting = Counting(Container(one, "box"))
    yield counting
    counting.end()
    counting.box.destroy()


def fill_blocks(disk):
    fd = os.open(disk / "ballast", os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(fd, bytes(4096)):
            pass
    except OSError:
        os.close(fd)


def fill_inodes(disk):
    (disk / "ballast.d").mkdir()
    try:
        for n in range(100000):
            (disk / "ballast.d" / str(n)).touch()
    except OSError:
        pass


def free(disk):
    subprocess.run(f"rm -rf {disk}/ballast*", shell=True, check=True)


@pytest.mark.parametrize("fill", [fill_blocks, fill_inodes])
def test_4_8_and_4_10_the_disk_is_full(on_disk, disk, fill):
    one = on_disk.box.server
    fill(disk)
    reply = one.client.request("POST", "/containers", {"handle": "new", "properties": {"k": "v" * 900000}})
    assert reply.status in (500, 503) and reply.json["Message"], reply
    assert "new" not in one.client.handles("garden.state=all")
    assert (try_to(one.volumes.make, "new") is None) == ("new" in one.volumes.handles())  # small ones may fit
    on_disk.goes_on()
    assert on_disk.box.output("echo runs") == "runs\n"  # what runs needs no room
    one.client.destroy("spare")
    on_disk.goes_on()
    free(disk)
    one.client.create("new")
    assert one.client.output("new", "echo usable") == "usable\n"
    one.client.destroy("new")


def test_4_8_a_start_on_a_full_disk(on_disk, disk):
    """Containers run on; the server serves when there is room again, if not before."""
    one = on_disk.box.server
    fill_blocks(disk)
    one.kill()
    on_disk.process.vanish()
    one.start_process()
    wait_until(lambda: one.process.poll() is not None or "cloche.serving" in one.log_text(0), "it serves, or says why not")
    free(disk)
    if one.process.poll() is None:
        one.kill()
    one.start()
    on_disk.box.client = one.client
    assert on_disk.box.output("echo usable") == "usable\n"
    on_disk.process = one.client.attach("box", on_disk.process.id)
    on_disk.goes_on()
    on_disk.process.signal(0)  # TERM
    assert on_disk.process.wait() == 9
    on_disk.end = lambda: None  # what it printed came in two parts


# ---- the log ---------------------------------------------------------------------------------------------------------

READER = TOP / "tests/crash/log_reader.py"


def test_4_54_and_4_55_a_log_that_nobody_reads(start_server, tmp_path):  # noqa: F811
    """A pipe to a reader that stops reading: nobody waits for it, and how many lines were lost is in the log later."""
    one = start_server(*NO_POOL, directory=tmp_path, prefix=(sys.executable, READER, tmp_path / "reader"))
    counting = Counting(Container(one, "box"))
    reader = int((tmp_path / "reader").read_text())
    os.kill(reader, signal.SIGSTOP)
    for _ in range(400):
        assert counting.box.sh("exit 3")[0] == 3  # each writes a line
    counting.goes_on()
    os.kill(reader, signal.SIGCONT)

    def lost():
        one.client.request("DELETE", f"/containers/{one.client.create()}")
        return [line for line in one.log_lines() if "lines_dropped" in line["data"]]

    assert wait_until(lost, "the lines that were lost are counted")[0]["data"]["lines_dropped"] > 0
    counting.end()
    counting.box.destroy()


def test_4_54_no_standard_descriptors(start_server, tmp_path):  # noqa: F811
    """0 and 1 are closed: nothing else gets their numbers."""
    one = start_server(*NO_POOL, directory=tmp_path, prefix=("sh", "-c", 'exec "$@" <&- >&-', "sh"))
    box = Container(one, "box")
    assert box.output("echo usable") == "usable\n"
    assert [os.readlink(f"/proc/{one.pid}/fd/{fd}") for fd in (0, 1)] == ["/dev/null"] * 2
    box.destroy()


# ---- what the server was started with --------------------------------------------------------------------------------

LAUNCHERS = {
    "umask 0": "import os; os.umask(0)",
    "umask 777": "import os; os.umask(0o777)",
    "SIGCHLD ignored": "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "SIGPIPE default": "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
    "signals blocked": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))",
    "small files": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))",
    "few files": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(7)[1]))",
    "small stack": "import resource; resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.RLIM_INFINITY))",
    "nice": "import os; os.nice(19)",
    "large environment": "import os; os.environ.update((f'NOISE{n}', 'x' * 1000) for n in range(1000))",
    "directory gone": "import os, tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
    "many descriptors": "import os; [os.set_inheritable(os.dup(2), True) for n in range(50)]",
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_4_59_whatever_it_was_started_with(start_server, tmp_path, launcher):  # noqa: F811
    script = LAUNCHERS[launcher] + "; import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    one = start_server(*NO_POOL, directory=tmp_path, prefix=(sys.executable, "-c", script))
    box = Container(one, "box")
    assert box.output("umask; dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null; wc -c </big") == "0022\n3145728\n"
    assert box.output("ls /proc/self/fd | wc -l") == "4\n"  # and the directory itself
    assert box.sh("kill -PIPE $$")[0] == 141
    assert box.output("grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\n\\t'") == (
        "SigBlk:0000000000000000SigIgn:0000000000000000")
    assert os.stat(one.work).st_mode & 0o777 == 0o700
    one.volumes.make("v")
    one.volumes.fill("v", "file")
    assert one.volumes.file("v", "file") == b"content of file"
    box.destroy()
    os.kill(one.pid, signal.SIGTERM)
    assert one.process.wait(60) == 0
    one.start()


def test_4_42_a_lock_that_is_left_over(start_server, tmp_path):  # noqa: F811
    one = start_server(*NO_POOL, directory=tmp_path)
    one.kill()
    assert (one.work / "lock").read_text() == str(one.pid)
    (one.work / "lock").write_text("1")  # somebody who lives: a number says nothing
    one.start()
    assert one.client.ok("GET", "/ping") == {}


# ---- many at once, and what stands still -----------------------------------------------------------------------------

def test_4_38_what_is_stopped_is_destroyed(start_server, tmp_path):  # noqa: F811
    one = start_server(*NO_POOL, directory=tmp_path)
    box = Container(one, "box")
    box.run("sleep 1000 & sleep 1000 & kill -STOP $! $$").close()
    init = init_of(only_shim(one))
    wait_until(lambda: sum(oracle.Task(pid).state == "T" for pid in oracle.descendants([init], oracle.all_tasks())) >= 2,
               "two are stopped")
    pids = oracle.descendants([init], oracle.all_tasks())
    box.destroy()
    wait_until(lambda: not any(oracle.Task(pid).alive for pid in pids), "all are gone")


def test_4_52_a_herd_of_creates(start_server, tmp_path):  # noqa: F811
    """All of them come to be, and nothing of them stays."""
    n = 500 if LONG else 40
    one = start_server(*NO_POOL, "--network-pool", "10.99.0.0/16", directory=tmp_path, pool=512)
    failures = []
    threads = [threading.Thread(target=lambda i=i: failures.append(try_to(one.client.create, f"box-{i}"))) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [failure for failure in failures if failure] == []
    assert len(one.client.handles()) == n
    one.destroy_all()
    assert one.client.handles("garden.state=all") == []


def test_4_7_the_server_is_killed_for_memory(start_server, tmp_path):  # noqa: F811
    """By the kernel, in a group of its own: the next one goes on with what runs."""
    one = start_server(*NO_POOL, directory=tmp_path)
    box = Container(one, "box")
    process = box.run("i=0; while read x; do echo $i; i=$((i+1)); done; exit 6", id="counts")
    process.stdin("\n")
    process.wait_output(b"0\n")
    with memory_group(8 << 20) as group:
        (group / "cgroup.procs").write_text(str(one.pid))
        for _ in range(1000):
            try_to(one.client.request, "PUT", "/containers/box/properties/" + os.urandom(8).hex(), {"value": "v" * 900000})
            if has_died(one):
                break
        assert has_died(one, 1), "the limit was not reached"
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "nobody is in the group")
    process.close()
    one.start()
    again = one.client.attach("box", "counts")
    again.stdin("\n")
    again.wait_output(b"1\n")
    again.end_stdin()
    assert again.wait() == 6
    one.client.destroy("box")
