"""Looks whether anything of a run is left: processes, mounts, loop devices, cgroups, links, directories."""
import contextlib
import os
import pathlib

from common import children


def in_our_network():
    """Processes in the network namespace that the run has made for itself, and those that came from us."""
    ours, me = os.readlink("/proc/self/ns/net"), os.getpid()
    found = {pid: name for pid, name in children(me)}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(path.name) != me and os.readlink(path / "ns/net") == ours:
                found[int(path.name)] = (path / "comm").read_text().strip()
    return [f"process {name} ({pid})" for pid, name in found.items()]


def links():
    names = (line.split(":")[0].strip() for line in pathlib.Path("/proc/net/dev").read_text().splitlines()[2:])
    return [f"link {name}" for name in names if name != "lo"]


def groups(names):
    """Of our servers: what is below their groups; of the tools: the groups themselves."""
    found = []
    for top, directories, _ in os.walk("/sys/fs/cgroup"):
        for name in directories:
            path = pathlib.Path(top, name)
            if name.startswith(f"bench-{os.getpid()}") or path.parent.name in names:
                found.append(f"cgroup {path}")
    return found


def on_disk(scratch):
    found = [f"directory {path}" for path in scratch if path.exists()]
    mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line.split()[4]}" for line in mounts if any(f" {path}/" in line for path in scratch)]
    for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if any(path.read_text().startswith(str(s)) for s in scratch):
                found.append(f"loop device for {path.read_text().strip()}")
    return found


def look(scratch, group_names, has_own_network):
    found = on_disk(scratch) + groups(group_names)
    return found + in_our_network() + links() if has_own_network else found
