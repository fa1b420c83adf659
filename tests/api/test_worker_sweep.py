"""Garbage collection: what a worker tells its cluster, and what it destroys because of the answer."""
import threading

from gardenlib import GUARD, wait_until
from tsalib import wait_log

FAST = "500ms"


def fill(server, handles):
    """Make volumes, by eight clients side by side."""
    def make(part):
        for handle in part:
            reply = server.volumes.request("POST", "/volumes", {"handle": handle, "strategy": {"type": "empty"}})
            assert reply.status == 201, reply

    threads = [threading.Thread(target=make, args=(handles[i::8],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_94_what_web_does_not_know_is_reported_and_then_destroyed(cluster, start_worker):
    cluster.gateway()
    rows = cluster.web.rows
    server = start_worker(sweep=FAST)
    server.client.create("stray")
    server.client.create("kept")
    server.volumes.make("stray-v")
    server.volumes.make("kept-v")
    with cluster.web.changed:
        rows["containers"]["kept"] = rows["volumes"]["kept-v"] = "created"
    wait_until(lambda: server.client.handles() == ["kept"], "the stray container is gone")
    wait_until(lambda: server.volumes.handles() == ["kept-v"], "the stray volume is gone")
    cluster.web.wait(lambda: rows == {"containers": {"kept": "created"}, "volumes": {"kept-v": "created"}},
                     "both rows are gone")
    calls = [(c, q.get("handles")) for c, q in cluster.web.calls if "containers" in c]
    first = next(handles for call, handles in calls if call == "report-containers" and handles)
    assert "stray" in first  # before anything was destroyed
    assert calls[0][0] == "report-containers" and calls[1][0] == "sweep-containers"


def test_93_what_web_gives_up_is_destroyed_and_gone_from_the_next_report(cluster, start_worker):
    cluster.gateway()
    server = start_worker(sweep=FAST)
    handles = [f"c{i}" for i in range(8)]
    for handle in handles:
        cluster.web.rows["containers"][handle] = "created"
        server.client.create(handle)
    cluster.web.wait(lambda: any(c == "report-containers" and set(q["handles"]) == set(handles)
                                 for c, q in cluster.web.calls), "a whole report")
    with cluster.web.changed:
        for handle in handles[:7]:
            cluster.web.rows["containers"][handle] = "destroying"
    cluster.web.wait(lambda: cluster.web.rows["containers"] == {"c7": "created"}, "the end of the rows")
    assert server.client.handles() == ["c7"]


def test_an_empty_report_and_no_answer(cluster, start_worker):
    """Of volumes, web answers null when there are none to destroy."""
    cluster.gateway()
    cluster.web.answers = {"sweep-volumes": None, "sweep-containers": []}
    server = start_worker(sweep=FAST)
    cluster.web.wait_call("sweep-volumes", count=2)
    assert cluster.web.wait_call("report-volumes")["handles"] == []
    assert cluster.web.wait_call("report-containers")["handles"] == []
    assert "sweep-failed" not in server.log_text()


def test_what_is_gone_already_is_no_failure(cluster, start_worker):
    cluster.gateway()
    cluster.web.answers = {"sweep-volumes": ["none", "../x", "a b"], "sweep-containers": ["none", "a/b"]}
    server = start_worker(sweep=FAST)
    cluster.web.wait_call("sweep-volumes", count=2)
    cluster.web.wait_call("sweep-containers", count=2)
    assert "sweep-failed" not in server.log_text()


def test_an_answer_that_is_none(cluster, start_worker):
    cluster.gateway()
    server = start_worker(sweep=FAST)
    cluster.web.answers = {"sweep-volumes": {"a": 1}, "sweep-containers": [1]}
    wait_log(server, "cloche.worker.sweep-failed", error="sweep-volumes: the answer is no list of handles")
    wait_log(server, "cloche.worker.sweep-failed", error="sweep-containers: the answer is no list of handles")
    server.volumes.make("v")
    cluster.web.answers = {}
    wait_until(lambda: server.volumes.handles() == [], "the volume is gone")  # the next round is a good one


def test_a_report_that_is_refused_does_not_stop_the_sweep(cluster, start_worker):
    cluster.gateway()
    cluster.web.refused["report-volumes"] = 1
    server = start_worker(sweep=FAST)
    server.volumes.make("v")
    with cluster.web.changed:
        cluster.web.rows["volumes"]["v"] = "destroying"
    wait_log(server, "cloche.worker.report-failed", error="report-volumes: the gateway refuses it (1)")
    wait_until(lambda: server.volumes.handles() == [], "the volume is gone")


def test_what_cannot_be_destroyed_is_told_and_reported_again(cluster, start_worker):
    """A volume that a container has attached goes with it."""
    cluster.gateway()
    server = start_worker(sweep=FAST)
    cluster.web.rows["containers"]["c"] = "created"
    cluster.web.rows["volumes"]["v"] = "created"
    volume = server.volumes.make("v")
    server.client.create("c", bind_mounts=[{"src_path": volume["path"], "dst_path": "/v", "mode": 1}])
    with cluster.web.changed:
        cluster.web.rows["volumes"]["v"] = "destroying"
    cluster.web.wait(lambda: "v" not in cluster.web.rows["volumes"], "the row is gone")
    assert server.client.output("c", "echo x >/v/x; cat /v/x") == "x\n"


def test_no_sweep_without_a_connection(cluster, start_worker):
    gateway = cluster.gateway()
    server = start_worker(sweep=FAST)
    cluster.web.wait_call("sweep-volumes")
    gateway.stop()
    wait_log(server, "cloche.worker.connection-lost")
    n = len(cluster.web.calls)
    server.volumes.make("v")
    gateway.start()
    cluster.web.wait_call("sweep-volumes", n, 2)
    wait_until(lambda: server.volumes.handles() == [], "the volume is gone")


def test_a_report_of_ten_thousand(cluster, start_worker):
    """In one command. (sshd hands a command on in one string, which ends at 128 KiB: hence the short names.)"""
    cluster.gateway()
    handles = [f"v{i:05}" for i in range(10000)]
    cluster.web.rows["volumes"] = dict.fromkeys(handles, "created")
    server = start_worker(sweep="1s")
    fill(server, handles)
    cluster.web.wait(lambda: any(c == "report-volumes" and set(q["handles"]) == set(handles)
                                 for c, q in cluster.web.calls), "a whole report", 2 * GUARD)
    assert set(cluster.web.rows["volumes"]) == set(handles)


def test_a_report_is_carried_as_far_as_the_protocol_goes_and_never_split(cluster, start_worker):
    cluster.gateway()
    handles = [f"{i:0250}" for i in range(1100)]
    cluster.web.rows["volumes"] = dict.fromkeys(handles, "created")
    server = start_worker(sweep=FAST)
    # 150 KB come to the gateway, whose shell cannot be given them in one string
    fill(server, handles[:600])
    wait_log(server, "cloche.worker.report-failed", error="Argument list too long")
    fill(server, handles[600:])
    wait_log(server, "cloche.worker.report-failed", error=" bytes, and the protocol ends at")
    n = len(cluster.web.calls)
    cluster.web.wait_call("sweep-volumes", n, 2)  # what it gives up goes, so that there are fewer
    assert server.log_text().count("the protocol ends at") == 1  # said once
    assert len(server.volumes.handles()) == 1100
