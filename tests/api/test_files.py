"""Archives into containers and out of them: lines 67 to 77 of Garden's acceptance list, the rights of the user, and
what a hostile archive or a hostile container does (T-I2, T-I4)."""
import os
import tarfile
import threading

import archives
import oracle
import pytest
import roots
from archives import Member, contents, directory, fifo, hardlink, symlink, tar, untar
from gardenlib import head_bytes, wait_until
from test_tree import hostile
from treelib import archive as tree_archive


def put(box, *members, destination="/tmp/in", user="root"):
    reply = box.client.stream_in(box.handle, tar(*members), destination, user)
    assert (reply.status, reply.body) == (200, b"{}\n"), reply


def refused(reply):
    assert reply.status == 500 and reply.json["Type"] == "", reply
    return reply.json["Message"]


def put_refused(box, data, destination="/tmp/in", user="root"):
    message = refused(box.client.stream_in(box.handle, data, destination, user))
    assert message.startswith("stream-in: error streaming in: "), message
    return message


def get(box, source, user="root"):
    reply = box.client.stream_out(box.handle, source, user)
    assert reply.status == 200, reply
    return untar(reply.body)


def names(box, source, user="root"):
    """As they stand in the archive."""
    return [member.name for member in archives.members(box.client.stream_out(box.handle, source, user).body)]


def get_refused(box, source, user="root"):
    message = refused(box.client.stream_out(box.handle, source, user))
    assert message.startswith("stream-out: error streaming out: "), message
    return message


def look(box, *paths):
    """uid:gid mode of each."""
    return box.output("stat -c '%u:%g %a' " + " ".join(paths)).splitlines()


def no_helpers(server):
    wait_until(lambda: not oracle.helpers(server), "no helper is left")


# ---- in --------------------------------------------------------------------------------------------------------------

def test_line_67_files_of_a_user_with_parents(box):
    put(box, directory("d", mode=0o777, uid=5, gid=6), Member("d/f", b"x", mode=0o666, uid=7, gid=8),
        destination="/one/two/three", user="alice")
    assert look(box, "/one", "/one/two", "/one/two/three", "/one/two/three/d", "/one/two/three/d/f") == [
        "1001:1010 755"] * 4 + ["1001:1010 644"]
    assert box.output("stat -c %Y /one/two/three/d /one/two/three/d/f").split() == ["1700000000"] * 2


def test_parents_below_what_the_user_may_not_enter(box):
    box.output("chmod 700 /root")
    put(box, "f", destination="/root/a/b", user="alice")
    assert look(box, "/root", "/root/a", "/root/a/b", "/root/a/b/f") == ["0:0 700"] + ["1001:1010 755"] * 2 + [
        "1001:1010 644"]


@pytest.mark.parametrize("query", ["destination=%2Ftmp%2Fx", "user=&destination=%2Ftmp%2Fx"])
def test_line_68_no_user_is_root(box, query):
    reply = box.client.request("PUT", f"{box.path}/files?{query}", body=tar(Member("f", b"x", uid=9, gid=9)))
    assert reply.status == 200 and look(box, "/tmp/x/f") == ["0:0 644"]


@pytest.mark.parametrize("destination", [".", "", "./"])
@pytest.mark.parametrize("privileged", [False, True])
def test_line_69_the_home(make_container, root, destination, privileged):
    box = make_container(rootfs=str(root), privileged=privileged)
    put(box, "f", destination=destination, user="alice")
    assert look(box, "/home/alice/f") == ["1001:1010 644"]
    put(box, "g", destination="sub/dir", user="alice")
    assert look(box, "/home/alice/sub", "/home/alice/sub/dir/g") == ["1001:1010 755", "1001:1010 644"]


def test_line_70_the_root(box):
    before = look(box, "/", "/tmp")
    put(box, directory("./", mode=0o700, uid=1), directory("./etc"), "./etc/new", destination="/")
    assert look(box, "/", "/tmp") == before and box.output("cat /etc/new") == "content of ./etc/new"


def test_line_71_an_unknown_user(box):
    assert "unable to find user nobody-here" in put_refused(box, tar("f"), user="nobody-here")
    assert box.sh("ls /tmp/in")[0] != 0


@pytest.mark.parametrize("user", ["0:70000", "-1", "1000:", "4294967296"])
def test_users_that_cannot_be(box, user):
    put_refused(box, tar("f"), user=user)
    get_refused(box, "/etc/passwd", user=user)


def test_line_72_what_the_user_may_not_write(box):
    for destination in ("/etc", "/", "/root"):
        assert "Permission denied" in put_refused(box, tar("f"), destination, "alice")
        assert box.sh(f"test -e {destination}/f")[0] == 1
    put(box, "f", destination="/etc")


def test_groups_of_the_user_count(box):
    box.output("mkdir -m 770 /group; chgrp 1011 /group; mkdir -m 770 /other; chgrp 1000 /other")
    put(box, "f", destination="/group", user="alice")
    assert look(box, "/group/f") == ["1001:1010 644"]
    assert "Permission denied" in put_refused(box, tar("f"), "/other", "alice")


def test_root_of_the_container_is_not_the_hosts(make_container, root, tmp_path):
    """What the id map does not reach, its root may not write."""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    bind = {"src_path": str(shared), "dst_path": "/shared", "mode": 1}
    box = make_container(rootfs=str(root), bind_mounts=[bind])
    assert "Permission denied" in put_refused(box, tar("f"), "/shared")
    assert not os.listdir(shared)
    put(make_container(rootfs=str(root), bind_mounts=[bind], privileged=True), "f", destination="/shared")
    assert os.listdir(shared) == ["f"]


@pytest.mark.parametrize("cut", [100, 512, 600, 1100])
def test_line_73_a_cut_off_archive(box, cut):
    put_refused(box, tar(Member("f", b"x" * 1000))[:cut])


def test_what_is_no_archive(box):
    for data in (b"this is not a tar", os.urandom(4096), b"\x1f\x8b" + bytes(600)):
        assert "This does not look like a tar archive" in put_refused(box, data)


def test_an_empty_archive(box):
    put(box, destination="/tmp/made", user="alice")
    assert look(box, "/tmp/made") == ["1001:1010 755"]


CAPABILITY = bytes.fromhex("0100000202040000" "0000000000000000" "00000000")  # net_bind_service, version 2


def test_line_74_attributes(box):
    fields = {"SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1"), "SCHILY.xattr.user.x": "y",
              "SCHILY.xattr.trusted.x": "z"}
    fields["SCHILY.xattr.security.capability"] = CAPABILITY.decode("utf-8", "surrogateescape")
    data = tar(Member("f", b"x", mode=0o755, pax=fields), form=tarfile.PAX_FORMAT)
    assert box.client.stream_in(box.handle, data, "/tmp/in").status == 200
    assert box.client.stream_in(box.handle, data, "/tmp/alice", "alice").status == 200
    attributes = get(box, "/tmp/in/f")["f"].pax
    kept = attributes["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape")
    assert kept[4:12] == CAPABILITY[4:12] and attributes["SCHILY.xattr.user.x"] == "y"
    assert set(get(box, "/tmp/alice/f")["f"].pax) & {"SCHILY.xattr.security.capability", "SCHILY.xattr.user.x"} == {
        "SCHILY.xattr.user.x"}


def test_kinds_and_modes(box):
    put(box, directory("ro", mode=0o555), "ro/f", symlink("link", "ro/f"), hardlink("hard", "ro/f"), fifo("fifo"),
        Member("suid", b"", mode=0o4777), Member("dev", kind=tarfile.CHRTYPE, device=(1, 3)), destination="/tmp/k",
        user="alice")
    assert look(box, "/tmp/k/ro", "/tmp/k/suid", "/tmp/k/fifo") == ["1001:1010 555", "1001:1010 4755", "1001:1010 644"]
    assert box.output("readlink /tmp/k/link; cat /tmp/k/hard; stat -c %h /tmp/k/ro/f; ls /tmp/k") == (
        "ro/f\ncontent of ro/f2\nfifo\nhard\nlink\nro\nsuid\n")


def test_what_is_there_is_replaced_and_directories_stay(box):
    box.output("mkdir -p /tmp/in/mine /tmp/in/theirs; chmod 1777 /tmp/in; chown alice /tmp/in/mine; "
               "chmod 777 /tmp/in/*; echo old >/tmp/in/f; chmod 666 /tmp/in/f; chmod -t /tmp/in")
    put(box, directory(".", mode=0o700), directory("mine", mode=0o750), "mine/x", directory("theirs", mode=0o700),
        "theirs/x", "f", user="alice")
    assert look(box, "/tmp/in", "/tmp/in/mine", "/tmp/in/theirs", "/tmp/in/theirs/x", "/tmp/in/f") == [
        "0:0 777", "1001:0 750", "0:0 777", "1001:1010 644", "1001:1010 644"]


def test_links_of_the_container_are_the_containers(box):
    box.output("mkdir -p /data/real; ln -s /data/real /data/link; ln -s ../../../data /tmp/up")
    put(box, "f", destination="/data/link/deeper")
    put(box, "g", destination="/tmp/up")
    assert box.output("ls /data /data/real/deeper").split() == ["/data:", "g", "link", "real", "/data/real/deeper:", "f"]


def test_into_what_is_mounted(make_container, root, tmp_path, volume):
    """As its processes see it."""
    volume.fill(directory("sub", mode=0o777))
    (tmp_path / "host").mkdir()
    os.chmod(tmp_path / "host", 0o777)
    binds = [volume.bind("/vol"), {"src_path": str(tmp_path / "host"), "dst_path": "/host", "mode": 1},
             {"src_path": str(tmp_path / "host"), "dst_path": "/ro", "mode": 0}]
    box = make_container(rootfs=str(root), bind_mounts=binds)
    put(box, "f", destination="/vol/sub", user="alice")
    put(box, "g", destination="/host", user="alice")
    put(box, "h", destination="/dev/shm", user="alice")
    assert "Read-only file system" in put_refused(box, tar("f"), "/ro")
    assert "Read-only file system" in put_refused(box, tar("f"), "/sys/fs")
    assert volume.file("sub/f") == b"content of f" and os.listdir(tmp_path / "host") == ["g"]
    assert box.output("cat /vol/sub/f /host/g /dev/shm/h") == "content of fcontent of gcontent of h"
    assert set(get(box, "/vol/")) == {".", "sub", "sub/f"}


@pytest.mark.parametrize("path", ["/proc/self/root/tmp", "/proc/1/root/tmp", "/proc/1/cwd", "/proc/self/fd/3"])
def test_no_way_through_proc(box, path):
    put_refused(box, tar("f"), path)
    get_refused(box, path)


def test_a_volume_that_was_copied_meanwhile(make_container, root, make_volume):
    volume = make_volume()
    box = make_container(rootfs=str(root), bind_mounts=[volume.bind("/vol")])
    box.output("echo one >/vol/one")
    copy = make_volume(parent=volume)
    put(box, "two", destination="/vol")
    assert set(get(box, "/vol/")) == {".", "one", "two"}
    assert set(contents(copy.tree())) == {"one"} and set(contents(volume.tree())) == {"one", "two"}


# ---- out -------------------------------------------------------------------------------------------------------------

def test_line_75_names(box):
    put(box, directory("reports"), "reports/r1", directory("reports/d"), "reports/d/r2", "file", user="alice",
        destination=".")
    assert names(box, "/home/alice/reports") == names(box, "reports", "alice") == [
        "reports", "reports/r1", "reports/d", "reports/d/r2"]
    assert names(box, "/home/alice/reports/") == names(box, "reports/", "alice") == [".", "./r1", "./d", "./d/r2"]
    assert names(box, "/home/alice/file") == names(box, "file", "alice") == ["file"]
    assert names(box, ".", "alice") == [".", "./file", "./reports", "./reports/r1", "./reports/d", "./reports/d/r2"]
    raw = box.client.stream_out(box.handle, "/home/alice/reports").body
    assert raw.startswith(b"reports/\0") and raw[-1024:] == bytes(1024)
    assert get(box, "file", "alice")["file"] == Member("file", b"content of file", uid=1001, gid=1010)


def test_a_link_is_what_it_is(box):
    box.output("mkdir /data; echo x >/data/f; ln -s /data /tmp/link; ln -s /nowhere /tmp/dangling")
    assert get(box, "/tmp/link")["link"].target == "/data" and set(get(box, "/tmp/link/")) == {".", "f"}
    assert get(box, "/tmp/dangling")["dangling"].target == "/nowhere"
    assert names(box, "/tmp/link/f") == ["f"]


def test_line_76_what_is_missing(box):
    for source in ("/nowhere", "/etc/passwd/x", "/tmp/dangling/"):
        assert "o such file" in get_refused(box, source)
    assert "unable to find user nobody-here" in get_refused(box, "/etc", "nobody-here")


def test_what_the_user_may_not_read(box):
    box.output("mkdir -m 700 /secret; echo x >/secret/f; mkdir /half; echo x >/half/closed; chmod 600 /half/closed")
    for source in ("/secret", "/secret/", "/secret/f", "/half", "/half/closed"):
        assert "Permission denied" in get_refused(box, source, "alice")
    assert names(box, "/half") == ["half", "half/closed"]


def test_more_than_fits_into_memory_breaks_off_on_failure(box):
    """What has begun as an archive never ends as one that is whole."""
    box.output("mkdir /half; dd if=/dev/zero of=/half/a bs=1M count=8; echo x >/half/d; mkdir /half/z; "
               "echo x >/half/z/closed; chmod 600 /half/z/closed", user="root")
    with box.client.connect() as conn:
        conn.send(head_bytes("GET", box.client.files_path(box.handle, user="alice", source="/half/"), {"Host": "api"}))
        assert conn.head()[0] == 200
        with pytest.raises(EOFError):
            conn.chunked()


def test_a_large_one_there_and_back(box):
    data = os.urandom(1 << 22)
    put(box, Member("big", data), *[f"f{n}" for n in range(500)])
    tree = get(box, "/tmp/in/")
    assert tree["big"].data == data and len(tree) == 502


# ---- the container's life ----------------------------------------------------------------------------------------------

def test_unknown_containers(client):
    for reply in (client.stream_in("nobody", tar("f")), client.stream_out("nobody", "/")):
        assert reply.status == 404 and reply.json["Type"] == "ContainerNotFoundError"
        assert reply.json["Handle"] == "nobody"


def test_line_61_a_stopped_container(box):
    box.client.stop(box.handle)
    put(box, "f")
    assert set(get(box, "/tmp/in/")) == {".", "f"} and box.info()["State"] == "stopped"


def upload(box, destination="/tmp/in", user="root"):
    conn = box.client.connect()
    conn.send(head_bytes("PUT", box.client.files_path(box.handle, user=user, destination=destination),
                         {"Host": "api", "Transfer-Encoding": "chunked"}))
    return conn


def send_chunk(conn, data):
    conn.send(b"%x\r\n%b\r\n" % (len(data), data))


def test_an_open_stream_holds_the_grace_time(make_container, root, server):
    box = make_container(rootfs=str(root))
    with upload(box) as conn:
        send_chunk(conn, tar(Member("f", b"x" * 2000))[:1024])
        wait_until(lambda: oracle.helpers(server), "the stream is open")
        box.client.ok("PUT", f"{box.path}/grace_time", 100_000_000)
        watch = make_container(rootfs=str(root), grace_time=100_000_000)
        wait_until(lambda: watch.handle not in box.client.handles(), "the other one is reaped")
        assert box.handle in box.client.handles()
    wait_until(lambda: box.handle not in box.client.handles(), "then it is reaped")
    no_helpers(server)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_line_77_the_client_goes(server, box, how):
    conn = upload(box)
    send_chunk(conn, tar(Member("f", b"x" * 100000))[:5000])
    wait_until(lambda: len(oracle.helpers(server)) == 2, "a helper is at work")
    getattr(conn, how)()
    no_helpers(server)
    box.output("dd if=/dev/zero of=/tmp/big bs=1M count=64")
    conn = box.client.connect()
    conn.send(head_bytes("GET", box.client.files_path(box.handle, source="/tmp/big"), {"Host": "api"}))
    conn.head()
    getattr(conn, how)()
    no_helpers(server)


def test_destroyed_meanwhile(server, box):
    with upload(box) as conn:
        send_chunk(conn, tar(Member("f", b"x" * 100000))[:5000])
        wait_until(lambda: len(oracle.helpers(server)) == 2, "a helper is at work")
        box.destroy()  # nothing goes on in what is being deleted
        wait_until(lambda: all(oracle.Task(pid).state == "Z" for pid in oracle.helpers(server)), "the helpers end")
        send_chunk(conn, bytes(3 << 20))  # more than the pipe takes
        assert conn.reply("PUT").status == 500
    box.client.create(box.handle)
    box.output("dd if=/dev/zero of=/big bs=1M count=64")
    with box.client.connect() as conn:
        conn.send(head_bytes("GET", box.client.files_path(box.handle, source="/big"), {"Host": "api"}))
        assert conn.head()[0] == 200
        box.destroy()
        with pytest.raises(EOFError):
            conn.chunked()
    no_helpers(server)


def test_the_init_is_gone(box):
    os.kill(box.init_pid(), 9)
    wait_until(lambda: box.client.stream_in(box.handle, tar("f")).status == 500, "its death is known")
    assert "is dead" in put_refused(box, tar("f"))
    assert "is dead" in get_refused(box, "/etc")


# ---- hostile archives and containers -------------------------------------------------------------------------------------

@pytest.fixture
def sentinel(tmp_path):
    return roots.make_sentinel(tmp_path / "sentinel")


def test_t_i4_hostile_archives(box, sentinel):
    before = oracle.tree(sentinel)
    for case, (entries, expected) in hostile(str(sentinel)).items():
        for user in ("root", "alice"):
            destination = f"/tmp/{user}/" + "".join(filter(str.isalnum, case))
            reply = box.client.stream_in(box.handle, tree_archive(*entries), destination, user)
            assert reply.status == 200 or (reply.status == 500 and "error streaming in" in reply.json["Message"]), case
            # exit statuses of the helper: 0 is done; what old links lead to is not there in this tree
            if expected == 0 and not case.startswith(("old", "directory over old")):
                assert reply.status == 200, (case, reply)
    assert oracle.tree(sentinel) == before


SWAP = """mkdir -p /real/x; chmod 777 /real /real/x; echo inside >/real/x/file; ln -s /real /a; echo ready
while :; do ln -s {target} /t; mv -T /t /a; ln -s /real /t; mv -T /t /a; done"""


def test_t_i2_a_path_that_changes_under_the_stream(box, sentinel):
    """The name leads now to a directory of the container, now to what would be one of the host's."""
    (sentinel / "x").mkdir()
    (sentinel / "x").chmod(0o777)
    (sentinel / "x/file").write_text("the host's canary\n")
    before = oracle.tree(sentinel)
    swapper = box.run(SWAP.format(target=sentinel))
    swapper.wait_output(b"ready")
    done = 0
    for _ in range(60):
        box.client.stream_in(box.handle, tar(Member("new", b"x"), symlink("x", str(sentinel)), "x/under"), "/a/x")
        reply = box.client.stream_out(box.handle, "/a/x/file")
        assert b"canary" not in reply.body
        done += reply.status == 200
    swapper.signal(1)
    swapper.wait()
    assert oracle.tree(sentinel) == before and done, "it was never the container's own"


def users(server):
    """Helpers that are the user already; beside them containers may be prepared."""
    return [pid for pid in oracle.helpers(server) if oracle.Task(pid).uid() > 0]


def test_nobody_inside_can_reach_the_helper(server, box):
    """It has a number of its own in no pid namespace of the container, and root there may not look at it."""
    with upload(box, user="alice") as conn:
        send_chunk(conn, tar(Member("f", b"x" * 100000))[:5000])
        outer, inner = wait_until(lambda: len(found := users(server)) == 2 and found, "a helper is at work")
        seen = box.output("ls -d /proc/[0-9]*; cat /proc/[0-9]*/comm")
        assert "cloche" not in seen.replace("cloche-", "")
        for pid in (outer, inner):
            status = dict(line.split(":\t", 1) for line in oracle.read(f"/proc/{pid}/status").splitlines())
            base = int(status["Uid"].split()[0]) - 1001
            assert base > 65535 and status["Gid"].split()[0] == str(base + 1010)
            assert status["Groups"].split() == [str(base + 1010), str(base + 1011)][-len(status["Groups"].split()):]
            assert [int(status[name], 16) for name in ("CapBnd", "CapAmb", "CapInh")] == [0, 0, 0]
            assert status["NoNewPrivs"] == "1"

        def has_settled():
            """Before the first byte of the archive it has made its way, and then has no rights but the user's."""
            text = oracle.read(f"/proc/{inner}/status")
            return all(f"{name}:\t{0:016x}" in text for name in ("CapEff", "CapPrm"))

        wait_until(has_settled, "the helper has no capabilities")
        inits = [os.readlink(f"/proc/{box.init_pid()}/ns/{kind}") for kind in ("pid", "net", "ipc", "uts")]
        own = [os.readlink(f"/proc/{inner}/ns/{kind}") for kind in ("pid", "net", "ipc", "uts")]
        assert not set(inits) & set(own)
        assert os.readlink(f"/proc/{inner}/ns/user") == os.readlink(f"/proc/{box.init_pid()}/ns/user")


def test_many_at_once(server, box):
    """Each by itself, and the server goes on."""
    failed = []

    def work(n):
        data = os.urandom(100000)
        put(box, Member("f", data), destination=f"/tmp/w{n}", user="alice")
        if get(box, f"/tmp/w{n}/f", "alice")["f"].data != data:
            failed.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    no_helpers(server)
