"""What a review has found once: each was seen to fail before it was mended."""
import subprocess

import pytest

import oracle
from conftest import Container
from gardenlib import wait_until


def test_many_processes_that_end_at_once_block_nobody(container):
    """Init had no room to tell, the shim none to ask: both waited for ever."""
    running = [container.client.run(container.handle, {"path": "/bin/sleep", "args": ["1000"]}, streams=())
               for _ in range(600)]
    for process in running:
        process.signal(1)
    assert {process.wait() for process in running} == {137}
    assert container.output("echo still here") == "still here\n"


def test_term_does_not_wait_for_stdin_that_nobody_reads(start_server):
    server = start_server()
    box = Container(server)
    process = box.run("exec sleep 1000")
    process.stdin("x" * 600000)
    wait_until(lambda: oracle.open_files(server.pid), "a running server")
    server.terminate()
    process.wait_ends()
    server.start("--destroy-containers-on-startup")


def test_a_client_that_leaves_while_its_stdin_is_blocked_is_noticed(client):
    handle = client.create()
    process = client.run(handle, {"path": "/bin/sleep", "args": ["1000"]})
    client.ok("PUT", f"/containers/{handle}/grace_time", 1_000_000_000)
    process.stdin("x" * 600000)
    process.vanish()
    wait_until(lambda: handle not in client.handles(), "the end of the grace time")


def test_an_attach_that_opens_nothing_does_not_stop_the_others(container):
    process = container.run("read x; head -c 20000000 /dev/zero")
    idle = container.attach(process.id, streams=())
    process.stdin("go\n")
    assert process.wait() == 0
    assert len(process.stdout) == 20000000
    idle.wait()


def test_groups_within_groups_are_removed(server):
    box = Container(server, privileged=True)
    made = box.output("for d in /sys/fs/cgroup/*/; do mkdir -p $d/a/b 2>/dev/null && echo $d; done")
    assert made
    box.client.destroy(box.handle)
    assert box.handle not in box.client.handles()


def test_a_program_that_is_missing_is_missing_whatever_else_is_on_the_path(container):
    reply = container.client.run_refused(container.handle, {
        "path": "no-such", "user": "1000", "env": ["PATH=/root/bin:/root:/bin"]})
    assert reply.json["Type"] == "ExecutableNotFoundError"
    assert reply.json["Message"].endswith('exec: "no-such": executable file not found in $PATH')


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_freed_by_destroying(small_disk, start_server):
    """Deleted files that somebody still holds are not deleted."""
    server = start_server(directory=small_disk)
    box = Container(server)
    status, _, err = box.sh("dd if=/dev/zero of=/big bs=1M")
    assert status != 0 and b"No space left" in err
    server.client.destroy(box.handle)
    server.client.destroy(server.client.create())
