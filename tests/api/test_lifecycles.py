"""Random lifecycles in eight client threads; then the oracle finds nothing left (security line 87).
CLOCHE_LIFECYCLES says how many, CLOCHE_SEED repeats a run."""
import os
import random
import threading
import time

import oracle
from conftest import unique_name
from gardenlib import Hijacked
from serverproc import SANITIZED

LIFECYCLES = int(os.environ.get("CLOCHE_LIFECYCLES", "100" if SANITIZED else "1000"))
SEED = int(os.environ.get("CLOCHE_SEED", time.time_ns() % 1000000))
THREADS = 8


class Lifecycle:
    """One container from create to destroy, its steps drawn at random."""

    def __init__(self, client, root, dice):
        self.client, self.root, self.dice = client, root, dice
        self.open = []

    def live(self):
        spec = {"properties": {"n": str(self.dice.random())}, "env": ["A=b"]}
        if self.dice.random() < 0.5:
            spec["rootfs"] = str(self.root)
        if self.dice.random() < 0.2:
            spec["bind_mounts"] = [{"src_path": str(self.root), "dst_path": "/bound"}]
        if self.dice.random() < 0.05:
            spec["privileged"] = True
        self.handle = self.client.create(unique_name("life"), **spec)
        for _ in range(self.dice.randint(1, 5)):
            self.dice.choice([self.short, self.short, self.stdin, self.signalled, self.left_open, self.refused,
                              self.vanishing, self.attached, self.background])()
        if self.dice.random() < 0.3:
            self.client.stop(self.handle, kill=True)
        self.client.destroy(self.handle)
        for process in self.open:
            assert process.wait() in (137, 143)

    def tty(self):
        return {"tty": {}} if self.dice.random() < 0.3 else {}

    def sh(self, script):
        return self.client.run(self.handle, {"path": "/bin/sh", "args": ["-c", script], **self.tty()})

    def short(self):
        status = self.dice.randint(0, 255)
        process = self.sh(f"echo out {status}; exit {status}")
        assert process.wait() == status
        assert process.stdout.strip() == b"out %d" % status

    def stdin(self):
        process = self.client.run(self.handle, {"path": "cat"})
        text = "x" * self.dice.randint(0, 100000)
        process.stdin(text)
        process.end_stdin()
        assert process.wait() == 0 and process.stdout == text.encode()

    def signalled(self):
        process = self.sh("echo ready; exec sleep 1000")
        process.wait_output(b"ready")
        number = self.dice.randint(0, 1)
        process.signal(number)
        assert process.wait() == (137 if number else 143)

    def left_open(self):
        self.open.append(self.sh("echo ready; exec sleep 1000"))
        self.open[-1].wait_output(b"ready")

    def refused(self):
        try:
            self.client.run(self.handle, {"path": "/no/such"}).wait()
            raise AssertionError("it ran")
        except Hijacked as refusal:
            assert refusal.reply.status == 500

    def vanishing(self):
        process = self.sh("echo out; sleep 0.01; echo more")
        process.vanish()

    def attached(self):
        process = self.sh("echo ready; read x; exit 9")
        process.wait_output(b"ready")
        others = [self.client.attach(self.handle, process.id) for _ in range(self.dice.randint(1, 3))]
        self.dice.choice([process, *others]).stdin("go\n")
        assert all(p.wait() == 9 for p in (process, *others))

    def background(self):
        process = self.client.run(self.handle, {"path": "/bin/sh", "args": [
            "-c", "sleep 1000 > /dev/null 2>&1 < /dev/null & (sleep 1000 &) ; exit 0"]}, streams=())
        assert process.wait_exit_line() == 0
        process.wait_ends()


def test_random_lifecycles_leave_nothing(server, root):
    before = oracle.snapshot(server)
    todo, failures, lock = list(range(LIFECYCLES)), [], threading.Lock()

    def work():
        while not failures:
            with lock:
                if not todo:
                    return
                number = todo.pop()
            try:
                Lifecycle(server.client, root, random.Random(SEED * 1000003 + number)).live()
            except BaseException as error:  # noqa: B902 - told to the test's own thread
                failures.append((number, error))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        number, error = failures[0]
        raise AssertionError(f"lifecycle {number} of seed {SEED}, {LIFECYCLES - len(todo)} done") from error
    server.check()
    oracle.settled(server, before)


def test_many_attaches_leave_nothing(server, make_container):
    """T-K2, smaller: attaches that come and go, failed runs on terminals, sizes for a dead process."""
    one = make_container()
    process = one.run("read x; exit 2", tty={})
    before = oracle.snapshot(server)
    for i in range(200):
        attached = one.attach(process.id, streams=("stdout",) if i % 2 else ())
        if i % 3:
            attached.vanish()
        else:
            attached.close()
        one.client.run_refused(one.handle, {"path": "nope", "tty": {}})
        process.resize(100 + i, 50)
    oracle.settled(server, before)
    process.stdin("x\n")
    assert process.wait() == 2


def test_many_processes_leave_nothing(server, make_container):
    """A container may live long: what has exited and was delivered keeps no descriptor, here or in the shim."""
    one = make_container()
    one.sh("exit 3")
    before = oracle.snapshot(server)
    for i in range(100):
        assert one.sh(f"echo {i}; exit 3", **({"tty": {}} if i % 4 == 0 else {}))[0] == 3
        assert one.client.exec(one.handle, {"path": "true"}).status == 200
    oracle.settled(server, before)
