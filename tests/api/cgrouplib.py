"""The cgroup side of containers: where their groups lie, what a process in them may do, and hosts that this one is not."""
import json
import os
import subprocess
import sys
from pathlib import Path

import oracle

# Runs a command on a host without v1 device controller: it sees none, in a mount namespace of its own.
WITHOUT_V1_DEVICES = ("unshare", "-m", "--propagation", "private", "/bin/sh", "-c",
                      'while grep -q " /sys/fs/cgroup/devices cgroup " /proc/mounts; do '
                      'umount /sys/fs/cgroup/devices || exit 9; done; exec "$@"', "sh")


def v2_mount():
    for line in oracle.read("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    return None


def groups_of(pid):
    """Mounted directories of the groups of a process: {controllers: path}, v2 as "unified"."""
    found = {}
    for line in oracle.read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        top = oracle.CGROUPS / controllers if controllers else v2_mount()
        if top and top.is_dir():
            found[controllers or "unified"] = Path(f"{top}{path}")
    return found


def started_in(group):
    """A prefix: the command begins in a v2 group, alone, as systemd would start it."""
    return "/bin/sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh"


# In the groups, but with the host's root, rights and file systems: makes nodes and opens them.
_ATTEMPTS = """
import json, os, stat, sys
groups, directory, nodes = json.loads(sys.argv[1])
for group in groups:
    with open(group + "/cgroup.procs", "w") as file:
        file.write("0")
def attempt(call, *arguments):
    try:
        found = call(*arguments)
        if call is os.open:
            os.close(found)
        return "ok"
    except OSError as error:
        return "EPERM" if error.errno == 1 else "ok"  # no such device, but it might have been opened
results = {}
for number, node in enumerate(nodes):
    kind, major, minor = node.split(":")
    path = f"{directory}/{number}"
    mode = (stat.S_IFBLK if kind == "b" else stat.S_IFCHR) | 0o600
    made = attempt(os.mknod, path, mode, os.makedev(int(major), int(minor)))
    flags = os.O_NONBLOCK | os.O_NOCTTY
    results[node] = [made, attempt(os.open, path, os.O_RDONLY | flags), attempt(os.open, path, os.O_WRONLY | flags)]
    os.unlink(path)
print(json.dumps(results))
"""


def attempts_from(pid, directory, nodes):
    """What a process of the host that is put into the groups of `pid` may do with devices: {node: [mknod, read, write]}."""
    groups = [str(path) for path in groups_of(pid).values()]
    done = subprocess.run([sys.executable, "-c", _ATTEMPTS, json.dumps([groups, str(directory), nodes])], check=True,
                          stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def disk_node():
    device = os.stat("/").st_dev
    return f"b:{os.major(device)}:{os.minor(device)}"
