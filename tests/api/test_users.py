"""Users, environment, directories, terminals, limits of a process: lines 38-54."""
import pytest
from conftest import Container
from test_wire import assert_error

ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_PATH = "/usr/local/bin:/usr/bin:/bin"


def status_lines(box, **spec):
    # Not by a shell: busybox's ignores SIGQUIT and passes that on.
    status, out, err = box.program("/bin/cat", "/proc/self/status", **spec)
    assert status == 0, err
    return dict(line.split(":", 1) for line in out.decode().splitlines())


def ids(box, **spec):
    """uid, gid and the supplementary groups of a process."""
    lines = status_lines(box, **spec)
    uids, gids = set(lines["Uid"].split()), set(lines["Gid"].split())
    assert len(uids) == len(gids) == 1
    return int(uids.pop()), int(gids.pop()), [int(g) for g in lines["Groups"].split()]


def environment(box, **spec):
    """The environment of a process in its order, as (name, value)."""
    status, out, err = box.program("/bin/env", **spec)
    assert status == 0, err
    return [tuple(line.split("=", 1)) for line in out.decode().splitlines()]


@pytest.mark.parametrize("user,expected", [
    (None, (0, 0, [])), ("", (0, 0, [])), ("root", (0, 0, [])), ("1001:1002", (1001, 1002, [])),
    ("54321:12345", (54321, 12345, [])), ("0", (0, 0, [])), ("0:0", (0, 0, []))])
def test_line_38_user_ids(box, user, expected):
    assert ids(box, **({} if user is None else {"user": user})) == expected


def test_line_38_ids_beyond_the_range_are_refused(client, box):
    reply = client.run_refused(box.handle, {"path": "true", "user": "1000000000:1000000000"})
    assert_error(reply, 500)


def test_line_38_big_ids_with_the_reference_map(start_server, root):
    box = Container(start_server("--idmap=maximal"), rootfs=str(root))
    assert ids(box, user="1000000000:1000000000") == (1000000000, 1000000000, [])
    assert ids(box) == (0, 0, [])
    box.destroy()


@pytest.mark.parametrize("user,expected", [
    ("testuser:staff", (1000, 50, [])), ("testuser:50", (1000, 50, [])),
    ("testuser", (1000, 1000, [50])), ("1000", (1000, 1000, [50])),
    ("1000:staff", (1000, 50, [])), ("alice:1000", (1001, 1000, [])),
    ("root:staff", (0, 50, []))])
def test_line_39_users_and_groups(box, user, expected):
    assert ids(box, user=user) == expected


def test_line_40_supplementary_groups(box):
    assert ids(box, user="alice") == (1001, 1010, [1010, 1011])
    assert ids(box, user="1001") == (1001, 1010, [1010, 1011])


@pytest.mark.parametrize("user,text", [
    ("mallory", "unable to find user mallory: no matching entries in passwd file"),
    ("alice:nogroup2", "unable to find group nogroup2: no matching entries in group file"),
    ("mallory:staff", "unable to find user mallory: no matching entries in passwd file")])
def test_unknown_names(client, box, user, text):
    reply = client.run_refused(box.handle, {"path": "true", "user": user})
    assert_error(reply, 500, "", text)


# Security.md T-G3: what looks like a number is never looked up as a name, and never becomes root.
TRICKY_PASSWD = ("root:x:0:0::/root:/bin/sh\n1000:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n"
                 "-1:x:0:0::/:/bin/sh\n0x0:x:0:0::/:/bin/sh\nbig:x:4294967296:0::/:/bin/sh\n"
                 "minus:x:-1:0::/:/bin/sh\n")


@pytest.fixture
def tricky(container):
    container.output(f"printf '{TRICKY_PASSWD}' > /etc/passwd")
    return container


@pytest.mark.parametrize("user,expected", [
    ("1000", (1000, 0)), ("1", (1, 0)), ("1:1", (1, 1)), ("0:1", (0, 1)), ("1000:5", (1000, 5)),
    ("65535:65535", (65535, 65535))])
def test_numbers_are_ids(tricky, user, expected):
    assert ids(tricky, user=user)[:2] == expected


@pytest.mark.parametrize("user", [
    "4294967295", "4294967296", "18446744073709551616", "-1", "65536", "1000:65536", "1:-1",
    "1000:abc", " 0", "0 ", "+0", "0:0:0", "1000:4294967296", "99999999999999999999", "big",
    "minus", "root\n", "0x0:0x0"])
def test_users_that_are_refused(client, tricky, user):
    reply = client.run_refused(tricky.handle, {"path": "true", "user": user})
    assert_error(reply, 500)


def test_line_41_a_user_added_by_a_process(container):
    container.output("echo 'bob:x:1234:1235::/home/bob:/bin/sh' >> /etc/passwd; "
                     "echo 'crew:x:1240:bob' >> /etc/group")
    assert ids(container, user="bob") == (1234, 1235, [1240])


def test_without_a_passwd_file(client, container):
    container.output("rm /etc/passwd /etc/group")
    assert ids(container) == (0, 0, []) and ids(container, user="root") == (0, 0, [])
    assert container.output("pwd; echo $HOME", user="root") == "/\n/\n"
    reply = client.run_refused(container.handle, {"path": "true", "user": "alice"})
    assert_error(reply, 500, "", "unable to find user alice: no matching entries in passwd file")


def test_line_42_the_directory_without_one(box):
    assert box.output("pwd") == "/root\n"
    assert box.output("pwd", user="alice") == "/home/alice\n"
    assert box.output("pwd", user="4321:4321") == "/\n"


def test_line_43_a_missing_directory_is_made(box):
    box.output("mkdir -m 755 /top")
    assert box.output("pwd", user="alice", dir="/top/made/with/parents") == "/top/made/with/parents\n"
    made = "/top/made /top/made/with /top/made/with/parents"
    assert box.output(f"stat -c %u:%g:%a {made}") == "1001:1010:755\n" * 3
    assert box.output("stat -c %u:%g:%a /top") == "0:0:755\n"


def test_line_44_an_existing_directory_is_left_alone(box):
    box.output("mkdir -m 711 /mine")
    assert box.output("pwd", user="alice", dir="/mine") == "/mine\n"
    assert box.output("stat -c %u:%g:%a /mine") == "0:0:711\n"


def test_a_directory_that_leads_out_stays_inside(box, tmp_path):
    """T-C11: a link to a path of the host is one of the container's own."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    box.output(f"ln -s {outside} /link")
    status, out, _ = box.sh("pwd -P", dir="/link/a/b")
    assert status != 0 or out.decode().startswith(str(outside))
    assert list(outside.iterdir()) == []


def test_a_directory_that_is_a_file(client, box):
    reply = client.run_refused(box.handle, {"path": "true", "dir": "/etc/passwd"})
    assert_error(reply, 500)


def test_line_45_environment_order(make_container, root):
    box = make_container(rootfs=str(root), env=["A=1", "B=2", "C=3"])
    pairs = environment(box, env=["B=9", "D=4", "C=5"])
    own = [pair for pair in pairs if pair[0] in "ABCD"]
    assert own == [("A", "1"), ("B", "9"), ("C", "5"), ("D", "4")]
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names))
    assert names.index("PATH") > names.index("D") and names.index("USER") > names.index("PATH")


def test_line_46_default_path(box):
    assert dict(environment(box))["PATH"] == ROOT_PATH
    assert dict(environment(box, user="alice"))["PATH"] == USER_PATH
    assert dict(environment(box, user="0:50"))["PATH"] == ROOT_PATH
    pairs = dict(environment(box, env=["APATH=/a"]))
    assert pairs["PATH"] == ROOT_PATH and pairs["APATH"] == "/a"
    assert dict(environment(box, env=["PATH=/bin:/mine"]))["PATH"] == "/bin:/mine"


def test_line_46_path_of_the_container(make_container, root):
    box = make_container(rootfs=str(root), env=["PATH=/bin:/image"])
    assert dict(environment(box))["PATH"] == "/bin:/image"


def test_line_47_user_and_home(box):
    for user, home in (("alice", "/home/alice"), ("root", "/root"), ("1234:4321", "/")):
        pairs = dict(environment(box, user=user))
        assert (pairs["USER"], pairs["HOME"]) == (user, home)
    pairs = dict(environment(box))
    assert (pairs["USER"], pairs["HOME"]) == ("root", "/root")
    pairs = dict(environment(box, user="alice", env=["USER=me", "HOME=/my"]))
    assert (pairs["USER"], pairs["HOME"]) == ("me", "/my")


def test_line_47_user_and_home_of_the_container(make_container, root):
    box = make_container(rootfs=str(root), env=["USER=ppp", "HOME=/home/ppp"])
    pairs = dict(environment(box, user="testuser"))
    assert (pairs["USER"], pairs["HOME"]) == ("ppp", "/home/ppp")
    pairs = dict(environment(box, user="testuser", env=["USER=alice"]))
    assert (pairs["USER"], pairs["HOME"]) == ("alice", "/home/ppp")


def test_line_48_the_path_decides(client, box):
    spec = {"path": "only-in-sbin", "user": "alice"}
    reply = client.run_refused(box.handle, spec)
    assert_error(reply, 500, "ExecutableNotFoundError")
    assert box.program("only-in-sbin", user="alice", env=["PATH=/sbin"])[0] == 0
    assert box.program("only-in-sbin")[0] == 0


def test_programs_relative_to_the_directory(box):
    box.output("mkdir /work && printf '#!/bin/sh\\nexit 9\\n' > /work/tool && chmod 755 /work/tool")
    assert box.program("./tool", dir="/work")[0] == 9
    assert box.program("tool", dir="/", env=["PATH=/work"])[0] == 9


def test_line_49_terminal_size(box):
    assert box.sh("stty size", tty={})[1] == b"24 80\r\n"
    size = {"window_size": {"columns": 132, "rows": 50}}
    assert box.sh("stty size", tty=size)[1] == b"50 132\r\n"


def test_line_49_resize(box):
    process = box.run("trap 'stty size; exit 8' WINCH; echo ready; while :; do sleep 0.1; done",
                      tty={"window_size": {"columns": 10, "rows": 11}})
    process.wait_output(b"ready")
    process.resize(100, 40)
    assert process.wait() == 8
    assert process.stdout.endswith(b"40 100\r\n")


def test_resize_after_the_end_of_stdin(box):
    process = box.run("trap 'stty size; exit 8' WINCH; echo ready; while :; do sleep 0.1; done", tty={})
    process.end_stdin()
    process.wait_output(b"ready")
    process.resize(100, 40)
    assert process.wait() == 8


def test_line_50_terminal_output(box):
    process = box.run("echo out; echo err >&2; test -t 0 && test -t 1 && test -t 2", tty={})
    assert process.wait() == 0
    assert sorted(process.stdout.split(b"\r\n")) == [b"", b"err", b"out"]
    assert process.stderr == b""
    assert box.sh("test -t 1")[0] == 1


def test_terminal_input_goes_on_after_the_end_of_stdin(box):
    process = box.run("echo ready; read x; echo got $x", tty={})
    process.wait_output(b"ready")
    process.end_stdin()
    attached = box.attach(process.id)
    attached.stdin("line\n")
    assert process.wait() == 0 and b"got line" in process.stdout
    attached.wait_ends()


def test_control_c_on_a_terminal(box):
    process = box.run("trap 'exit 44' INT; echo ready; while :; do sleep 0.1; done", tty={})
    process.wait_output(b"ready")
    process.stdin("\x03")
    assert process.wait() == 44


def test_line_51_grandchildren_that_hold_the_pipes(box):
    process = box.run("sleep 1000 & trap 'exit 42' TERM; echo ready; wait")
    process.wait_output(b"ready")
    process.signal(0)
    assert process.wait() == 42
    assert len(box.output("pidof sleep").split()) == 1


def test_line_52_bind_mounts_of_a_process(client, box):
    reply = client.run_refused(box.handle, {
        "path": "true", "bind_mounts": [{"src_path": "/tmp", "dst_path": "/x"}]})
    assert_error(reply, 500, "",
                 "Running a process with bind mounts and no image provided is not allowed")


def test_line_53_rlimits(box):
    limits = box.output("cat /proc/self/limits", rlimits={"nofile": 30, "nproc": 4567, "core": 0,
                                                          "stack": 1048576})
    rows = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
    assert rows["Max open files"] == ["30", "30"]
    assert rows["Max processes"] == ["4567", "4567"]
    assert rows["Max core file size"] == ["0", "0"]
    assert rows["Max stack size"] == ["1048576", "1048576"]


def test_rlimits_apply_to_one_process_only(box):
    assert box.output("ulimit -n", rlimits={"nofile": 30}) == "30\n"
    assert box.output("ulimit -n") != "30\n"


def test_line_54_descriptors(box):
    assert box.output("ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    assert box.sh("ls /proc/self/fd", tty={})[1].split() == [b"0", b"1", b"2", b"3"]


def test_dev_stdout_is_writable_for_everybody(box):
    out = box.sh("echo to out > /dev/stdout; echo to err > /dev/stderr", user="alice")
    assert out == (0, b"to out\n", b"to err\n")


def test_groups_of_the_server_are_not_inherited(start_server, root):
    import os
    mine = os.getgroups()
    try:
        os.setgroups([4242, 4343])
        server = start_server()
    finally:
        os.setgroups(mine)
    box = Container(server, rootfs=str(root))
    assert ids(box) == (0, 0, []) and ids(box, user="alice")[2] == [1010, 1011]
    box.destroy()


def test_negative_group_permission(box):
    """T-G2: somebody in the group is refused what others may do."""
    box.output("echo x > /tmp/f; chgrp 1011 /tmp/f; chmod 604 /tmp/f")
    assert box.sh("cat /tmp/f", user="alice")[0] != 0
    assert box.output("cat /tmp/f", user="testuser") == "x\n"
