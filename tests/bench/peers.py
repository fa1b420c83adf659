"""What cloche is measured against: the floor program and runc, and the disk that all of them keep their state on."""
import contextlib
import fcntl
import json
import os
import pathlib
import socket
import subprocess
import tarfile
import time

from driver import FLAGS, PeerFailed

ID_BASE, ID_COUNT = 1879048192, 65536
HERE = pathlib.Path(__file__).parent

CAPABILITIES = """CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD
AUDIT_WRITE SETFCAP""".split()

MASKED = """/proc/asound /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list
/proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap""".split()

MOUNTS = [
    ("/proc", "proc", "nosuid noexec nodev"),
    ("/dev", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/shm", "tmpfs", "nosuid noexec nodev mode=1777 size=65536k"),
    ("/dev/mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "nosuid noexec nodev ro"),
]


class Disk:
    """A fresh file system in a file, so that neither the age nor the journal of the machine's own is measured."""

    def __init__(self, scratch, name="disk", make=("mkfs.ext4", "-q", "-F"), size=4 << 30):
        self.path = scratch / name
        image = scratch / f"{name}.img"
        self.path.mkdir()
        with open(image, "wb") as f:
            f.truncate(size)
        subprocess.run([*make, image], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["mount", "-o", "loop", image, self.path], check=True)

    def close(self):
        if subprocess.run(["umount", self.path], check=False).returncode:
            subprocess.run(["umount", "--lazy", self.path], check=True)


def unpack(tar, target, owner, is_root=True):
    """A tree whose root user has the given id on disk; or ours, if we are not root."""
    with tarfile.open(tar) as archive:
        for member in archive:
            member.uid, member.gid = member.uid + owner, member.gid + owner
            member.uname = member.gname = ""
            archive.extract(member, target, numeric_owner=True)
    for name in ("proc", "sys", "dev"):
        (target / name).mkdir(exist_ok=True)
    if owner and is_root:
        for path in (target, *(target / name for name in ("proc", "sys", "dev"))):
            os.chown(path, owner, owner)
    return target


class Floor:
    """The floor program, kept running, one container for each line that it is sent."""

    def __init__(self, program, root, state, *options):
        state.mkdir()
        command = [program, "--root", root, "--state", state, "--run", "/bin/true", "--paced", *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    @staticmethod
    def build(target):
        """Links are made by the same netlink messages as the server's."""
        top = HERE.parents[1]
        sources = [*sorted(HERE.glob("floor/*.c")), *(top / "backend" / name for name in
                   ("linux/rtnl.c", "linux/nl.c", "base/auto.c"))]
        subprocess.run(["cc", *FLAGS, "-static", "-iquote", top, "-iquote", top / "backend", "-o", target, *sources],
                       check=True)
        return target

    def ask(self, n):
        """Begins so many cycles."""
        try:
            self.process.stdin.write("\n" * n)
            self.process.stdin.flush()
        except BrokenPipeError as failure:
            raise PeerFailed("the floor program has ended") from failure

    def answer(self):
        """Of the next cycle: milliseconds by action."""
        words = self.process.stdout.readline().split()
        if not words:
            raise PeerFailed("the floor program has ended")
        return {what: [float(ms)] for what, ms in zip(words[::2], words[1::2])}

    def cycle(self):
        self.ask(1)
        return self.answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def runc_config(root, group):
    ids = [{"containerID": 0, "hostID": ID_BASE, "size": ID_COUNT}]
    caps = ["CAP_" + name for name in CAPABILITIES]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sleep", "1000000"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "root": {"path": str(root)},
        "hostname": "bench",
        "mounts": [
            {"destination": target, "type": kind, "source": kind, "options": options.split()}
            for target, kind, options in MOUNTS
        ],
        "linux": {
            "cgroupsPath": group,
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": [{"type": kind} for kind in "user pid network ipc uts mount cgroup".split()],
            "maskedPaths": MASKED,
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


class Tool:
    """A program of the command line that makes containers."""

    def __init__(self, program, state):
        self.program, self.state = program, state
        state.mkdir(parents=True)
        self.group = f"bench-{os.getpid()}"
        self.null = os.open("/dev/null", os.O_RDWR)
        self.errors = state / "errors"

    def call(self, *args):
        argv = [str(word) for word in (self.program, *args)]
        stdio = [(os.POSIX_SPAWN_DUP2, self.null, fd) for fd in (0, 1)]
        stdio.append((os.POSIX_SPAWN_OPEN, 2, self.errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        pid = os.posix_spawn(self.program, argv, os.environ, file_actions=stdio)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except BaseException:
            os.waitpid(pid, 0)  # what is taken down next must not be in its hands
            raise
        if status:
            raise PeerFailed(f"{' '.join(argv[:1] + argv[-3:])}: {status}: {self.errors.read_text()[-300:].strip()}")

    def cycle(self):
        """Milliseconds by action."""
        ms = {}
        for what in ("create", "run", "destroy"):
            begin = time.perf_counter()
            getattr(self, what)()
            ms[what] = [(time.perf_counter() - begin) * 1e3]
        return ms

    def destroy(self):
        raise NotImplementedError

    def close(self):
        with contextlib.suppress(PeerFailed, NotImplementedError):
            self.destroy()  # of a cycle that was broken off
        os.close(self.null)
        for top, names, _ in os.walk("/sys/fs/cgroup", topdown=False):  # which does not mind groups that go meanwhile
            for name in names:
                if any(part.startswith(self.group) for part in pathlib.PurePath(top).parts[-1:] + (name,)):
                    with contextlib.suppress(OSError):
                        os.rmdir(os.path.join(top, name))


class Runc(Tool):
    """runc, or crun, on a root directory in place: no copy-on-write layer, no network but loopback, no seccomp filter."""

    def __init__(self, program, root, state):
        super().__init__(program, state)
        self.group += f"-{pathlib.Path(program).name}"
        self.bundle = state / "bundle"
        self.bundle.mkdir()
        (self.bundle / "config.json").write_text(json.dumps(runc_config(root, f"{self.group}/c")))

    def _call(self, *args):
        self.call("--root", self.state / "run", *args)

    def create(self):
        self._call("run", "--detach", "--bundle", self.bundle, "bench")

    def run(self):
        self._call("exec", "bench", "/bin/true")

    def destroy(self):
        self._call("delete", "--force", "bench")


class Podman(Tool):
    """podman with runc on a root directory in place, without network."""

    def __init__(self, program, root, state):
        super().__init__(program, state)
        self.root = root
        self.group += "-podman"

    def _call(self, *args):
        # it refuses places whose names are longer than 50 characters
        places = (word for name in ("root", "runroot", "tmpdir") for word in (f"--{name}", self.state / name[:2]))
        self.call(*places, "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
                  "--storage-driver", "vfs", *args)

    def create(self):
        self._call("run", "--detach", "--name", "bench", "--network", "none", "--cgroup-parent", f"/{self.group}",
                   "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--rootfs", self.root,
                   "/bin/sleep", "1000000")

    def run(self):
        self._call("exec", "bench", "/bin/true")

    def destroy(self):
        self._call("rm", "--force", "--time", "0", "bench")


class Bubblewrap(Tool):
    """A sandbox that lives as long as its process: there is a whole cycle only. Needs no root."""

    def __init__(self, program, root, state):
        super().__init__(program, state)
        self.root = root

    def cycle(self):
        begin = time.perf_counter()
        self.call("--unshare-all", "--uid", "0", "--gid", "0", "--bind", self.root, "/", "--proc", "/proc", "--dev", "/dev",
                  "/bin/true")
        return {"whole cycle": [(time.perf_counter() - begin) * 1e3]}


@contextlib.contextmanager
def bare_relay(argv, size=1 << 20):
    """A connection that brings a program's output by the shortest way: a pipe, one buffer, a TCP socket. The relay is a
    process of its own, as a server would be."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = os.fork()
        if relay == 0:
            with listener.accept()[0] as client, subprocess.Popen(argv, stdout=subprocess.PIPE) as program:
                fcntl.fcntl(program.stdout, fcntl.F_SETPIPE_SZ, size)
                space = memoryview(bytearray(size))
                while got := os.readv(program.stdout.fileno(), [space]):
                    client.sendall(space[:got])
            os._exit(0)
        with socket.create_connection(listener.getsockname()) as client:
            yield client
        os.waitpid(relay, 0)
