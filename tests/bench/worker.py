#!/usr/bin/python3
"""What a worker costs beside serving: until it is registered, while it idles, in a sweep. As root; prints figures.
usage: worker.py [CONTAINERS [VOLUMES]]"""
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "api"))

import tsalib  # noqa: E402
from serverproc import BUSYBOX_ROOT, NO_POOL, Server  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
IDLE = int(os.environ.get("IDLE", "60"))  # seconds
SWEEP = os.environ.get("SWEEP", "30s")


def cpu_seconds(pid):
    """Of a process and its children that are waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:  # it is counted where it was waited for
        return 0
    return sum(int(n) for n in fields[11:15]) / TICK


def worker_cpu(server):
    helper = tsalib.helper_of(server)
    return {"server": cpu_seconds(server.pid), "cluster": cpu_seconds(helper),
            "ssh": sum(cpu_seconds(pid) for pid in tsalib.children_of(helper))}


def difference(after, before):
    parts = {key: after[key] - before[key] for key in after}
    return " + ".join(f"{key} {value * 1000:.0f}" for key, value in parts.items()), sum(parts.values())


def side_by_side(work, items, n=8):
    threads = [threading.Thread(target=lambda part=items[i::n]: [work(item) for item in part]) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def count_calls(web, call):
    return sum(name == call for name, _ in web.calls)


def main():
    n_containers, n_volumes = (int(word) for word in (sys.argv[1:] + ["1000", "5000"][len(sys.argv) - 1:]))
    with tempfile.TemporaryDirectory(prefix="cloche-bench-") as directory:
        keys = Path(directory) / "keys"
        keys.mkdir()
        for name in ("host", "worker"):
            tsalib.make_key(keys / name)
        cluster = tsalib.Cluster(directory, keys)
        cluster.web.beat_seconds = 30
        cluster.gateway()
        server = Server(*NO_POOL, "--default-rootfs", BUSYBOX_ROOT, *cluster.options(sweep=SWEEP),
                        "--network-pool", "10.128.0.0/16",
                        command=("worker",), pool=1000)
        try:
            measure(cluster, server, n_containers, n_volumes)
        finally:
            server.finish()
            cluster.close()


def measure(cluster, server, n_containers, n_volumes):
    web = cluster.web
    cluster.wait_registered()
    line = tsalib.wait_log(server, "cloche.worker.registered")
    serving = tsalib.wait_log(server, "cloche.serving")
    print(f"serving {serving['timestamp']}, registered {line['timestamp']} "
          f"(of which {line['data']['ms']} ms in the gateway's hands)")
    containers = [f"c{i}" for i in range(n_containers)]
    volumes = [f"v{i}" for i in range(n_volumes)]
    with web.changed:
        web.rows["containers"] = dict.fromkeys(containers, "created")
        web.rows["volumes"] = dict.fromkeys(volumes, "created")
    side_by_side(server.client.create, containers)
    side_by_side(lambda handle: server.volumes.request(
        "POST", "/volumes", {"handle": handle, "strategy": {"type": "empty"}}), volumes)
    for path, client in (("/containers", server.client), ("/volumes", server.volumes)):
        start = time.monotonic()
        for _ in range(10):
            client.request("GET", path)
        print(f"GET {path}: {(time.monotonic() - start) * 100:.1f} ms")
    web.wait_call("sweep-volumes", len(web.calls), 2)
    before, sweeps, start = worker_cpu(server), count_calls(web, "sweep-volumes"), time.monotonic()
    time.sleep(IDLE)
    text, total = difference(worker_cpu(server), before)
    sweeps = count_calls(web, "sweep-volumes") - sweeps
    print(f"{n_containers} containers, {n_volumes} volumes, {time.monotonic() - start:.0f} s with {sweeps} sweeps of each: "
          f"{text} = {total * 1000:.0f} ms of a processor")


if __name__ == "__main__":
    main()
