"""What cloche is measured against: the floor program and runc, and the disk that all of them keep their state on."""
import contextlib
import fcntl
import json
import os
import pathlib
import socket
import subprocess
import tarfile

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


def unpack(tar, target, owner):
    """A tree whose root user has the given id on disk."""
    with tarfile.open(tar) as archive:
        for member in archive:
            member.uid, member.gid = member.uid + owner, member.gid + owner
            member.uname = member.gname = ""
            archive.extract(member, target, numeric_owner=True)
    for name in ("proc", "sys", "dev"):
        (target / name).mkdir(exist_ok=True)
    if owner:
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
        flags = "-std=gnu17 -O2 -Wall -Wextra -Wshadow -Wvla -Werror -D_GNU_SOURCE -static".split()
        subprocess.run(["cc", *flags, "-o", target, HERE / "floor.c"], check=True)
        return target

    def cycle(self):
        self.process.stdin.write("\n")
        words = self.process.stdout.readline().split()
        if not words:
            raise RuntimeError("the floor program has failed")
        return dict(zip(words[::2], map(float, words[1::2])))

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


class Runc:
    """runc on a root directory in place: no copy-on-write layer, no network but loopback, no seccomp filter."""

    def __init__(self, program, root, state):
        self.program, self.state = program, state
        self.group = f"bench-{os.getpid()}"
        bundle = state / "bundle"
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(runc_config(root, f"{self.group}/c")))
        self.bundle = bundle
        self.null = os.open("/dev/null", os.O_RDWR)

    def _runc(self, *args):
        argv = [self.program, "--root", str(self.state / "run"), *map(str, args)]
        stdio = [(os.POSIX_SPAWN_DUP2, self.null, fd) for fd in (0, 1)]
        pid = os.posix_spawn(self.program, argv, os.environ, file_actions=stdio)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except BaseException:
            os.waitpid(pid, 0)  # what is taken down next must not be in its hands
            raise
        if status:
            raise RuntimeError(f"{' '.join(argv)}: {status}")

    def create(self):
        self._runc("run", "--detach", "--bundle", self.bundle, "bench")

    def run(self):
        self._runc("exec", "bench", "/bin/true")

    def destroy(self):
        self._runc("delete", "--force", "bench")

    def close(self):
        with contextlib.suppress(RuntimeError):
            self.destroy()  # of a cycle that was broken off
        os.close(self.null)
        for path in pathlib.Path("/sys/fs/cgroup").glob(f"**/{self.group}"):
            path.rmdir()


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
