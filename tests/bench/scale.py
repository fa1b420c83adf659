"""The cases of bench.py about a server with many containers: their memory, creates and lists beside them, a restart,
and what it does when nobody asks for anything."""
import json
import os
import pathlib
import statistics
import time

import scripts
from common import DEADLINE, PeerFailed, Server, Target, families


def field_kb(pid, field="Pss"):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(field + ":"))


def rss_kb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def family(pid):
    found = families()
    shims = [child for child, name in found[pid] if name == "cloche-shim"]
    return shims, [child for shim in shims for child, _ in found[shim]]


def memory(server, n):
    """Of a container: its shim and processes, and what the server has grown since it had none."""
    shims, inits = family(server.process.pid)
    if len(shims) != n:
        raise PeerFailed(f"{len(shims)} shims for {n} containers")
    figures = {"shim": statistics.mean(map(field_kb, shims)), "init": sum(map(field_kb, inits)) / n,
               "server": (field_kb(server.process.pid, "Pss_Anon") - server.anon_kb) / n}
    figures["a container"] = sum(figures.values())
    return figures | {"server, RSS": rss_kb(server.process.pid)}


def create_up_to(target, have, want):
    """By eight clients; handles are the driver's, destroyed in the end by what the server lists."""
    clients = min(8, want - have)
    n, rest = divmod(want - have, clients)
    if n:
        target.driver.run("create", "fresh", clients, n)
    if rest:
        target.driver.run("create", "fresh", rest, 1)


def beside(bench, target, n):
    """Cycles and lists beside so many."""
    for i in range(bench.plan.n_beside):
        if DEADLINE.has_passed(i, bench.plan.n_beside, f"cycles beside {n:,}"):
            break
        time.sleep(bench.opts.pause_ms / 1e3)
        _, ms = target.driver.run("cycle")
        for what in ("create", "destroy"):
            bench.times.ms[f"{what} beside {n:,}/cloche"] += ms[what]
    bench.times.ms[f"list of {n:,}/cloche"] += target.driver.run("list", "kept", 1, 50)[1]["list"]


def activity(pid):
    """Processor time of a process so far, in ms, and how often one of its threads has gone to sleep."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    sleeps = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        sleeps += next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return ticks * 1000 / os.sysconf("SC_CLK_TCK"), sleeps


def idle(server, seconds):
    """What the server and all its shims do in so long: processor time, and how often they wake."""
    pids = [server.process.pid, *family(server.process.pid)[0]]
    before = [activity(pid) for pid in pids]
    time.sleep(seconds)
    used = [(ms - was_ms, n - was_n) for (ms, n), (was_ms, was_n) in zip(map(activity, pids), before)]
    return {"seconds": seconds, "n shims": len(pids) - 1, "server": used[0], "shims": [sum(v) for v in zip(*used[1:])]}


def restarts(bench, server):
    """Until it serves, with all the containers adopted."""
    n = len(server.garden.handles())
    for what, end in (("TERM", server.end), ("kill -9", server.kill)):
        for _ in range(3):
            end()
            bench.times.ms[f"restart with {n:,} after {what}/cloche"].append(server.start() * 1e3)
            if len(server.garden.handles()) != n:
                raise PeerFailed(f"{len(server.garden.handles())} containers of {n} after a restart")


def destroy_all(bench, server, driver_program):
    """One after the other, whatever there is."""
    handles = server.garden.handles()
    target = Target("cloche", driver_program, server.garden_at)
    begin = time.perf_counter()
    try:
        for first in range(0, len(handles), 40):
            steps = [scripts.garden("destroy", "call", "DELETE", f"/containers/{h}") for h in handles[first:first + 40]]
            target.driver.learn("destroy", steps)
            target.driver.run("destroy")
    finally:
        target.close()
    bench.times.ms[f"destroy all {len(handles):,}/cloche"].append((time.perf_counter() - begin) * 1e3)


def many(bench):
    server = Server(bench.opts.program, bench.disk / "many", bench.disk / "log of many", "--container-pool", "0", n_ranges=1100)
    bench.servers.append(server)
    bench.stack.callback(bench.end, server)
    server.anon_kb = field_kb(server.process.pid, "Pss_Anon")
    target = Target("cloche", bench.driver_program, server.garden_at)
    try:
        cycle = scripts.cycle()
        for name, steps in {"create": cycle[:1], "cycle": cycle, "list": [scripts.REQUESTS["list"]]}.items():
            target.driver.learn(name, steps)
        have = 0
        for want in bench.plan.many:
            create_up_to(target, have, want)
            have = want
            bench.memory[want] = memory(server, want)
            if want > 1:
                beside(bench, target, want)
        bench.idle[f"with {have:,} containers"] = idle(server, bench.plan.idle_seconds)
    finally:
        target.close()
    restarts(bench, server)
    destroy_all(bench, server, bench.driver_program)


def nothing(bench):
    """The server of the other cases, with its pool, when all of them are over."""
    server = bench.server
    time.sleep(1)  # the pool is filled
    bench.idle["without containers, pool full"] = idle(server, bench.plan.idle_seconds)
    fresh = Server(bench.opts.program, bench.disk / "fresh", bench.disk / "log of fresh")
    bench.servers.append(fresh)
    bench.stack.callback(bench.end, fresh)
    bench.rss = {"fresh": rss_kb(fresh.process.pid), "after work": rss_kb(server.process.pid)}


PROFILED = {"warm": (), "empty": ("--container-pool", "0")}


def profile(bench):
    """Where a create spends its time, as the server itself says."""
    for pool, options in PROFILED.items():
        server = Server(bench.opts.program, bench.disk / f"profile-{pool}", bench.disk / f"log of profile-{pool}",
                        "--profile", *options)
        bench.servers.append(server)
        bench.stack.callback(bench.end, server)
        target = Target("cloche", bench.driver_program, server.garden_at)
        try:
            target.driver.learn("cycle", scripts.cycle())
            for _ in range(bench.plan.n_beside):
                time.sleep(bench.opts.pause_ms / 1e3)
                target.driver.run("cycle")
        finally:
            target.close()
        for line in server.log.read_text().splitlines():
            if '"cloche.container-profile"' in line:
                data = json.loads(line)["data"]
                for name, value in data.items():
                    if name.endswith("_us") and data["pool"] == pool:
                        bench.profiles[pool][name].append(value)
