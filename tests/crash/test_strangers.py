"""4.39: a signal that is asked for a process that has ended hits nobody who has got its number since."""
import contextlib
import subprocess

import pytest
from crashlib import CUT, LONG, REFUSED  # first: it finds the tests of the API
import oracle
from conftest import nothing_left, server, start_server  # noqa: F401
from serverproc import NO_POOL

ROUNDS = 100 if LONG else 10


@pytest.fixture
def numbers(start_server, tmp_path):  # noqa: F811
    """A server with a container, and how to have its next process be of a given number."""
    one = start_server(*NO_POOL, directory=tmp_path)
    one.client.create("box")
    init = oracle.container_init(one, "box")

    def next_is(pid):
        """Who writes takes a number too, and is gone."""
        script = f"echo {pid - 1} >/proc/sys/kernel/ns_last_pid"
        subprocess.run(["nsenter", f"--pid=/proc/{init}/ns/pid", "sh", "-c", script], check=True)

    yield one, next_is
    one.client.destroy("box")


def begin(one, name):
    """A process that says its number, and waits."""
    process = one.client.run("box", {"id": name, "path": "/bin/sh", "args": ["-c", "echo $$.; read x; exit 7"]})
    process.wait_output(b".\n")
    return process, int(process.stdout.split(b".")[0])


def is_spared(canary):
    canary.stdin("x\n")
    return canary.wait() == 7


def send(process, number):
    with contextlib.suppress(*CUT, *REFUSED):
        process.signal(number)


def test_4_39_a_signal_after_the_end(numbers):
    one, next_is = numbers
    first, number = begin(one, "first")
    late = one.client.attach("box", "first")
    first.stdin("x\n")
    assert first.wait_exit_line() == 7
    next_is(number)
    canary, canary_number = begin(one, "canary")
    assert canary_number == number
    for signo in (15, 9):
        send(first, signo)
        send(late, signo)
        with contextlib.suppress(*REFUSED):
            send(one.client.attach("box", "first"), signo)
    assert one.client.sh("box", f"kill -0 {number}")[0] == 0
    assert is_spared(canary)


def test_4_39_a_signal_while_it_ends(numbers):
    """Wherever on its way the signal is: it comes to the one it was meant for, or to nobody."""
    one, next_is = numbers
    n_same = 0
    for i in range(ROUNDS):
        process, number = begin(one, f"p{i}")
        process.stdin("x\n")
        for _ in range(20):
            send(process, 9)
        assert process.wait_exit_line() in (7, 137)
        next_is(number)
        for _ in range(20):
            send(process, 9)
        canary, canary_number = begin(one, f"canary{i}")
        n_same += canary_number == number
        assert is_spared(canary)
    assert n_same
