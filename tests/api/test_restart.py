"""A server that ends, by TERM or by SIGKILL, and starts again on the same work directory: what ran runs on, and is
known again. The whole matrix of failures comes with tests/crash."""
import os
import signal
import sqlite3
import threading
import time

import pytest

import oracle
from gardenlib import wait_until
from serverproc import NO_POOL

LOOP = "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 9"


@pytest.fixture(params=["TERM", "KILL"])
def restarted(request, start_server, tmp_path):
    """(server, restart): restart ends the server as the parameter says and starts it again."""
    server = start_server(*NO_POOL, directory=tmp_path)

    def restart(*more):
        server.process.send_signal(getattr(signal, f"SIG{request.param}"))
        server.process.wait()
        server.start(*more)

    return server, restart


def test_output_goes_on_where_it_was_acknowledged(restarted):
    server, restart = restarted
    server.client.create("box")
    before = server.client.run("box", {"id": "long", "path": "/bin/sh", "args": ["-c", LOOP]})
    before.wait_output(b"line 9\n")
    restart()
    before.wait_ends()
    assert not any("exit_status" in m for m in before.messages)
    after = server.client.attach("box", "long")
    assert after.wait() == 9
    assert before.stdout + after.stdout == b"".join(b"line %d\n" % i for i in range(30))


def test_what_ended_before_and_meanwhile_is_known(restarted):
    server, restart = restarted
    server.client.create("box", properties={"key": "välue"}, env=["A=b"])
    assert server.client.sh("box", "exit 4", id="before")[0] == 4
    meanwhile = server.client.run("box", {"id": "meanwhile", "path": "/bin/sh", "args": [
        "-c", "read x; echo $x $A; usleep 200000; echo more; exit 5"]})
    waiting = server.client.run("box", {"id": "waiting", "path": "/bin/sh", "args": ["-c", "read x; exit 6"]})
    meanwhile.stdin("word\n")
    meanwhile.wait_output(b"word b\n")
    restart()
    assert server.client.handles() == ["box"]
    assert server.client.ok("GET", "/containers/box/properties/key") == {"value": "välue"}
    assert server.client.attach("box", "before").wait() == 4
    ended = server.client.attach("box", "meanwhile")
    assert ended.wait() == 5
    assert meanwhile.stdout + ended.stdout == b"word b\nmore\n"
    # our end is no end of its stdin
    again = server.client.attach("box", "waiting")
    again.stdin("now\n")
    assert again.wait() == 6
    waiting.close()
    assert server.client.output("box", "echo $A") == "b\n"


def test_ids_and_names_stay_taken(restarted):
    server, restart = restarted
    bases = set()
    for name in ("a", "b"):
        server.client.create(name)
        bases.add(server.client.output(name, "cat /proc/self/uid_map").split()[1])
    server.client.sh("a", "true", id="mine")
    restart()
    assert "already in use" in server.client.request("POST", "/containers", json={"handle": "a"}).json["Message"]
    refusal = server.client.run_refused("a", {"path": "/bin/true", "id": "mine"})
    assert "already in use" in refusal.json["Message"]
    server.client.create("c")
    bases.add(server.client.output("c", "cat /proc/self/uid_map").split()[1])
    assert len(bases) == 3


def test_destroy_on_startup_leaves_nothing(restarted):
    server, restart = restarted
    server.client.create("box")
    server.client.run("box", {"path": "/bin/sleep", "args": ["1000"]}).close()
    restart("--destroy-containers-on-startup")
    assert server.client.handles() == []
    work = server.directory / "work"
    for name in ("run", "containers/live", "containers/dead"):
        wait_until(lambda: not os.listdir(work / name), f"{name} empty")


def test_a_shim_that_has_died_costs_its_container_only(restarted):
    server, restart = restarted
    for name in ("a", "b"):
        server.client.create(name)
    shims = oracle.shim_pids(server, oracle.all_tasks())
    assert len(shims) == 2
    os.kill(sorted(shims)[0], signal.SIGKILL)
    restart()
    (left,) = server.client.handles()
    assert server.client.output(left, "echo still here") == "still here\n"


def test_containers_of_another_boot_are_gone(start_server, tmp_path):
    server = start_server(directory=tmp_path)
    server.client.create("box")
    server.kill()
    database = sqlite3.connect(server.directory / "work/state.db")
    database.execute("UPDATE containers SET boot_id = 'another'")
    database.commit()
    database.close()
    server.start()
    assert server.client.handles() == []
    assert server.client.create("box") == "box"


def test_leftovers_without_a_record_are_removed(start_server, tmp_path):
    server = start_server(*NO_POOL, directory=tmp_path)
    server.terminate()
    work = server.directory / "work"
    (work / "containers/live/0123456789abcdef/upper").mkdir(parents=True)
    (work / "images/tmp-half").mkdir()
    (work / "run/0123456789abcdef").touch()
    server.start()
    for name in ("run", "containers/live", "containers/dead"):
        wait_until(lambda: not os.listdir(work / name), f"{name} empty")
    assert not (work / "images/tmp-half").exists()


def test_grace_time_and_ids_do_not_depend_on_the_next_start(restarted):
    server, restart = restarted
    server.client.create("box", grace_time=3_600_000_000_000)
    ids = server.client.output("box", "cat /proc/self/uid_map")
    before = server.client.ok("GET", "/containers/box/properties")
    restart("--id-pool-start", str(server.pool[0] + 65536 * 3 + 1000), "--id-pool-count", "8")
    assert server.client.ok("GET", "/containers/box/properties") == before
    assert server.client.output("box", "cat /proc/self/uid_map; echo out > /dev/stdout", user="1000:1000") == ids + "out\n"


def test_a_server_killed_while_it_creates_leaves_nothing(start_server, tmp_path):
    server = start_server(*NO_POOL, directory=tmp_path)
    for i in range(12):
        create = threading.Thread(target=lambda: _try_create(server, f"half-{i}"))
        create.start()
        time.sleep(i / 1000)
        server.kill()
        create.join()
        server.start("--destroy-containers-on-startup")
        assert server.client.handles("garden.state=all") == []
        wait_until(lambda: not oracle.shim_pids(server, oracle.all_tasks()), "no shim")


def _try_create(server, handle):
    try:
        server.client.create(handle)
    except (OSError, EOFError, AssertionError):
        pass  # killed in the middle
