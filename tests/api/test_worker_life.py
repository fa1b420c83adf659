"""How a worker leaves its cluster: land, retire, drain; and what stays behind."""
import signal
import subprocess

import pytest

from serverproc import PROGRAM, START_GUARD
from tsalib import children_of, helper_of, is_alive, wait_log


def by_signal(number):
    return lambda server, word: server.process.send_signal(number)


def by_command(server, word):
    result = subprocess.run([PROGRAM, word, "--work-dir", server.work], capture_output=True, timeout=START_GUARD)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def wait_end(server):
    """It has ended by itself, and well."""
    assert server.process.wait(START_GUARD) == 0, server.log_tail()
    server.is_ended = True
    server.check_log()


@pytest.mark.parametrize("tell", [by_signal(signal.SIGUSR1), by_command], ids=["signal", "command"])
def test_96_land(cluster, start_worker, tell):
    gateway = cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    server.client.create("c")
    tell(server, "land")
    cluster.web.wait_call("land-worker")
    beats = cluster.web.workers["w"]["beats"]
    cluster.web.wait(lambda: cluster.web.workers["w"]["beats"] > beats, "a heartbeat while landing")
    garden, _ = cluster.clients(gateway)  # the last build is served
    assert garden.output("c", "echo still here") == "still here\n"
    cluster.web.set_state("w", "landed")
    wait_end(server)
    server.start()
    cluster.wait_registered(count=2)
    assert server.client.handles() == ["c"] and cluster.web.workers["w"]["state"] == "running"


@pytest.mark.parametrize("tell", [by_signal(signal.SIGUSR2), by_command], ids=["signal", "command"])
def test_retire(cluster, start_worker, tell):
    cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    tell(server, "retire")
    cluster.web.wait_call("retire-worker")
    cluster.web.set_state("w", None)
    wait_end(server)
    assert not any(call == "delete-worker" for call, _ in cluster.web.calls)


def test_a_retiring_worker_that_is_stopped_is_deleted(cluster, start_worker):
    cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    server.process.send_signal(signal.SIGUSR2)
    cluster.web.wait_call("retire-worker")
    server.terminate()
    assert cluster.web.wait_call("delete-worker")["worker"]["name"] == "w" and not cluster.web.workers


def test_landing_is_told_again_after_each_registration(cluster, start_worker):
    """A registration says that the worker stays."""
    gateway = cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    server.process.send_signal(signal.SIGUSR1)
    cluster.web.wait_call("land-worker")
    gateway.stop()
    gateway.start()
    cluster.wait_registered(count=2)
    cluster.web.wait_call("land-worker", count=2)


def test_landing_that_is_refused_is_told_again(cluster, start_worker):
    cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    cluster.web.refused["land-worker"] = 1
    server.process.send_signal(signal.SIGUSR1)
    wait_log(server, "cloche.worker.not-told", error="land-worker: the gateway refuses it (1)")
    del cluster.web.refused["land-worker"]
    cluster.web.wait(lambda: cluster.web.workers["w"]["state"] == "landing", "landing")


def test_a_wish_to_land_waits_for_the_cluster(cluster, start_worker):
    gateway = cluster.gateway()
    gateway.stop()
    server = start_worker()
    by_command(server, "land")
    gateway.start()
    cluster.wait_registered()
    cluster.web.wait_call("land-worker")


def test_a_worker_whose_row_is_deleted_ends(cluster, start_worker):
    """As today's: pruned, or landed by fly."""
    cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    cluster.web.set_state("w", None)
    wait_end(server)


def test_stop_ends_the_registration_and_no_container(cluster, start_worker):
    gateway = cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    garden, _ = cluster.clients(gateway)
    garden.create("c")
    process = garden.run("c", {"id": "task", "path": "sh", "args": ["-c", "echo before; read x; echo $x; exit 5"]})
    process.wait_output(b"before\n")
    helper = helper_of(server)
    ours = [helper, *children_of(helper)]
    server.terminate()
    process.wait_ends()  # by FIN, through the tunnel
    assert process.stdout == b"before\n" and not any("exit_status" in m for m in process.messages)
    cluster.web.wait_call("cancelled")
    assert not any(is_alive(pid) for pid in ours)
    assert not list((server.work / "run/cluster").iterdir())
    server.start()
    cluster.wait_registered(count=2)
    garden, _ = cluster.clients(gateway)
    again = garden.attach("c", "task")
    again.stdin("after\n")
    assert again.wait() == 5 and again.stdout == b"after\n"


def test_the_old_way_on_request(cluster, start_worker):
    cluster.gateway()
    server = start_worker("--destroy-on-stop")
    cluster.wait_registered()
    server.client.create("c")
    server.client.run("c", {"path": "sleep", "args": ["1000"]}).close()
    server.terminate()
    server.start()
    assert server.client.handles() == []


def test_stop_while_there_is_no_cluster(cluster, start_worker):
    gateway = cluster.gateway()
    gateway.stop()
    server = start_worker()
    wait_log(server, "cloche.worker.not-registered")
    server.terminate()


def test_stop_while_the_cluster_process_cannot_start(cluster, start_worker):
    server = start_worker(hosts=[], key="/nowhere")
    wait_log(server, "cloche.worker.cluster-process-ended")
    server.terminate()


def test_a_start_that_fails_takes_the_cluster_process_with_it(cluster, start_worker):
    """It is started before what can fail."""
    cluster.gateway()
    server = start_worker()
    cluster.wait_registered()
    server.terminate()
    offset = server.start_process("--id-pool-start", "1")
    assert server.process.wait(START_GUARD) == 1
    server.is_ended = True
    assert "--id-pool-start" in server.log_text(offset) and helper_of(server) is None
    server.start()
    cluster.wait_registered(count=2)


@pytest.mark.parametrize("word", ["land", "retire"])
def test_nobody_to_tell(server, tmp_path, word):
    def told(*words):
        result = subprocess.run([PROGRAM, word, *words], capture_output=True, timeout=START_GUARD, text=True)
        return result.returncode, result.stderr

    (tmp_path / "lock").touch()
    assert told("--work-dir", tmp_path) == (1, f"cloche {word}: no server serves {tmp_path}\n")
    code, words = told("--work-dir", tmp_path / "none")
    assert code == 1 and f"{tmp_path}/none/lock" in words
    code, words = told("--work-dir", server.work)
    assert code == 1 and "belongs to no cluster" in words
    assert told("--nonsense") == (1, f"cloche {word}: --nonsense: no such option\n")
