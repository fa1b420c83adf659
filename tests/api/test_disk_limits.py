"""Limits on disks: lines 91 to 94 of garden.md. By project quotas, on a file system of the test's own that has them (no
kernel without them can mount it: then there is only the refusal)."""
import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import sys

import pytest
from archives import Member, tar
from conftest import Container, Volume
from gardenlib import wait_until
from serverproc import Server
from test_metrics import metrics
from test_wire import assert_error

MIB = 1 << 20
TOTAL, EXCLUSIVE = 0, 1
MAKE = {"ext4": ["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"], "xfs": ["mkfs.xfs", "-q"]}


def run(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def disk(**values):
    return {"disk_limits": values}


# ---- where there are none -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("field", ["byte_soft", "byte_hard", "inode_soft", "inode_hard"])
def test_it_is_refused_where_the_file_system_keeps_no_quotas(client, field):
    reply = client.request("POST", "/containers", {"handle": "limited", "limits": disk(**{field: 10 * MIB})})
    text = assert_error(reply, 501)["Message"]
    assert text.startswith("limits.disk_limits: the file system of ") and text.endswith("mounted with prjquota")
    assert "limited" not in client.handles()


def test_line_90_a_scope_alone_is_no_limit(make_container):
    box = make_container(limits=disk(scope=1))
    assert box.client.ok("GET", f"{box.path}/limits/disk") == {"scope": 1}


# ---- where there are ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module", params=["ext4", "xfs"])
def quotas(request, tmp_path_factory):
    """A server whose work directory lies on a file system with project quotas."""
    kind, directory = request.param, tmp_path_factory.mktemp("quota")
    image, top = directory / "image", directory / "disk"
    top.mkdir()
    with open(image, "wb") as file:
        file.truncate(400 << 20)
    code, text = run(*MAKE[kind], image)
    assert code == 0, text
    code, text = run("mount", "-o", "loop,prjquota", image, top)
    if code != 0:
        pytest.skip(f"no {kind} with project quotas here: {text.strip()}")
    try:
        if not has_quotas(top):
            pytest.skip(f"this kernel's {kind} keeps no project quotas")
        server = Server(directory=top / "server")
        yield server
        server.finish()
    finally:
        code, text = run("umount", top)
        assert code == 0, text


def quotactl(directory, command, project, data):
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        r = libc.syscall(443, fd, (command << 8 | 2) - (1 << 32) * (command >> 23), project, data)
        return ctypes.get_errno() if r < 0 else 0
    finally:
        os.close(fd)


def has_quotas(directory):
    state = ctypes.create_string_buffer(256)
    return quotactl(directory, (ord("X") << 8) + 5, 0, state) == 0 and struct.unpack_from("<bxH", state)[1] & 1 << 5


def project_of(path):
    """FS_IOC_FSGETXATTR: its xflags and its project."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        attr = bytearray(28)
        fcntl.ioctl(fd, 0x801c581f, attr)
        return struct.unpack_from("<IIII", attr)[3]
    finally:
        os.close(fd)


def hard_limits(directory, project):
    """In bytes and names."""
    block = ctypes.create_string_buffer(128)
    assert quotactl(directory, 0x800007, project, block) in (0, errno.ENOENT)
    fields = struct.unpack_from("<8Q", block)
    return fields[0] * 1024, fields[3]


@pytest.fixture
def limited(quotas, root):
    made = []

    def make(**values):
        made.append(Container(quotas, rootfs=str(root), **({"limits": disk(**values)} if values else {})))
        return made[-1]

    yield make
    for one in made:
        assert one.client.request("DELETE", one.path).status in (200, 404)


def write(box, mib, path="/x", **spec):
    return box.sh(f"dd if=/dev/zero of={path} bs=1M count={mib}", **spec)


def is_full(text):
    """ext4's words, or xfs's."""
    return "quota exceeded" in text or "No space left" in text


def assert_full(result):
    status, _, err = result
    assert status != 0 and is_full(err.decode()), result


def image_size(box):
    found = metrics(box)["DiskStat"]
    return found["TotalBytesUsed"] - found["ExclusiveBytesUsed"]


def layer(box):
    """The container's directory."""
    (group,) = {line.rsplit("/", 1)[1] for line in open(f"/proc/{box.init_pid()}/cgroup").read().split()
                if "/cloche-" in line}
    return box.server.work / "containers/live" / group


def test_line_91_exclusive(limited):
    box = limited(byte_hard=10 * MIB, scope=EXCLUSIVE)
    assert box.client.ok("GET", f"{box.path}/limits/disk") == {"byte_hard": 10 * MIB, "scope": 1}
    assert write(box, 9)[0] == 0
    assert_full(write(box, 2, "/y"))
    box.output("rm /x /y")
    assert_full(write(box, 11))
    box.output("rm /x; mkdir -m 777 /alices")
    assert_full(write(box, 11, "/alices/x", user="alice"))
    box.output("rm /alices/x")
    assert write(box, 9, "/alices/x", user="alice")[0] == 0


def test_line_91_whoever_writes(limited, pea_root):
    """Archives, and processes with an image of their own, too."""
    box = limited(byte_hard=10 * MIB, scope=EXCLUSIVE)
    reply = box.client.stream_in(box.handle, tar(Member("big", b"x" * (11 * MIB))))
    assert reply.status == 500 and is_full(reply.json["Message"])
    box.output("rm -f /big")
    assert write(box, 7)[0] == 0
    assert_full(write(box, 5, image={"uri": str(pea_root)}))
    box.output("rm /x")
    wait_until(lambda: write(box, 9)[0] == 0, "what the process had is given back")


def test_line_92_total(limited):
    image = image_size(limited())
    box = limited(byte_hard=image + 10 * MIB, scope=TOTAL)
    assert write(box, 7)[0] == 0
    assert_full(write(box, 20))


def test_line_92_an_image_that_is_larger(quotas, limited, root):
    image = image_size(limited())
    for spec, field in ((disk(byte_hard=image), "byte_hard"), (disk(byte_soft=image - 1), "byte_soft"),
                        (disk(inode_hard=3), "inode_hard"), (disk(inode_soft=1), "inode_soft")):
        reply = quotas.client.request("POST", "/containers", {"handle": "h", "rootfs": str(root), "limits": spec})
        text = assert_error(reply, 500)["Message"]
        assert text.startswith(f"limits.disk_limits.{field}: the image alone takes ")
    assert "h" not in quotas.client.handles()


def test_line_93_two_containers(limited):
    one, other, free = limited(byte_hard=10 * MIB, scope=1), limited(byte_hard=20 * MIB, scope=1), limited()
    assert write(one, 9)[0] == 0 and write(other, 18)[0] == 0 and write(free, 40)[0] == 0
    assert_full(write(one, 3, "/y"))
    assert_full(write(other, 3, "/y"))
    free.output("rm /x")


def test_line_94_metrics_are_exact(limited):
    box = limited()
    before = metrics(box)["DiskStat"]
    box.output("dd if=/dev/zero of=/x bs=1M count=13 2>/dev/null; mkdir /d; touch /d/1 /d/2 /d/3")
    after = metrics(box)["DiskStat"]
    assert 13 * MIB <= after["ExclusiveBytesUsed"] - before["ExclusiveBytesUsed"] <= 13 * MIB + 64 * 1024
    assert after["ExclusiveInodesUsed"] - before["ExclusiveInodesUsed"] == 5
    box.output("rm -r /x /d")
    wait_until(lambda: metrics(box)["DiskStat"]["ExclusiveInodesUsed"] == before["ExclusiveInodesUsed"], "all is free")


def test_names(limited):
    box = limited(inode_hard=50, scope=EXCLUSIVE)
    box.output("cd /root 2>/dev/null || cd /; for i in $(seq 1 40); do touch f$i; done")
    status, _, err = box.sh("cd /root 2>/dev/null || cd /; for i in $(seq 41 60); do touch f$i || exit 1; done")
    assert status == 1 and is_full(err.decode())


@pytest.mark.parametrize("value", [1, 2**64 - 1])
def test_limits_that_are_odd(limited, value):
    box = limited(byte_hard=value, scope=EXCLUSIVE)
    if value == 1:
        assert_full(write(box, 1))
    else:
        assert write(box, 1)[0] == 0


def test_a_root_in_place_is_refused(quotas, root):
    parent = Volume(quotas.volumes, strategy={"type": "import", "path": str(root)})
    reply = quotas.client.request("POST", "/containers", {"rootfs": f"raw://{parent.path}",
                                                          "limits": disk(byte_hard=MIB)})
    assert "the root is used in place" in assert_error(reply, 501)["Message"]
    parent.destroy()


def test_a_restart(quotas, limited):
    box = limited(byte_hard=10 * MIB, scope=EXCLUSIVE)
    assert write(box, 5)[0] == 0
    before = metrics(box)["DiskStat"]
    quotas.kill()
    quotas.start()
    box.client = quotas.client
    assert metrics(box)["DiskStat"] == before
    assert_full(write(box, 6, "/y"))
    where, project = layer(box), project_of(layer(box))
    box.destroy()
    assert hard_limits(where.parent, project) == (0, 0)


def test_each_has_a_project_of_its_own_and_its_limits_go_with_it(quotas, limited):
    boxes = [limited(byte_hard=10 * MIB, inode_hard=500, scope=EXCLUSIVE) for _ in range(5)]
    live = quotas.work / "containers/live"
    projects = [project_of(layer(box)) for box in boxes]
    assert len(set(projects)) == 5 and all(project >= 0x40000000 for project in projects)
    assert all(hard_limits(live, project)[0] >= 10 * MIB for project in projects)
    for box in boxes:
        box.destroy()
    assert {hard_limits(live, project) for project in projects} == {(0, 0)}


# Opens a file of the container, takes root's place in its user namespace, and gives the file another project.
LEAVE = """
import ctypes, fcntl, os, struct, sys
file = os.open(f"/proc/{sys.argv[1]}/root/mine", os.O_RDWR)
space = os.open(f"/proc/{sys.argv[1]}/ns/user", os.O_RDONLY)
assert ctypes.CDLL(None).setns(space, 0) == 0
attr = bytearray(28)
fcntl.ioctl(file, 0x801c581f, attr)
struct.pack_into("<I", attr, 12, int(sys.argv[2]))
try:
    fcntl.ioctl(file, 0x401c5820, bytes(attr))
    print("changed")
except OSError as error:
    print(error.errno)
"""


def test_root_inside_cannot_leave_the_project(limited):
    """Not even with every capability in its user namespace."""
    box = limited(byte_hard=10 * MIB, scope=EXCLUSIVE)
    box.output("touch /mine")
    project = project_of(layer(box) / "upper/mine")
    assert project == project_of(layer(box))
    for other in (0, 7):
        status, out = run(sys.executable, "-c", LEAVE, box.init_pid(), other)
        assert status == 0 and int(out) in (errno.EINVAL, errno.EPERM, errno.EACCES), out
    assert project_of(layer(box) / "upper/mine") == project
