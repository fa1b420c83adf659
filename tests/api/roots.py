"""Root file systems for the tests: a busybox root with a few users and the probe, and the
generator of hostile ones (security.md 0.3, F-EVIL)."""
import os
import shutil
import socket
import stat
import tarfile
from pathlib import Path

from serverproc import BUSYBOX_ROOT

PASSWD = """root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
testuser:x:1000:1000:test user:/home/testuser:/bin/sh
alice:x:1001:1010:alice:/home/alice:/bin/sh
"""
GROUP = """root:x:0:
staff:x:50:testuser
nogroup:x:65534:
testuser:x:1000:
gardenparty:x:1010:alice
gardenparty2:x:1011:alice
"""


def unpack_busybox(directory):
    """The default root as a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(BUSYBOX_ROOT) as archive:
        archive.extractall(directory)
    os.chmod(directory, 0o755)
    return directory


def make_root(directory, probe):
    """busybox, some users with homes, a program that only /sbin has, and the probe."""
    unpack_busybox(directory)
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    for name, uid, gid in (("testuser", 1000, 1000), ("alice", 1001, 1010)):
        home = directory / "home" / name
        home.mkdir(parents=True)
        os.chown(home, uid, gid)
    (directory / "sbin").mkdir(exist_ok=True)
    script = directory / "sbin/only-in-sbin"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    shutil.copy(probe, directory / "bin/probe")
    (directory / "image-file").write_text("from the image\n")
    return directory


def pack(directory, path, mode="w"):
    """A tar of a directory, with names like ./etc/passwd."""
    with tarfile.open(path, mode) as archive:
        archive.add(directory, arcname=".")
    return path


EVIL_PLACES = ("dev", "proc", "sys", "etc", "etc/passwd", "etc/group", "etc/hosts",
               "etc/resolv.conf", "etc/hostname", "tmp", "run", "dev/null", "dev/pts",
               "dev/console", "dev/shm", "sys/fs/cgroup", "workdir")


def _link_sentinel(path, sentinel):
    target = sentinel / "file" if path.suffix or path.name in _FILES else sentinel
    path.symlink_to(target)


_FILES = ("passwd", "group", "hosts", "hostname", "null", "console")


def _socket(path, _):
    # A socket's name ends at 108 bytes: bind through a descriptor of the directory.
    parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"/proc/self/fd/{parent}/{path.name}")
    finally:
        os.close(parent)


def _deep(path, _):
    here = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    name = path.name
    for _ in range(1000):  # longer than PATH_MAX allows by name
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here, name = below, "deeper"
    os.close(here)


def _long_name(path, _):
    path.mkdir()
    (path / ("n" * 255)).write_text("long\n")
    os.close(os.open(os.fsencode(path) + b"/\xff\xfe-not-utf-8", os.O_CREAT | os.O_WRONLY))


EVIL_KINDS = {
    "link-to-sentinel": _link_sentinel,
    "link-relative-up": lambda p, s: p.symlink_to("../" * 40 + str(s)[1:]),
    "link-to-fd": lambda p, s: p.symlink_to("/proc/self/fd/5"),
    "link-dangling": lambda p, s: p.symlink_to("/no/such/place"),
    "link-loop": lambda p, s: p.symlink_to(p.name),
    "fifo": lambda p, s: os.mkfifo(p),
    "socket": _socket,
    "file": lambda p, s: p.write_text("a plain file\n"),
    "device": lambda p, s: os.mknod(p, stat.S_IFBLK | 0o666, os.makedev(7, 200)),
    "closed-directory": lambda p, s: p.mkdir(mode=0),
    "long-names": _long_name,
    "deep": _deep,
}


def remove_path(path):
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def make_evil(directory, busybox, place, kind, sentinel):
    """A small root in which one place is replaced by something hostile."""
    for name in ("bin", "etc", "dev", "proc", "sys", "tmp", "root"):
        (directory / name).mkdir(parents=True)
    shutil.copy(busybox, directory / "bin/busybox")
    (directory / "bin/sh").symlink_to("busybox")
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    path = directory / place
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_path(path)
    EVIL_KINDS[kind](path, sentinel)
    return directory


def make_sentinel(directory):
    """A directory of the host which nothing may ever touch: everybody could write to it."""
    for name in ("ptmx", "file", "passwd", "hosts", "null", "core_pattern"):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"the host's {name}\n")
        (directory / name).chmod(0o666)
    (directory / "pts").mkdir()
    (directory / "pts").chmod(0o777)
    directory.chmod(0o777)
    return directory


def busybox_of(root):
    return Path(root) / "bin/busybox"
