"""Bind mounts: sources and destinations of every kind, read-only and read-write (line 119 and 1.7)."""
import os
import subprocess

import oracle
import pytest
import roots
from conftest import Container, Volume, unique_name
from test_wire import assert_error

RO, RW = 0, 1


@pytest.fixture
def source(tmp_path):
    """A directory that everybody may write to, with a file of root's and one for everybody."""
    top = tmp_path / "source"
    (top / "below").mkdir(parents=True)
    top.chmod(0o777)
    (top / "of-root").write_text("of root\n")
    (top / "for-all").write_text("for all\n")
    (top / "for-all").chmod(0o666)
    (top / "below/file").write_text("below\n")
    (top / "link").symlink_to("below/file")
    return top


@pytest.fixture
def host_mount():
    """Mount something on the host; it goes at the end of the test."""
    points = []

    def mount(point, *options):
        subprocess.run(["mount", "-t", "tmpfs", *options, "cloche-test", point], check=True)
        points.append(point)

    yield mount
    for point in reversed(points):
        subprocess.run(["umount", point], check=True)


def bind(src, dst, mode=RO, **more):
    return {"src_path": str(src), "dst_path": dst, "mode": mode, **more}


def test_read_only_is_the_default(make_container, source):
    box = make_container(bind_mounts=[{"src_path": str(source), "dst_path": "/bound"}])
    assert box.output("cat /bound/of-root /bound/below/file /bound/link") == "of root\nbelow\nbelow\n"
    for command in ("touch /bound/new", "echo x > /bound/for-all", "rm /bound/for-all",
                    "chmod 777 /bound/for-all"):
        status, _, err = box.sh(command)
        assert status != 0 and b"Read-only file system" in err, command
    assert sorted(os.listdir(source)) == ["below", "for-all", "link", "of-root"]


def test_read_write(make_container, source):
    box = make_container(bind_mounts=[bind(source, "/bound", RW)])
    box.output("echo new > /bound/new; echo changed > /bound/for-all")
    assert (source / "new").read_text() == "new\n"
    assert (source / "for-all").read_text() == "changed\n"
    # Files of the host's root are nobody's in here, so that even root may not write them.
    assert box.sh("echo x > /bound/of-root")[0] != 0
    assert (source / "of-root").read_text() == "of root\n"
    assert box.output("stat -c %u:%g /bound/of-root /bound/new") == "65534:65534\n0:0\n"
    assert os.stat(source / "new").st_uid >= 1879048192


def test_read_write_privileged(make_container, source, root):
    box = make_container(rootfs=str(root), privileged=True, bind_mounts=[bind(source, "/bound", RW)])
    box.output("echo by root > /bound/of-root")
    assert (source / "of-root").read_text() == "by root\n"
    assert box.sh("echo x > /bound/of-root", user="testuser")[0] != 0


@pytest.mark.parametrize("destination", ["/new", "/new/with/parents", "/etc", "/tmp/x", "/root",
                                         "/new/", "//new//twice", "/dev/mine", "/run/x"])
def test_destinations(make_container, source, destination):
    box = make_container(bind_mounts=[bind(source, destination)])
    assert box.output(f"cat {destination}/below/file") == "below\n"


def test_files(make_container, source):
    box = make_container(bind_mounts=[bind(source / "for-all", "/etc/mine"),
                                      bind(source / "of-root", "/etc/passwd"),
                                      bind(source / "for-all", "/a/b/c", RW)])
    assert box.output("cat /etc/mine /etc/passwd") == "for all\nof root\n"
    assert box.sh("echo x > /etc/mine")[0] != 0
    box.output("echo again > /a/b/c")
    assert (source / "for-all").read_text() == "again\n"


def test_a_source_that_is_a_link(make_container, source, tmp_path):
    (tmp_path / "to-dir").symlink_to(source)
    (tmp_path / "to-file").symlink_to(source / "of-root")
    box = make_container(bind_mounts=[bind(tmp_path / "to-dir", "/d"), bind(tmp_path / "to-file", "/f")])
    assert box.output("cat /d/below/file /f") == "below\nof root\n"


def test_nested_binds(make_container, source, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir(mode=0o777)
    inner.chmod(0o777)
    (inner / "i").write_text("inner\n")
    box = make_container(bind_mounts=[bind(source, "/outer"), bind(inner, "/outer/below", RW)])
    assert box.output("cat /outer/below/i; cat /outer/of-root") == "inner\nof root\n"
    box.output("echo w > /outer/below/written")
    assert box.sh("echo w > /outer/written")[0] != 0
    assert (inner / "written").exists()


def test_one_source_twice(make_container, source):
    box = make_container(bind_mounts=[bind(source, "/ro"), bind(source, "/rw", RW)])
    box.output("echo x > /rw/x")
    assert box.output("cat /ro/x") == "x\n"
    assert box.sh("rm /ro/x")[0] != 0


def test_read_only_is_recursive(make_container, source, host_mount):
    """P0 21: a mount below the source is as read-only as the source."""
    host_mount(source / "below", "-o", "mode=777")
    (source / "below/sub").write_text("sub\n")
    (source / "below/sub").chmod(0o666)
    box = make_container(bind_mounts=[bind(source, "/bound")])
    assert box.output("cat /bound/below/sub") == "sub\n"
    status, _, err = box.sh("echo x > /bound/below/sub")
    assert status != 0 and b"Read-only" in err
    flags = [line.split()[5] for line in box.output("cat /proc/self/mountinfo").splitlines()
             if line.split()[4].startswith("/bound")]
    assert len(flags) == 2 and all({"ro", "nodev"} <= set(f.split(",")) for f in flags), flags
    box.destroy()


def test_read_write_with_a_mount_below(make_container, source, host_mount):
    host_mount(source / "below", "-o", "mode=777")
    box = make_container(bind_mounts=[bind(source, "/bound", RW)])
    box.output("echo x > /bound/below/x")
    assert (source / "below/x").read_text() == "x\n"
    box.destroy()


def test_flags_of_the_source_stay(make_container, source, host_mount):
    host_mount(source / "below", "-o", "noexec,nosuid,mode=777")
    script = source / "below/script"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    for mode in (RO, RW):
        box = make_container(bind_mounts=[bind(source / "below", "/bound", mode)])
        status, _, err = box.sh("/bound/script")
        assert status == 126 and b"Permission denied" in err
        box.destroy()


def test_mounts_of_the_host_do_not_appear_later(make_container, source, host_mount):
    box = make_container(bind_mounts=[bind(source, "/bound", RW)])
    host_mount(source / "below")
    assert box.output("cat /bound/below/file") == "below\n"
    box.destroy()


COVERED = ["/proc", "/proc/self", "/proc/sys", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/", "/./",
           "//proc", "/x/../proc", "/proc/1", "/proc/kcore", "/dev/null", "", ".", "relative", "/.."]


@pytest.mark.parametrize("destination", COVERED)
def test_destinations_over_what_is_ours(client, server, source, destination):
    """T-C1: refused, or the container's own proc and its masks are as they should be."""
    before = oracle.snapshot(server)
    handle = unique_name()
    reply = client.request("POST", "/containers", {
        "handle": handle, "bind_mounts": [bind(source, destination, RW)]})
    if reply.status != 200:
        assert_error(reply, reply.status)
        assert handle not in client.handles("garden.state=all")
    else:
        try:
            assert client.output(handle, "stat -f -c %t /proc; stat -c %t:%T /proc/keys /dev/null"
                                 ).split() == ["9fa0", "1:3", "1:3"]
        finally:
            client.destroy(handle)
    oracle.settled(server, before)


def test_destination_through_links_of_the_image(client, make_container, source, tmp_path):
    """A link in the image is followed inside the container, never on the host."""

    outside = roots.make_sentinel(tmp_path / "outside")
    image = roots.unpack_busybox(tmp_path / "image")
    (image / "out").symlink_to(outside)
    (image / "in").symlink_to("/tmp")
    before = oracle.tree(outside)
    box = make_container(rootfs=str(image), bind_mounts=[bind(source, "/in/x")])
    assert box.output("cat /tmp/x/below/file; cat /in/x/of-root") == "below\nof root\n"
    # Where the link leads nowhere inside, the create is refused or the place is made inside.
    for mount in (bind(source, "/out/new/deep"), bind(source / "for-all", "/out/file")):
        reply = client.request("POST", "/containers", {"rootfs": str(image), "bind_mounts": [mount]})
        if reply.status == 200:
            client.destroy(reply.json["Handle"])
        else:
            assert_error(reply, reply.status)
        assert oracle.tree(outside) == before


def test_two_hundred_binds(make_container, source):
    box = make_container(bind_mounts=[bind(source, f"/b/{i}") for i in range(200)])
    assert box.output("cat /b/*/of-root | wc -l") == "200\n"


def test_the_source_is_unharmed_by_destroy(client, source):
    handle = client.create(unique_name(), bind_mounts=[bind(source, "/bound", RW)])
    client.sh(handle, "cd /bound; mkdir made; echo x > made/x")
    client.destroy(handle)
    assert (source / "made/x").read_text() == "x\n" and (source / "of-root").exists()


@pytest.mark.parametrize("mount", [
    {"src_path": "/no/such/place", "dst_path": "/x"}, {"src_path": "", "dst_path": "/x"},
    {"src_path": "relative", "dst_path": "/x"}, {"dst_path": "/x"}, {"src_path": "/tmp"},
    {"src_path": "/tmp", "dst_path": "/x", "mode": 2}, {"src_path": "/tmp", "dst_path": "/x", "mode": -1},
    {"src_path": "/tmp\u0000x", "dst_path": "/x"}, {"src_path": "/tmp", "dst_path": "/x\u0000y"},
    {"src_path": "/tmp", "dst_path": "/etc/passwd"}, {"src_path": "/etc/passwd", "dst_path": "/tmp"},
    {"src_path": 5, "dst_path": "/x"}])
def test_bad_bind_mounts(client, server, mount):
    before = oracle.snapshot(server)
    handle = unique_name()
    reply = client.request("POST", "/containers", {"handle": handle, "bind_mounts": [mount]})
    assert_error(reply, reply.status)
    assert reply.status >= 400 and handle not in client.handles("garden.state=all")
    oracle.settled(server, before)


# ---- of the container's own tree ---------------------------------------------------------------------------------------

CONTAINER = 1


def own(src, dst, mode=RO):
    return bind(src, dst, mode, origin=CONTAINER)


def test_a_part_of_its_own_tree(make_container, root):
    box = make_container(rootfs=str(root), bind_mounts=[
        own("/etc", "/ro"), own("/home/alice", "/rw/deep", RW), own("/image-file", "/file"), own("/etc/../etc/", "/dots")])
    assert box.output("cat /ro/passwd") == box.output("cat /etc/passwd") == box.output("cat /dots/passwd")
    assert box.output("cat /file") == "from the image\n"
    assert b"Read-only file system" in box.sh("touch /ro/x")[2]
    box.output("echo x >/rw/deep/new; echo y >/etc/new", user="root")
    assert box.output("cat /home/alice/new /ro/new; stat -c %u /rw/deep") == "x\ny\n1001\n"


def test_links_mean_what_they_mean_inside(make_container, tmp_path, source):

    image = roots.unpack_busybox(tmp_path / "image")
    (image / "out").symlink_to(source)
    (image / "up").symlink_to("../../../../../../.." + str(source))
    (image / "in").symlink_to("/etc")
    box = make_container(rootfs=str(image), bind_mounts=[own("/in", "/bound")])
    assert "passwd" in box.output("ls /bound")
    for link in ("/out", "/up"):
        reply = box.client.request("POST", "/containers", {"rootfs": str(image), "bind_mounts": [own(link, "/bound")]})
        assert "No such file" in assert_error(reply, 500)["Message"]
    (image / str(source)[1:]).mkdir(parents=True)
    box = make_container(rootfs=str(image), bind_mounts=[own("/out", "/bound", RW)])
    box.output("touch /bound/inside")
    assert not (source / "inside").exists() and box.output(f"ls {source}") == "inside\n"


def test_what_of_its_own_tree_cannot_be_had(client, root):
    for src, why in (("/missing", "No such file"), ("/proc", "not permitted"), ("/sys/kernel", ""),
                     ("/proc/self/root", ""), ("relative", "absolute")):
        name = unique_name()
        reply = client.request("POST", "/containers", {"handle": name, "rootfs": str(root), "bind_mounts": [
            own(src, "/bound")]})
        assert why in assert_error(reply, 500)["Message"], src
        assert name not in client.handles("garden.state=all")


def test_of_what_is_mounted_before(make_container, source, root, make_volume, server):
    volume = make_volume().fill("f")
    binds = [bind(source, "/host", RW), own("/host/below", "/again"), volume.bind("/vol"), own("/vol", "/vol-too", RW)]
    box = make_container(rootfs=str(root), bind_mounts=binds)
    assert box.output("cat /again/file /vol-too/f") == "below\ncontent of f"
    copy = make_volume(parent=volume)
    box.output("echo new >/vol-too/new")  # not into what the copy shares
    assert set(name for name in copy.tree() if name != ".") == {"f"}
    assert box.output("ls /vol /vol-too") == "/vol:\nf\nnew\n\n/vol-too:\nf\nnew\n"


def test_root_has_no_masks_undone_by_it(make_container, root):
    box = make_container(rootfs=str(root), bind_mounts=[own("/", "/again")])
    seen = box.output("cat /again/proc/kcore /again/proc/keys | wc -c; ls /again/image-file; ls -A /again/again")
    assert seen == "0\n/again/image-file\n"
    assert box.sh("echo 1 >/again/proc/sys/kernel/hostname")[0] != 0


def test_own_binds_after_a_restart(start_server, root, tmp_path):

    server = start_server()
    volume = Volume(server.volumes).fill("f")
    box = Container(server, rootfs=str(root), bind_mounts=[volume.bind("/vol"), own("/vol", "/too", RW)])
    server.kill()
    server.start()
    box.client = server.client
    server.volumes.create("copy", {"type": "cow", "volume": volume.handle})
    box.output("echo new >/too/new")
    assert "new" not in server.volumes.tree("copy") and box.output("cat /vol/new") == "new\n"
