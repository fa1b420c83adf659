"""Runs the helper `cloche tree` without a server; makes trees and archives, and compares trees by a full walk."""
import hashlib
import io
import os
import random
import stat
import struct
import subprocess
import tarfile

from serverproc import PROGRAM

DONE, BAD_ARCHIVE, NO_PATH, FAILED = range(4)
ENCODINGS = ("raw", "gzip", "zstd", "s2")


def start(store, operation, *arguments, env=None, **streams):
    """The helper with the store as descriptor 3."""
    fd = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    try:
        script = f'exec 3<&{fd} {fd}<&-; exec "$0" "$@"' if fd != 3 else 'exec "$0" "$@"'
        return subprocess.Popen(["/bin/bash", "-c", script, PROGRAM, "tree", operation, *arguments],
                                pass_fds=[fd], env=env, stderr=subprocess.PIPE, **streams)
    finally:
        os.close(fd)


def run(store, operation, *arguments, stdin=b"", env=None):
    """(exit status, standard output, text)"""
    process = start(store, operation, *arguments, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, err = process.communicate(stdin)
    text = err.decode(errors="replace")
    assert process.returncode == DONE or text.count("\n") == 1, (process.returncode, text)
    return process.returncode, out, text


def unpack(store, data, *tree, path="", encoding="raw"):
    """The exit status."""
    return run(store, "in", *tree, f"path={path}", f"encoding={encoding}", stdin=data)[0]


def pack(store, *tree, path="", encoding="raw"):
    status, out, text = run(store, "out", *tree, f"path={path}", f"encoding={encoding}")
    assert status == DONE, text
    return out


# ---- trees

def attributes(path):
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def snapshot(top, times=True, blocks=False):
    """name: everything that a tree's entry is. Files with several names are told by their first one."""
    found, first = {}, {}

    def visit(name, path):
        st = os.lstat(path)
        entry = {"mode": stat.filemode(st.st_mode), "owner": (st.st_uid, st.st_gid), "xattrs": attributes(path)}
        if times:
            entry["mtime"] = st.st_mtime_ns
        if stat.S_ISREG(st.st_mode):
            with open(path, "rb") as file:
                entry["content"] = st.st_size, hashlib.sha256(file.read()).hexdigest()
            if blocks:
                entry["blocks"] = st.st_blocks - st.st_blocks % 16  # without what a scattered file needs for its map
        if stat.S_ISLNK(st.st_mode):
            entry["target"] = os.readlink(path)
        if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
            entry["device"] = st.st_rdev
        if not stat.S_ISDIR(st.st_mode) and st.st_nlink > 1:
            entry["same as"] = first.setdefault((st.st_dev, st.st_ino), name)
        found[name] = entry
        if stat.S_ISDIR(st.st_mode):
            for one in sorted(os.listdir(path)):
                visit(name + b"/" + one, path + b"/" + one)

    visit(b".", os.fsencode(top))
    return found


CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, perm, who) for tag, perm, who in
    ((1, 6, 0xffffffff), (2, 4, 1000), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 0, 0xffffffff)))
OWNERS = (0, 1, 1000, 65534, 65535, 65536, 2097151, 2097152, 4294967294)
SIZES = (0, 1, 511, 512, 513, 10240, 70000, 1 << 20)


class Grower:
    """A random tree; the same one for the same seed."""

    def __init__(self, top, seed, n_entries=120):
        self.random = random.Random(seed)
        self.dirs, self.files = [os.fsencode(top)], []
        self.name_number = 0
        for _ in range(n_entries):
            self.grow()
        for path in self.dirs[::-1]:
            self.dress(path, stat.S_IFDIR)

    def name(self):
        self.name_number += 1
        shape = self.random.choice((b"f%d", b"f%d", b"%d a space", b"\xff\xfe%d", b"new\nline%d", b"\xc3\xa4%d", b"-%d"))
        name = shape % self.name_number
        return name.ljust(255, b"x") if self.random.random() < .1 else name

    def grow(self):
        path = self.random.choice(self.dirs) + b"/" + self.name()
        kind = self.random.choice(("file", "file", "file", "dir", "link", "hard", "fifo", "sparse"))
        if kind == "dir":
            os.mkdir(path)
            self.dirs.append(path)
        elif kind == "hard" and self.files:
            os.link(self.random.choice(self.files), path, follow_symlinks=False)
        elif kind == "link":
            target = self.random.choice((b"nowhere", b"/etc/passwd", b"../..", b"\xfe" * 150, b"f1", b"x" * 4000))
            os.symlink(target, path)
            self.files.append(path)
            self.dress(path, stat.S_IFLNK)
        elif kind == "fifo":
            os.mkfifo(path)
            self.dress(path, stat.S_IFIFO)
        else:
            self.write(path, kind == "sparse")
            self.files.append(path)
            self.dress(path, stat.S_IFREG)

    def write(self, path, is_sparse):
        with open(path, "wb") as file:
            if not is_sparse:
                file.write(self.random.randbytes(self.random.choice(SIZES)))
                return
            for _ in range(self.random.randrange(4)):
                file.seek(self.random.randrange(0, 1 << 22, 4096))
                file.write(self.random.randbytes(4096))
            file.truncate(self.random.choice((1 << 22, (1 << 22) + 4096, (1 << 22) + 5000)))

    def dress(self, path, kind):
        os.chown(path, self.random.choice(OWNERS), self.random.choice(OWNERS), follow_symlinks=False)
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            if self.random.random() < .3:
                os.setxattr(path, b"user.mine", self.random.randbytes(self.random.choice((0, 3, 600))))
            if self.random.random() < .1:
                os.setxattr(path, "system.posix_acl_access", ACL)
            if kind == stat.S_IFREG and self.random.random() < .1:
                os.setxattr(path, "security.capability", CAPABILITY)
            if kind == stat.S_IFDIR and self.random.random() < .2:
                os.setxattr(path, "system.posix_acl_default", ACL)
        if kind != stat.S_IFLNK:
            os.chmod(path, self.random.choice((0, 0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o7777)))
        when = self.random.choice((0, 1, -10**9, -1500000000, 10**18, 1234567890123456789, 2**33 * 10**9))
        os.utime(path, ns=(when, when), follow_symlinks=False)


# ---- archives

def entry(name, content=b"", **fields):
    """One entry of a hand-made archive: (header, content)."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def directory(name, **fields):
    return entry(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def symlink(name, target, **fields):
    return entry(name, type=tarfile.SYMTYPE, linkname=target, **fields)


def hardlink(name, target, **fields):
    return entry(name, type=tarfile.LNKTYPE, linkname=target, **fields)


def archive(*entries, format=tarfile.PAX_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def raw_header(name, size=0, kind=b"0", target=b"", magic=b"ustar\x0000"):
    """A header block with fields of one's own."""
    block = (name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"00000000000\0"
             + b" " * 8 + kind + target.ljust(100, b"\0") + magic.ljust(8, b"\0")).ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data):
    return data + b"\0" * (-len(data) % 512)


def pax(records, kind=b"x"):
    text = b""
    for key, value in records:
        rest, n = len(key) + len(value) + 3, 0
        while n != rest + len(str(n)):
            n = rest + len(str(n))
        text += b"%d %s=%s\n" % (n, key, value)
    return raw_header(b"pax", len(text), kind) + padded(text)


END = b"\0" * 1024
