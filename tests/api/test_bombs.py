"""What takes all it can get stays in its container: rows 4.34 to 4.37 of the reliability matrix, P0 line 45.
The others work on meanwhile, and the server answers."""
import ctypes
import os
import threading

import pytest

import oracle
from conftest import Container, unique_name
from gardenlib import wait_until
from test_limits import MIB, limits
from test_metrics import metrics


@pytest.fixture
def bomb(make_container, root):
    """A container with limits, and a process of it that has taken all it got of something."""
    started = []

    def start(what, most=100000, user="", memory=64, pids=50):
        box = make_container(rootfs=str(root), limits=limits(memory=memory * MIB, pids=pids))
        process = box.client.run(box.handle, {"path": "/bin/probe", "args": ["bomb", what, str(most)], "user": user})
        started.append(process)
        return box, process

    yield start
    for process in started:
        process.close()


def taken(process):
    process.wait_output(b"\n")
    what, count, error = process.stdout.decode().split()
    return int(count), error


def assert_served(server, other):
    """The server answers everybody, and others run."""
    client = server.client
    assert client.ok("GET", "/ping") == {}
    assert other.handle in client.handles()
    assert other.output("echo lives") == "lives\n"
    assert metrics(other)["PidStat"]["Current"] == 1
    box = Container(server, unique_name())
    assert box.output("echo new") == "new\n"
    box.destroy()


@pytest.mark.parametrize("what", ["memory", "shared"])
def test_p0_45_memory(server, container, bomb, what):
    bombs = [bomb(what) for _ in range(4)]
    assert_served(server, container)
    for box, process in bombs:
        assert process.wait() == 137
        assert b"killed by OOM: limit 64.0 MiB" in process.stderr
        assert box.output("echo lives") == "lives\n"
        assert box.info()["Events"] == ["Out of memory"]


def test_p0_45_shm(server, container, bomb):
    box, process = bomb("eventfd", 1)
    status, _, _ = box.sh("dd if=/dev/zero of=/dev/shm/bomb bs=1M count=200")
    assert status == 137
    assert_served(server, container)
    used = metrics(box)["MemoryStat"]
    assert used["TotalUsageTowardLimit"] <= 64 * MIB
    box.output("rm -f /dev/shm/bomb")


def test_p0_45_many_small_files_in_memory(server, container, bomb):
    """What the kernel keeps about them counts too."""
    box, process = bomb("eventfd", 1, memory=32)
    status, _, _ = box.sh("cd /dev/shm; i=0; while [ $i -lt 40 ]; do mkdir d$i || exit 9; cd d$i; "
                          "seq 1 5000 | xargs touch || exit 9; cd ..; i=$((i+1)); done")
    assert status != 0, "200,000 inodes do not fit into 32 MiB"
    assert_served(server, container)


def test_p0_45_fork(server, container, bomb):
    box, process = bomb("process")
    count, error = taken(process)
    assert 40 <= count <= 48 and error == "EAGAIN"
    assert metrics(box)["PidStat"]["Current"] == 50
    assert_served(server, container)
    wait_until(lambda: box.info()["Events"] == ["Process limit reached"], "the event")
    box.destroy()
    assert process.wait() == 137


def test_p0_45_a_fork_bomb_that_goes_on(server, container, bomb):
    """Whoever dies makes room for the next."""
    box, _ = bomb("eventfd", 1)
    bombing = box.run("for i in 1 2 3 4 5; do { sleep 1; while :; do /bin/probe bomb process < /dev/null > /dev/null; done; } & done; "
                      "echo up; wait")
    bombing.wait_output(b"up\n")
    wait_until(lambda: metrics(box)["PidStat"]["Current"] == 50, "it is full", 20)
    for _ in range(3):
        assert_served(server, container)
        assert metrics(box)["PidStat"]["Current"] <= 50
    box.client.stop(box.handle, kill=True)
    assert bombing.wait() == 137


def test_p0_45_descriptors(server, container, bomb):
    box, process = bomb("eventfd")
    count, error = taken(process)
    assert error == "EMFILE" and count < 1 << 20
    assert_served(server, container)
    process.end_stdin()
    assert process.wait() == 0


def test_p0_45_what_the_kernel_counts_per_user(server, make_container, root, bomb):
    """The same user number in two containers is two users to the kernel."""
    first, holding = bomb("pipe", 2000, user="1001:1010", memory=256)
    count, error = taken(holding)
    assert error in ("EMFILE", "EPERM"), (count, error)
    assert_served(server, make_container())
    second, again = bomb("pipe", 2000, user="1001:1010", memory=256)
    assert taken(again)[0] >= count * 9 // 10 > 0
    for process in (holding, again):
        process.end_stdin()
        process.wait()


def test_p0_45_inotify(server, container, bomb):
    """There is an end to it, for the user in the container, and the server needs none."""
    _, holding = bomb("inotify", 2000, user="1001:1010")
    count, error = taken(holding)
    assert (count < 2000, error) == (True, "EMFILE")
    assert_served(server, container)
    holding.end_stdin()
    holding.wait()


def test_p0_45_inotify_of_many_users(server, container, bomb):
    """The kernel counts it for the maker of a user namespace, too: that is nobody whom others depend on."""
    holding = [bomb("inotify", 2000, user=user) for user in ("root", "1001:1010", "1001:1010")]
    counts = [taken(process) for _, process in holding]
    assert all(count >= 100 and error == "EMFILE" for count, error in counts), counts
    status, out, err = holding[0][0].program("/bin/probe", "bomb", "inotify", "1", user="1001")
    assert (status, out) == (0, b"inotify 0 EMFILE\n"), "another user of a container gets no share of its own"
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    os.close(fd)
    for _, process in holding:
        process.end_stdin()
        process.wait()


def test_p0_45_processor(server, container, make_container):
    hogs = [make_container(limits=limits(limit_in_shares=10)) for _ in range(3)]
    running = [box.run("while :; do :; done") for box in hogs for _ in range(2 * os.cpu_count())]
    assert_served(server, container)
    for box in hogs:
        box.client.stop(box.handle, kill=True)
    for process in running:
        assert process.wait() == 137


def test_all_at_once(server, container, bomb):
    """Memory, processes and descriptors of several containers, and destroys on the way."""
    boxes = [bomb(what)[0] for what in ("memory", "process", "eventfd", "shared", "pipe", "timerfd")]
    threads = [threading.Thread(target=box.destroy) for box in boxes]
    assert_served(server, container)
    for thread in threads:
        thread.start()
    assert_served(server, container)
    for thread in threads:
        thread.join()
