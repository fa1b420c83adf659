"""Root file systems: every form, the bad ones, and the hostile ones (F-EVIL, T-C1 to T-C12)."""
import gzip
import os
import shutil
import stat
import subprocess
import tarfile

import oracle
import pytest
import roots
from conftest import Container, unique_name
from test_wire import assert_error


@pytest.fixture(scope="module")
def forms(tmp_path_factory, root):
    """The test root as a directory and as archives."""
    top = tmp_path_factory.mktemp("forms")
    plain = roots.pack(root, top / "root.tar")
    (top / "root.tar.gz").write_bytes(gzip.compress(plain.read_bytes(), 1))
    subprocess.run(["zstd", "-q", "-1", plain, "-o", top / "root.tar.zst"], check=True)
    shutil.copy(top / "root.tar.gz", top / "no-suffix")
    return {"directory": root, "tar": plain, "tar.gz": top / "root.tar.gz",
            "tar.zst": top / "root.tar.zst", "without a suffix": top / "no-suffix"}


@pytest.mark.parametrize("field", ["rootfs", "image"])
@pytest.mark.parametrize("form", ["directory", "tar", "tar.gz", "tar.zst", "without a suffix"])
def test_forms(make_container, forms, form, field):
    path = str(forms[form])
    before = os.stat(path).st_mtime_ns, os.stat(path).st_size
    box = make_container(**({"rootfs": path} if field == "rootfs" else {"image": {"uri": path}}))
    assert box.output("cat /image-file; id -u alice; stat -c %u:%g /home/alice /etc") == (
        "from the image\n1001\n1001:1010\n0:0\n")
    box.output("echo changed > /image-file; rm -r /home/testuser; mkdir /home/testuser; touch /new; "
               "mv /etc/group /etc/other; chown alice /image-file")
    assert box.output("cat /image-file; ls -A /home/testuser; stat -c %u /image-file") == "changed\n1001\n"
    assert (os.stat(path).st_mtime_ns, os.stat(path).st_size) == before


def test_the_source_is_never_written(make_container, root):
    before = oracle.tree(root)
    box = make_container(rootfs=str(root))
    box.output("echo x > /image-file; rm /bin/probe; chmod 700 /etc; mkdir /made; touch /proc-not")
    box.destroy()
    assert oracle.tree(root) == before


@pytest.mark.parametrize("form", ["directory", "tar"])
def test_two_containers_of_one_image(make_container, forms, form):
    a, b = (make_container(rootfs=str(forms[form])) for _ in range(2))
    a.output("echo a > /image-file; echo a > /tmp/a")
    assert b.output("cat /image-file; ls /tmp") == "from the image\n"
    b.output("echo b > /image-file")
    assert a.output("cat /image-file") == "a\n"


def test_an_archive_that_changed_is_read_again(make_container, tmp_path, forms):
    path = tmp_path / "image.tar"
    shutil.copy(forms["tar"], path)
    assert make_container(rootfs=str(path)).output("cat /image-file") == "from the image\n"
    other = roots.unpack_busybox(tmp_path / "other")
    (other / "image-file").write_text("another one\n")
    roots.pack(other, path)
    assert make_container(rootfs=str(path)).output("cat /image-file") == "another one\n"


def test_owners_modes_and_links_of_an_archive(make_container, tmp_path):
    top = roots.unpack_busybox(tmp_path / "image")
    for name, mode, uid, gid in (("suid", 0o4755, 0, 0), ("mine", 0o640, 1000, 50),
                                 ("last", 0o600, 65535, 65535)):
        (top / name).write_text(name)
        os.chown(top / name, uid, gid)
        (top / name).chmod(mode)
    os.link(top / "mine", top / "mine-too")
    (top / "link").symlink_to("mine")
    (top / "absolute").symlink_to("/etc/passwd")
    os.mkfifo(top / "fifo")
    box = make_container(rootfs=str(roots.pack(top, tmp_path / "image.tar")))
    assert box.output("stat -c %a:%u:%g:%h /suid /mine /mine-too /last") == (
        "4755:0:0:1\n640:1000:50:2\n640:1000:50:2\n600:65535:65535:1\n")
    assert box.output("readlink /link; readlink /absolute; cat /link; [ -p /fifo ] && echo fifo") == (
        "mine\n/etc/passwd\nminefifo\n")


def test_raw_is_in_place(start_server, tmp_path):
    allowed = tmp_path / "allowed"
    image = roots.unpack_busybox(allowed / "image")
    (image / "tmp").chmod(0o1777)
    server = start_server("--allow-raw", str(allowed))
    box = Container(server, rootfs=f"raw://{image}")
    box.output("echo kept > /tmp/kept")
    box.destroy()
    assert (image / "tmp/kept").read_text() == "kept\n"
    again = Container(server, rootfs=f"raw://{image}")
    assert again.output("cat /tmp/kept") == "kept\n"
    again.destroy()
    assert (image / "bin/busybox").exists()


def test_raw_needs_permission(start_server, server, client, tmp_path):
    allowed, other = tmp_path / "allowed", roots.unpack_busybox(tmp_path / "allowed-not")
    roots.unpack_busybox(allowed / "image")
    (allowed / "link").symlink_to(other)
    reply = client.request("POST", "/containers", {"rootfs": f"raw://{allowed}/image"})
    document = assert_error(reply, reply.status)
    assert reply.status >= 400 and "--allow-raw" in document["Message"]
    mine = start_server("--allow-raw", str(allowed)).client
    for path in (other, f"{allowed}/../allowed-not", f"{allowed}/link", f"{allowed}-not", "/",
                 f"{allowed}/missing", "relative"):
        reply = mine.request("POST", "/containers", {"rootfs": f"raw://{path}"})
        assert reply.status >= 400, path
        assert_error(reply, reply.status)
    assert mine.handles("garden.state=all") == []


def make_bad(tmp_path, case):
    path = tmp_path / "bad"
    if case == "missing":
        return path
    if case == "cut off":
        whole = roots.pack(roots.unpack_busybox(tmp_path / "b"), tmp_path / "whole.tar").read_bytes()
        path.write_bytes(whole[:len(whole) // 2])
    elif case == "cut off gzip":
        whole = roots.pack(roots.unpack_busybox(tmp_path / "b"), tmp_path / "w.tar.gz", "w:gz")
        path.write_bytes(whole.read_bytes()[:-2000])
    elif case == "damaged":
        whole = bytearray(roots.pack(roots.unpack_busybox(tmp_path / "b"), tmp_path / "w.tar").read_bytes())
        with tarfile.open(tmp_path / "w.tar") as archive:
            at = archive.getmembers()[20].offset  # a header in the middle
        whole[at:at + 512] = b"\xff" * 512
        path.write_bytes(whole)
    elif case == "no archive":
        path.write_bytes(os.urandom(100000))
    elif case == "empty file":
        path.write_bytes(b"")
    elif case == "fifo":
        os.mkfifo(path)
    elif case == "device":
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif case == "link loop":
        path.symlink_to("bad")
    return path


@pytest.mark.parametrize("case", ["missing", "cut off", "cut off gzip", "damaged", "no archive",
                                  "empty file", "fifo", "device", "link loop"])
def test_bad_roots(server, client, tmp_path, case):
    before = oracle.snapshot(server)
    images = set(oracle.listing(server.work / "images"))
    handle = unique_name()
    reply = client.request("POST", "/containers", {
        "handle": handle, "rootfs": str(make_bad(tmp_path, case))})
    client.request("DELETE", f"/containers/{handle}")
    assert reply.status >= 400
    assert_error(reply, reply.status)
    assert handle not in client.handles("garden.state=all")
    assert set(oracle.listing(server.work / "images")) == images
    oracle.settled(server, before)


@pytest.mark.parametrize("uri", ["relative/path", "http://host/x.tar", "file:///etc", "docker:///x", "raw:",
                                 "raw://", "/tmp\u0000", "x" * 10000])
def test_bad_uris(client, uri):
    handle = unique_name()
    reply = client.request("POST", "/containers", {"handle": handle, "rootfs": uri})
    assert reply.status >= 400
    assert_error(reply, reply.status)
    assert handle not in client.handles("garden.state=all")


def test_default_rootfs_option(start_server, root):
    box = Container(start_server("--default-rootfs", str(root)))
    assert box.output("cat /image-file") == "from the image\n"
    box.destroy()


@pytest.fixture
def sentinel(tmp_path):
    return roots.make_sentinel(tmp_path / "sentinel")


@pytest.mark.parametrize("place", roots.EVIL_PLACES)
def test_hostile_roots(server, client, tmp_path, root, sentinel, place):
    """Created or refused cleanly; what runs has its own proc; nothing of the host changes."""
    host = oracle.host_snapshot(sentinel)
    before = oracle.snapshot(server)
    outcomes = {}
    for kind in roots.EVIL_KINDS:
        image = roots.make_evil(tmp_path / "evil", roots.busybox_of(root), place, kind, sentinel)
        outcomes[kind] = try_root(client, image)
        subprocess.run(["rm", "-rf", image], check=True)
    oracle.assert_host_unchanged(host, sentinel)
    oracle.settled(server, before)
    assert all(outcomes.values()), outcomes


CHECK = """busybox stat -f -c %t /proc; busybox stat -c %t:%T /dev/null
[ -e /proc/keys ] && busybox stat -c %t:%T /proc/keys
busybox cat /proc/1/comm"""


def try_root(client, image):
    handle = unique_name("evil")
    reply = client.request("POST", "/containers", {"handle": handle, "rootfs": str(image)})
    if reply.status != 200:
        assert_error(reply, reply.status)
        return "refused"
    spec = {"path": "/bin/busybox", "args": ["sh", "-c", CHECK], "env": ["PATH=/bin"]}
    for user in ("root", "alice"):
        with_user = {**spec, "user": user}
        outcome = run_or_refusal(client, handle, with_user)
        if outcome is not None:
            status, out = outcome
            words = out.decode().split()
            assert words[0] == "9fa0" and words[1] == "1:3" and words[-1] == "garden-init", (image, words)
            assert set(words[1:-1]) == {"1:3"}
    run_or_refusal(client, handle, {**spec, "dir": "/workdir/made", "user": "alice"})
    client.destroy(handle)
    return "ran"


def run_or_refusal(client, handle, spec):
    from gardenlib import Hijacked
    try:
        process = client.run(handle, spec)
    except Hijacked as refusal:
        assert refusal.reply.json["Message"]
        assert "the host's" not in refusal.reply.json["Message"]
        return None
    process.end_stdin()
    return process.wait(), process.stdout


def test_c5_own_dev_null_of_an_image(make_container, tmp_path, root):
    image = roots.unpack_busybox(tmp_path / "image")
    (image / "dev").mkdir(exist_ok=True)
    (image / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    box = make_container(rootfs=str(image))
    assert box.output("stat -c %t:%T /dev/null /proc/keys /proc/keys") == "1:3\n" * 3


def test_c7_dev_that_leads_to_the_host(client, tmp_path, root, sentinel):
    before = oracle.tree(sentinel)
    image = roots.make_evil(tmp_path / "evil", roots.busybox_of(root), "dev", "link-to-sentinel", sentinel)
    try_root(client, image)
    assert oracle.tree(sentinel) == before


@pytest.mark.parametrize("name", ["hosts", "resolv.conf", "hostname"])
def test_c10_files_that_are_put_into_etc(client, tmp_path, root, sentinel, name):
    target = sentinel / name
    target.write_text("the host's own\n")
    image = roots.make_evil(tmp_path / "evil", roots.busybox_of(root), f"etc/{name}", "file", sentinel)
    (image / "etc" / name).unlink()
    (image / "etc" / name).symlink_to(target)
    handle = client.create(unique_name(), rootfs=str(image))
    assert client.output(handle, "busybox cat /etc/hosts", env=["PATH=/bin"]).count("localhost") >= 1
    assert target.read_text() == "the host's own\n"
    client.destroy(handle)


PASSWD_FILES = {
    "fifo": lambda p: os.mkfifo(p),
    "link to zero": lambda p: p.symlink_to("/dev/zero"),
    "huge and sparse": lambda p: os.truncate(os.open(p, os.O_CREAT | os.O_WRONLY), 1 << 31),
    "link to the host's": lambda p: p.symlink_to("/etc/shadow"),
    "directory": lambda p: p.mkdir(),
    "long line": lambda p: p.write_text("a" * 3000000 + ":x:0:0::/:\n"),
    "binary": lambda p: p.write_bytes(bytes(range(256)) * 100),
}


def peak_memory(server):
    text = oracle.read(f"/proc/{server.pid}/status")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM")))


@pytest.mark.parametrize("case", PASSWD_FILES)
def test_c12_passwd_files(server, client, tmp_path, root, case):
    from serverproc import SANITIZED
    image = roots.unpack_busybox(tmp_path / "image")
    (image / "etc/passwd").unlink()
    PASSWD_FILES[case](image / "etc/passwd")
    handle = client.create(unique_name(), rootfs=str(image))
    peak = peak_memory(server)
    reply = client.run_refused(handle, {"path": "/bin/true", "user": "alice"})
    document = assert_error(reply, 500)
    assert "root:" not in document["Message"]
    for spec in ({}, {"user": "0:0"}):
        run_or_refusal(client, handle, {"path": "/bin/true", **spec})
    assert SANITIZED or peak_memory(server) - peak < 32768, "KiB more than before"
    client.destroy(handle)


def test_c9_mount_points_replaced_by_links(server, client, tmp_path, root, sentinel):
    """Destroy deletes nothing through what the container left in its place."""
    before = oracle.tree(sentinel)
    handle = client.create(unique_name(), rootfs=str(root))
    client.sh(handle, f"cd /; for d in home tmp root etc var; do rm -rf $d; ln -s {sentinel} $d; done; "
                      f"ln -s {sentinel} /more; mkdir -p /a/b; ln -s ../../../../..{sentinel} /a/b/c")
    client.destroy(handle)
    assert oracle.tree(sentinel) == before


def test_deep_and_odd_trees_are_destroyed(server, client):
    before = oracle.snapshot(server)
    handle = client.create(unique_name())
    # Three chains of directories, one below the other: deeper than any path can say.
    client.output(handle, """cd /tmp; p=$(printf 'name-%.0s/' $(seq 400))
        for i in 1 2 3; do mkdir -p new/$p && { [ ! -d old ] || mv old new/$p; } && mv new old || exit 1; done""")
    client.output(handle, "cd /; mkdir -m 000 /closed; mkfifo /fifo; touch \"$(printf 'a\\nb\\377')\"; "
                          "ln -s / /root-link; i=0; while [ $i -lt 2000 ]; do : > /tmp/f$i; i=$((i+1)); done")
    client.destroy(handle)
    oracle.settled(server, before)
