"""The leak oracle: counts everything that a server makes in the kernel and on disk. After the last
container is gone every count must be back where it was (security.md 0.2, O-LEAK and O-HOST)."""
import contextlib
import hashlib
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import time
from collections import Counter
from pathlib import Path

NAMESPACES = ("net", "mnt", "pid", "user", "ipc", "uts", "cgroup")
CGROUPS = Path("/sys/fs/cgroup")


def read(path):
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def listing(path):
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


class Task:
    """One process of the machine, as /proc shows it."""

    def __init__(self, pid):
        self.pid = pid
        text = read(f"/proc/{pid}/stat")
        self.alive = ")" in text
        self.name = ""
        if self.alive:
            self.name = text[text.index("(") + 1:text.rindex(")")]
            self.state, parent = text[text.rindex(")") + 2:].split()[:2]
            self.parent = int(parent)

    def __repr__(self):
        return f"{self.name}[{self.pid}]"

    def uid(self):
        match = re.search(r"^Uid:\s+(\d+)", read(f"/proc/{self.pid}/status"), re.M)
        return int(match[1]) if match else -1

    def namespace(self, kind):
        try:
            return os.readlink(f"/proc/{self.pid}/ns/{kind}")
        except OSError:
            return None


def all_tasks():
    tasks = {int(name): Task(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    return {pid: task for pid, task in tasks.items() if task.alive}


def shim_pids(server, tasks):
    """Shims of this server: its children, whoever holds a socket of its run directory, and those of this run that
    nobody looks after any more. (A socket is listed by the name that it was bound to, /proc/self/fd/N/<id>.)"""
    ids = set(listing(server.work / "run"))
    inodes = {line.split()[6] for line in read("/proc/net/unix").splitlines() if line.rsplit("/", 1)[-1] in ids}
    pids = []
    for pid, task in tasks.items():
        parent = tasks.get(task.parent)
        if not task.name.startswith("cloche-shim") or parent and parent.name.startswith("cloche-shim"):
            continue  # a builder has its shim's descriptors
        if task.parent == server.pid or _holds(pid, inodes) or _is_stray(task, tasks):
            pids.append(pid)
    return pids


def _is_stray(task, tasks):
    """Its server is gone, and its socket has no name in any run directory."""
    parent = tasks.get(task.parent)
    if parent and parent.name.startswith("cloche") or task.namespace("net") != Task(os.getpid()).namespace("net"):
        return False
    sockets = {target[8:-1] for target in open_paths(task.pid) if target.startswith("socket:[")}
    names = [line.rsplit("/", 1) for line in read("/proc/net/unix").splitlines() if line.split()[6] in sockets and "/fd/" in line]
    return not any(_has_name(name) for _, name in names)


def _has_name(name):
    return any(name in listing(work / "run") for work in _works)


_works = set()  # of the servers of this run


def know(server):
    _works.add(server.work)


def _holds(pid, inodes):
    for name in listing(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:[") and target[8:-1] in inodes:
            return True
    return False


def descendants(roots, tasks):
    found, work = set(), list(roots)
    while work:
        pid = work.pop()
        if pid not in found:
            found.add(pid)
            work += [t.pid for t in tasks.values() if t.parent == pid]
    return found


def family(server):
    """Every process of the server: shims, their children, and strays with ids of its pool."""
    tasks = all_tasks()
    pids = descendants([server.pid, *shim_pids(server, tasks)], tasks)
    first, last = server.pool[0], server.pool[0] + server.pool[1] * 65536
    pids |= {pid for pid, task in tasks.items() if first <= task.uid() < last}
    pids |= {pid for pid in _cgroup_members(server) if pid in tasks}
    return {pid: tasks[pid] for pid in pids if pid in tasks}


def kill_all(pids):
    """SIGKILL; the death of one may be that of others."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def container_init(server, handle):
    """The host's pid of a container's init: the one whose children see themselves in it."""
    mark = f"cloche-test-{os.getpid()}-{time.monotonic_ns()}"
    process = server.client.run(handle, {"path": "/bin/sh", "args": ["-c", f": {mark}; read x"]})
    try:
        for pid, task in family(server).items():
            if mark in read(f"/proc/{pid}/cmdline"):
                return task.parent
        raise AssertionError("the container's process is not among the server's")
    finally:
        process.end_stdin()
        process.wait()


def learn_cgroup_name(server):
    """Which `cloche-xxxxxxxx` group is this server's: seen on a container that lives a moment."""
    if server.cgroup_name is None:
        handle = server.client.create()
        pid = container_init(server, handle)
        names = set(re.findall(r"/(cloche-[0-9a-f]{8})(?:/|$)", read(f"/proc/{pid}/cgroup"), re.M))
        server.client.destroy(handle)
        assert len(names) == 1, f"groups of a container: {names}"
        server.cgroup_name = names.pop()
    return server.cgroup_name


def cgroup_directories(server):
    """Every directory below this server's own groups, in each hierarchy."""
    if server.cgroup_name is None:
        return []
    found = []
    for top, names, _ in os.walk(CGROUPS):
        if server.cgroup_name in names:
            for below, more, _ in os.walk(Path(top) / server.cgroup_name):
                found += [os.path.join(below, name) for name in more]
    return sorted(found)


def _cgroup_members(server):
    pids = set()
    for directory in cgroup_directories(server):
        pids |= {int(pid) for pid in read(f"{directory}/cgroup.procs").split()}
    return pids


def id_ranges(server):
    path = server.work / "state.db"
    if not path.exists():
        return []
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        return [row[0] for row in database.execute("SELECT * FROM containers")]
    finally:
        database.close()


def rows(server, table):
    path = server.work / "state.db"
    if not path.exists():
        return []
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        return [str(row) for row in database.execute(f"SELECT * FROM {table}")]
    finally:
        database.close()


UNBORN = 3  # enum container_state


def unborn(server):
    """The ids of containers that are prepared ahead of requests."""
    path = server.work / "state.db"
    if not path.exists():
        return []
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        return [row[0] for row in database.execute("SELECT id FROM containers WHERE state = ?", (UNBORN,))]
    finally:
        database.close()


def spare_links(server):
    """Those of containers that are prepared ahead of requests."""
    ids = set(unborn(server))
    rows_of = [row.strip("()").split(", ") for row in rows(server, "addresses")]
    return {f"cl{server.tag}-{int(row[1]):08x}" for row in rows_of if row[0].strip("'") in ids}


def links(server):
    """Those of the server's containers, in this network namespace."""
    names = [line.split(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]]
    return sorted(name for name in names if name.startswith(f"cl{server.tag}-") and name not in spare_links(server))


def addresses(server):
    ids = unborn(server)
    return [row for row in rows(server, "addresses") if not any(name in row for name in ids)]


def rule_elements(server):
    """What the server's table of rules has of containers: elements and chains."""
    table = subprocess.run(["nft", "-j", "list", "table", "inet", f"cloche-{server.tag}"],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
    found, spare = [], spare_links(server)
    for item in json.loads(table or "{}").get("nftables", []):
        holder = item.get("set") or item.get("map")
        if holder:
            found += [f"{holder['name']}: {element}" for element in holder.get("elem", [])
                      if not any(link in str(element) for link in spare)]
        if "chain" in item:
            found.append(f"chain {item['chain']['name']}")
    return sorted(found)


def waiting_builders(server):
    """How many builders have done the first plan and wait for the second, with an init of that name."""
    tasks = family(server)
    shims = {pid for pid, task in tasks.items() if task.name == "cloche-shim"}
    named = {task.parent for task in tasks.values() if task.name == "garden-init"}
    return sum("skb_wait" in read(f"/proc/{pid}/wchan") for pid in shims if tasks[pid].parent in shims & named)


def wait_for_pool(server, timeout=10):
    """Until as many containers are prepared as there should be: what there is from then on is somebody's."""
    deadline = time.monotonic() + timeout
    while waiting_builders(server) < server.pool_size() and time.monotonic() < deadline:
        time.sleep(0.01)


def loop_devices(server):
    files = [read(p / "loop" / "backing_file") for p in Path("/sys/block").glob("loop*")]
    return [f for f in files if str(server.work) in f]


def open_paths(pid):
    targets = []
    for name in listing(f"/proc/{pid}/fd"):
        try:
            targets.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            pass
    return targets


def open_files(pid, ids=()):
    return sorted(re.sub(r"\d{3,}", "N", target) for target in without_ids(open_paths(pid), ids))


def children(pid):
    names = listing(f"/proc/{pid}/task")
    return [int(child) for name in names for child in read(f"/proc/{pid}/task/{name}/children").split()]


def helpers(server):
    """Processes of the server that work on trees, each before its own children."""
    found = [pid for pid in children(server.pid) if not Task(pid).name.startswith("cloche-shim")]
    for pid in found:
        found += children(pid)
    return found


def mount_points(pid):
    lines = [line.split(" ") for line in read(f"/proc/{pid}/mountinfo").splitlines()]
    # Loop devices are those of other tests: see loop_devices.
    return sorted(fields[4] for fields in lines if "/dev/loop" not in fields[-2])


def snapshot(server):
    wait_for_pool(server)
    ids = unborn(server)
    tasks = family(server)
    shims = [pid for pid in tasks if tasks[pid].name.startswith("cloche-shim")]
    counts = {
        "processes": sorted(f"{t.name}" for t in tasks.values()),
        "zombies": sorted(f"{t.name} of {Task(t.parent).name}" for t in tasks.values() if t.state == "Z"),
        "mounts of the server": mount_points(server.pid),
        "mounts of the shims": sorted(m for pid in shims for m in mount_points(pid) if "/pytest-of-" not in m),
        "descriptors of the server": open_files(server.pid),
        "descriptors of the shims": sorted(f for pid in shims for f in open_files(pid, ids)),
        "threads of the server": ["thread"] * len(listing(f"/proc/{server.pid}/task")),
        "cgroup directories": cgroup_directories(server),
        "id ranges": id_ranges(server),
        "addresses": addresses(server),
        "ports": rows(server, "ports"),
        "rules": rows(server, "rules"),
        "links": links(server),
        "elements of rules": rule_elements(server),
        "loop devices": loop_devices(server),
        "containers/live": listing(server.work / "containers" / "live"),
        "containers/dead": listing(server.work / "containers" / "dead"),
        "run": listing(server.work / "run"),
        "volumes": sorted(str(path.relative_to(server.work)) for path in server.volume_files()),
    }
    for kind in NAMESPACES:
        kinds = {t.namespace(kind) for t in tasks.values()} - {None}
        counts[f"{kind} namespaces"] = ["namespace"] * len(kinds)
    return {name: without_ids(items, ids) for name, items in counts.items()}


def without_ids(items, ids):
    """One prepared container is as good as another."""
    return [re.sub("|".join(ids), "unborn", item) for item in items] if ids else items


def difference(before, after):
    """What is there and was not. What was just going away at the first look may be gone."""
    lines = []
    for name, was in before.items():
        new = Counter(after[name]) - Counter(was)
        if new:
            items = ", ".join(f"{n} x {item}" if n > 1 else item for item, n in new.most_common(8))
            lines.append(f"{name}: {len(was)} -> {len(after[name])}, new: {items}")
    return lines


def settled(server, before, timeout=60):
    """Wait until nothing is there that was not, else fail and say what."""
    deadline, pause = time.monotonic() + timeout, 0.01
    while lines := difference(before, snapshot(server)):
        server.check()
        assert time.monotonic() < deadline, "left behind:\n  " + "\n  ".join(lines)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)


# What the host looks like from outside: hostile roots and containers must not change a bit of it.
VOLATILE = re.compile(
    r"/proc/sys/(fs/(aio-nr|dentry-state|file-nr|inode-(nr|state)|quota)|kernel/(random/|pty/nr|"
    r"ns_last_pid|shm|seccomp/|spl|sched_domain|perf_event_max_sample_rate)|net/netfilter/nf_conntrack_|"
    r"net/ipv[46]/(route/flush|conf/|neigh/)|vm/(stat_refresh|compact_memory|drop_caches))")


def sysctl_values():
    values = {}
    for top, _, files in os.walk("/proc/sys"):
        for name in files:
            path = os.path.join(top, name)
            if not VOLATILE.match(path) and os.stat(path).st_mode & 0o444:
                values[path] = read(path)
    return values


def tree(directory):
    """Names, kinds, modes, owners, times and contents below a directory."""
    found = {}
    for top, names, files in os.walk(directory):
        for name in [".", *names, *files]:
            path = os.path.join(top, name)
            info = os.lstat(path)
            content = ""
            if stat.S_ISREG(info.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            found[path] = (info.st_mode, info.st_uid, info.st_gid, info.st_rdev, info.st_nlink,
                           info.st_mtime_ns, info.st_ctime_ns, content,
                           tuple(sorted(os.listxattr(path, follow_symlinks=False))))
    return found


def host_snapshot(*directories):
    mounts = [line for line in read("/proc/self/mountinfo").splitlines() if "/dev/loop" not in line]
    state = {"sysctls": sysctl_values(), "mounts": "\n".join(mounts), "etc": tree("/etc")}
    for directory in directories:
        state[str(directory)] = tree(directory)
    return state


def assert_host_unchanged(before, *directories):
    after = host_snapshot(*directories)
    for name, was in before.items():
        now = after[name]
        if isinstance(was, str):
            assert now == was, f"{name} of the host changed"
            continue
        changed = {key: (was.get(key), now.get(key)) for key in was.keys() | now.keys()
                   if was.get(key) != now.get(key)}
        assert not changed, f"{name} of the host changed: {list(changed.items())[:5]}"
