#!/usr/bin/python3
"""What a worker costs beside serving: until it is registered, while it idles, in a sweep. As root; prints figures.
usage: worker.py [CONTAINERS [VOLUMES]]"""
import os
import statistics
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
N_STARTS, N_LISTS = 7, 200


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


def bare_ssh_ms(cluster, gateway):
    """A connection with two tunnels and a command: what the gateway, its command and ssh itself take."""
    known = cluster.directory / "known_hosts"
    known.write_text("* " + (cluster.directory / "host.pub").read_text())
    start = time.monotonic()
    subprocess.run(["ssh", "-F/dev/null", "-T", "-p2222", "-i", cluster.directory / "worker", "-oIdentitiesOnly=yes",
                    "-oBatchMode=yes", f"-oUserKnownHostsFile={known}", "-oLogLevel=ERROR", "-R0.0.0.0:9001:127.0.0.1:9",
                    "-R0.0.0.0:9002:127.0.0.1:9", f"beacon@{gateway.address}", "sweep-volumes"],
                   input=b'{"name": "x"}', stdout=subprocess.DEVNULL, check=True)
    return (time.monotonic() - start) * 1000


def measure_starts(cluster, server):
    """From the start of the program until the cluster knows the worker, again and again; beside bare ssh."""
    ours, bare = [], []
    for _ in range(N_STARTS):
        bare.append(bare_ssh_ms(cluster, cluster.gateways[0]))
        server.terminate()
        n, start = count_calls(cluster.web, "register"), time.monotonic()
        server.start_process()
        cluster.wait_registered(count=n + 1)
        ours.append((time.monotonic() - start) * 1000)
        server.terminate()
        server.start()
        cluster.wait_registered(count=n + 2)
    own = [a - b for a, b in zip(ours, bare)]
    for what, values in (("start until registered", ours), ("bare ssh with a command", bare), ("own part", own)):
        print(f"{what}: min {min(values):.0f}, p50 {statistics.median(values):.0f}, max {max(values):.0f} ms")


def measure_lists(server):
    for path, client in (("/containers", server.client), ("/volumes", server.volumes)):
        ms = []
        for _ in range(N_LISTS):
            start = time.monotonic()
            client.request("GET", path)
            ms.append((time.monotonic() - start) * 1000)
        print(f"GET {path}: p50 {statistics.median(ms):.1f}, p99 {sorted(ms)[N_LISTS * 99 // 100]:.1f} ms")


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
    measure_starts(cluster, server)
    containers = [f"c{i}" for i in range(n_containers)]
    volumes = [f"v{i}" for i in range(n_volumes)]
    with web.changed:
        web.rows["containers"] = dict.fromkeys(containers, "created")
        web.rows["volumes"] = dict.fromkeys(volumes, "created")
    side_by_side(server.client.create, containers)
    side_by_side(lambda handle: server.volumes.request(
        "POST", "/volumes", {"handle": handle, "strategy": {"type": "empty"}}), volumes)
    measure_lists(server)
    web.wait_call("sweep-volumes", len(web.calls), 2)
    before, sweeps, start = worker_cpu(server), count_calls(web, "sweep-volumes"), time.monotonic()
    time.sleep(IDLE)
    text, total = difference(worker_cpu(server), before)
    sweeps = count_calls(web, "sweep-volumes") - sweeps
    print(f"{n_containers} containers, {n_volumes} volumes, {time.monotonic() - start:.0f} s with {sweeps} sweeps of each: "
          f"{text} = {total * 1000:.0f} ms of a processor")


if __name__ == "__main__":
    main()
