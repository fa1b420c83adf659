"""The container cases of bench.py: everybody's cycle in turn, plain requests, clients in parallel, recorded builds."""
import collections
import contextlib
import functools
import json
import os
import pathlib
import shutil
import statistics
import tarfile
import time

import scripts
from common import Candidate, FAILURES, rounds
from peers import Bubblewrap, Floor, Podman, Runc, unpack, ID_BASE

FLOORS = {"floor": ("--cgroup-tasks", "--veth"), "floor, moved": ("--cgroup-move", "--veth")}
TOOLS = {"runc": (Runc, "runc", ID_BASE), "crun": (Runc, "crun", ID_BASE), "bubblewrap": (Bubblewrap, "bwrap", 0),
         "podman": (Podman, "podman", 0)}
SLOW = {"podman": 10}  # takes part in every tenth round
PARALLEL = (1, 8, 32)  # clients
UNPRIVILEGED = ("bubblewrap",)


# ---- cycles

def add_cycle(times, who, ms):
    """With the whole, which is what counts."""
    if "create" in ms:
        times.ms[f"whole cycle/{who}"] += [sum(parts) for parts in zip(*(ms[w] for w in ("create", "run", "destroy")))]
    times.add(who, ms)


def target_cycle(bench, target):
    add_cycle(bench.times, target.name, target.driver.run("cycle")[1])


def tool_cycle(bench, name, tool):
    add_cycle(bench.times, name, tool.cycle())


def open_floor(bench, name, number=0):
    program, tree = bench.disk / "floor", bench.disk / "tree"
    if not program.exists():
        Floor.build(program)
        unpack(bench.opts.root, tree, 0)
    floor = Floor(program, tree, bench.disk / f"state {number} of {name}", *FLOORS[name])
    bench.stack.callback(floor.close)
    return floor


def open_floors(bench):
    for name in FLOORS:
        if bench.wants(name):
            yield Candidate(name, functools.partial(tool_cycle, bench, name, open_floor(bench, name)))


def open_tools(bench):
    for name, (kind, word, owner) in TOOLS.items():
        program = shutil.which(word)
        if not bench.wants(name) or (not bench.is_root and name not in UNPRIVILEGED):
            continue
        if not program:
            bench.missing.append(f"{name}: {word} is not installed")
            continue
        tree = unpack(bench.opts.root, bench.disk / f"tree of {name}", owner if bench.is_root else 0, bench.is_root)
        tool = kind(program, tree, bench.disk / name)
        bench.stack.callback(tool.close)
        yield Candidate(name, functools.partial(tool_cycle, bench, name, tool), SLOW.get(name, 1))


def cycles(bench):
    candidates = [*(open_floors(bench) if bench.is_root else ()), *open_tools(bench)]
    for target in bench.targets:
        target.driver.learn("cycle", scripts.cycle(target.rootfs))
        candidates.append(Candidate(target.name, functools.partial(target_cycle, bench, target)))
    left = rounds(2, 0, candidates, bench.missing, "the warm-up")
    for name in [name for name in bench.times.ms if name.split("/")[0] in ("create", "run", "destroy", "whole cycle")]:
        del bench.times.ms[name]
    rounds(bench.plan.n_rounds, bench.opts.pause_ms, left, bench.remarks, "cycles")


# ---- requests

def open_idle(bench, target, n):
    """Containers, and a process that does nothing in the first."""
    if target.is_null:
        return
    for i in range(n):
        target.garden.create(f"idle-{i}", **({"rootfs": target.rootfs} if target.rootfs else {}))
        bench.stack.callback(remove, target, f"idle-{i}")
    target.garden.start("idle-0", "/bin/sleep", "100000", id="sleeper")[0].close()


def remove(target, handle):
    with contextlib.suppress(*FAILURES):
        target.garden.destroy(handle)


def one_of_each(bench, target):
    for name in scripts.REQUESTS:
        for mode in ("kept", "fresh") if name == "ping" else ("fresh",):
            ms = target.driver.run(name, mode)[1][name]
            bench.times.ms[f"{bench.request_names[name, mode]}/{target.name}"] += ms


def requests(bench):
    n = bench.plan.n_idle
    bench.request_names = {(name, "fresh"): name.replace("-", " ") for name in scripts.REQUESTS}
    bench.request_names |= {("list", "fresh"): f"list of {n}", ("ping", "kept"): "ping, kept connection",
                            ("ping", "fresh"): "ping, new connection"}
    candidates = []
    for target in bench.usable():
        with bench.part(target, "requests"):
            open_idle(bench, target, n)
            for name, step in scripts.REQUESTS.items():
                target.driver.learn(name, [step])
            candidates.append(Candidate(target.name, functools.partial(one_of_each, bench, target)))
    rounds(bench.plan.n_requests, 0, candidates, bench.remarks, "requests")
    for target in bench.usable():
        for i in range(n):
            if not target.is_null:
                remove(target, f"idle-{i}")


# ---- several clients

def processor_ms():
    """Of the whole machine, since it was started: in user mode, and in the kernel."""
    ticks = [int(word) for word in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:8]]
    ms = 1000 / os.sysconf("SC_CLK_TCK")
    return (ticks[0] + ticks[1]) * ms, (ticks[2] + ticks[5] + ticks[6]) * ms


def in_parallel(bench, who, clients, cycles):
    """As many cycles of each client as take about ten seconds for all; cycles returns seconds and milliseconds by action."""
    alone = bench.times.ms.get(f"whole cycle/{who}") or [10]
    n = max(1, min(bench.plan.n_parallel, int(1e4 / statistics.median(alone))) // clients)
    before = processor_ms()
    took, ms = cycles(clients, n)
    bench.rates[clients, who].append(clients * n / took)
    bench.costs[clients, who].append([(b - a) / (clients * n) for a, b in zip(before, processor_ms())])
    bench.times.ms[f"create, {clients} clients/{who}"] += ms["create"]


def by_floors(floors, clients, n):
    """Each in a process of its own."""
    begin, ms = time.perf_counter(), collections.defaultdict(list)
    for floor in floors[:clients]:
        floor.ask(n)
    for floor in floors[:clients]:
        for _ in range(n):
            for what, values in floor.answer().items():
                ms[what] += values
    return time.perf_counter() - begin, ms


def parallel(bench):
    runners = {}
    if bench.is_root and bench.wants("floor"):
        floors = [open_floor(bench, "floor", 1 + i) for i in range(max(PARALLEL))]
        runners["floor"] = functools.partial(by_floors, floors)
    for target in bench.usable():
        target.driver.learn("cycle", scripts.cycle(target.rootfs))
        runners[target.name] = functools.partial(target.driver.run, "cycle", "fresh")
    for clients in PARALLEL:
        candidates = [Candidate(who, functools.partial(in_parallel, bench, who, clients, cycles))
                      for who, cycles in runners.items()]
        rounds(bench.plan.n_parallel_rounds, bench.opts.pause_ms, candidates, bench.remarks, f"{clients} clients")


# ---- recorded builds

CHECK = "#!/bin/sh\ncat >/dev/null\necho '[{\"version\":\"1\"}]'\n"


def make_image(root, target):
    """The root of a resource type, with the root of a task below rootfs/, as images come out of a get."""
    for place in (target, target / "rootfs"):
        place.mkdir(parents=True)
        with tarfile.open(root) as archive:
            archive.extractall(place, numeric_owner=True)
    (target / "opt" / "resource").mkdir(parents=True)
    for name in ("check", "in", "out"):
        path = target / "opt" / "resource" / name
        path.write_text(CHECK)
        path.chmod(0o755)
    return target


def learn_flows(target, image):
    volume = target.volumes.import_("image", image)
    live = str(pathlib.Path(volume["path"]).parents[1]) + "/"
    for what, (name, handle) in scripts.CONCOURSE.items():
        target.driver.learn(what.replace(" ", "-"), scripts.Flow(name, handle, "image", live).steps)


def flow(bench, target):
    for what in scripts.CONCOURSE:
        _, ms = target.driver.run(what.replace(" ", "-"))
        bench.times.ms[f"{what}/{target.name}"] += [sum(parts) for parts in zip(*ms.values())]
        for label, values in ms.items():
            bench.times.ms[f"{what}: {label}/{target.name}"] += values


def concourse(bench):
    image = make_image(bench.opts.root, bench.disk / "image")
    candidates = []
    for target in bench.usable():
        if target.is_null or not target.volumes:
            continue
        with bench.part(target, "recorded builds"):
            learn_flows(target, image)
            candidates.append(Candidate(target.name, functools.partial(flow, bench, target)))
    rounds(bench.plan.n_flows, bench.opts.pause_ms, candidates, bench.remarks, "recorded builds")
    for target in bench.usable():
        if not target.is_null and target.volumes:
            with bench.part(target, "recorded builds"):
                target.volumes.destroy("image")


def by_clients(figures):
    found = collections.defaultdict(dict)
    for (clients, who), values in figures.items():
        found[clients][who] = values
    return json.loads(json.dumps(found))
