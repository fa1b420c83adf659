"""Processes on the wire: lines 15-33, 36 and 37 of the acceptance list."""
import json
import re
import threading
import time

import oracle
import pytest
import roots
from conftest import Container, unique_name
from gardenlib import GUARD, request_bytes, wait_until
from serverproc import NO_POOL
from test_wire import assert_error

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_line_15_run_true(client, container):
    with client.connect() as conn:
        conn.send(request_bytes("POST", f"{container.path}/processes", {"path": "true"}))
        status, headers = conn.head()
        body = conn.rest()
    assert status == 201 and conn.ended == "FIN"
    assert headers["transfer-encoding"] == "chunked"
    assert headers["content-type"] == "application/json"
    assert "connection" not in headers and "content-length" not in headers
    first, last = [json.loads(line) for line in body.splitlines()]
    assert set(first) == {"process_id", "stream_id"}
    assert isinstance(first["stream_id"], str)
    assert last == {"process_id": first["process_id"], "exit_status": 0}


def test_stream_heads_are_those_of_a_hijacked_reply(client, container):
    process = container.run("echo out; exit 3", streams=())
    with client.connect() as conn:
        conn.send(request_bytes("GET", process.stream_path("stdout")))
        status, headers = conn.head()
        assert status == 200 and headers["transfer-encoding"] == "chunked"
        assert "connection" not in headers and "content-length" not in headers
        assert conn.rest() == b"out\n" and conn.ended == "FIN"
    assert process.wait() == 3


def test_line_16_process_id_in_use(container):
    first = container.run("read x; exit 4", id="some-id")
    assert first.id == "some-id"
    spec = {"path": "true", "id": "some-id"}
    while_running = container.client.run_refused(container.handle, spec)
    assert_error(while_running, 500, "", "process ID 'some-id' already in use")
    first.end_stdin()
    assert first.wait() == 4
    after = container.client.run_refused(container.handle, spec)
    assert_error(after, 500, "", "process ID 'some-id' already in use")


def test_process_ids_are_the_containers_own(make_container):
    for one in (make_container(), make_container()):
        assert one.sh("exit 3", id="same")[0] == 3


def test_line_17_made_up_process_ids(container):
    ids = []
    for _ in range(2):
        process = container.run("true")
        process.wait()
        ids.append(process.id)
    assert ids[0] != ids[1]
    assert all(UUID4.fullmatch(i) for i in ids)


def test_line_18_each_stream_has_its_own_bytes(container):
    status, out, err = container.sh("echo to out; echo to err >&2; echo more; exit 9")
    assert (status, out, err) == (9, b"to out\nmore\n", b"to err\n")


def test_line_19_streams_opened_after_the_exit(container):
    process = container.run("seq 1 2000; echo late >&2", streams=())
    assert process.wait_exit_line() == 0
    process.open("stdout")
    process.open("stderr")
    assert process.wait() == 0
    assert process.stdout == b"".join(b"%d\n" % i for i in range(1, 2001))
    assert process.stderr == b"late\n"


def test_line_20_much_output_at_once_on_a_tty(container):
    expected = b" ".join(b"%d" % i for i in range(1, 10001))
    for _ in range(10):
        status, out, err = container.sh("seq -s ' ' 1 10000", tty={})
        assert status == 0 and out.rstrip() == expected and err == b""


def test_output_larger_than_every_buffer(container):
    process = container.run("head -c 30000000 /dev/zero; head -c 30000000 /dev/zero >&2")
    assert process.wait() == 0
    assert len(process.stdout) == len(process.stderr) == 30000000


def test_line_21_stdin_is_copied(container):
    process = container.run("cat")
    process.stdin("hello\n")
    process.wait_output(b"hello\n")
    process.stdin("wörld \U0001f331\n")
    process.end_stdin()
    assert process.wait() == 0
    assert process.stdout.decode() == "hello\nwörld \U0001f331\n"


def test_much_stdin(container):
    process = container.run("wc -c")
    for _ in range(40):
        process.stdin("x" * 250000)
    process.end_stdin()
    assert process.wait() == 0
    assert process.stdout.strip() == b"10000000"


def test_stdin_ends_with_the_clients_fin(container):
    process = container.run("cat; echo ended")
    process.stdin("some\n")
    process.control.half_close()
    assert process.wait() == 0
    assert process.stdout == b"some\nended\n"


def test_line_22_stdin_that_nobody_reads(container):
    for _ in range(10):
        process = container.run("exit 0")
        try:
            process.stdin("x" * 1024)
        except OSError:
            pass  # it had ended before
        process.end_stdin()
        assert process.wait() == 0


def test_line_23_signal_after_the_end_of_stdin(container):
    process = container.run("trap 'exit 42' TERM; cat; echo ready; while :; do sleep 0.1; done")
    process.end_stdin()
    process.wait_output(b"ready")
    process.signal(0)
    assert process.wait() == 42


@pytest.mark.parametrize("number,status", [(0, 143), (1, 137)])
def test_line_24_signals(container, number, status):
    process = container.run("echo ready; exec sleep 1000")
    process.wait_output(b"ready")
    process.signal(number)
    assert process.wait() == status


def test_line_24_a_process_that_signals_itself(container):
    assert container.sh("kill -KILL $$")[0] == 137
    assert container.sh("kill -TERM $$")[0] == 143


def test_line_25_run_and_kill_at_once(container):
    for _ in range(20):
        process = container.run("exec sleep 1000", streams=("stdout",))
        process.signal(1)
        assert process.wait() == 137


def test_line_26_attach_to_an_unknown_process(client, container):
    reply = client.request("GET", f"{container.path}/processes/nope")
    document = assert_error(reply, 404, "ProcessNotFoundError", "unknown process: nope")
    assert document["ProcessID"] == "nope"


def test_line_27_many_attachers_get_the_status(container):
    process = container.run("read x; exit 12")
    attached = [container.attach(process.id) for _ in range(6)]
    process.end_stdin()
    assert [p.wait() for p in (process, *attached)] == [12] * 7


def test_line_28_run_and_attach_both_get_everything(container):
    process = container.run("echo before; read x; for i in $(seq 500); do echo $i; echo e$i >&2; done")
    process.wait_output(b"before\n")
    attached = container.attach(process.id)
    process.end_stdin()
    assert process.wait() == 0 and attached.wait() == 0
    out = b"".join(b"%d\n" % i for i in range(1, 501))
    err = b"".join(b"e%d\n" % i for i in range(1, 501))
    assert process.stdout == b"before\n" + out and process.stderr == err
    # What the first client has not acknowledged yet is sent to the second one too.
    assert attached.stdout in (out, b"before\n" + out) and attached.stderr == err


def test_attachers_share_stdin_and_signals(container):
    process = container.run("read x; echo got $x; read x; echo got $x; exec sleep 1000")
    attached = container.attach(process.id)
    process.stdin("one\n")
    attached.wait_output(b"got one")
    attached.stdin("two\n")
    process.wait_output(b"got two")
    attached.signal(1)
    assert process.wait() == attached.wait() == 137


def test_line_29_attach_after_the_exit(container):
    process = container.run("echo out; echo err >&2; exit 7")
    assert process.wait() == 7 and process.stdout == b"out\n"
    for _ in range(2):
        attached = container.attach(process.id)
        assert attached.wait() == 7
        assert attached.stdout == attached.stderr == b""


def test_line_29_attach_after_the_exit_gets_what_nobody_has_received(container):
    process = container.run("echo out; echo err >&2; exit 7", streams=())
    assert process.wait() == 7
    attached = container.attach(process.id)
    assert attached.wait() == 7
    assert (attached.stdout, attached.stderr) == (b"out\n", b"err\n")


MISSING = "exec failed: unable to start container process: exec: "


@pytest.mark.parametrize("path,text", [
    ("does-not-exist", '"does-not-exist": executable file not found in $PATH'),
    ("/bin/does-not-exist",
     '"/bin/does-not-exist": stat /bin/does-not-exist: no such file or directory')])
@pytest.mark.parametrize("tty", [None, {}])
def test_line_30_missing_executable(client, container, path, text, tty):
    spec = {"id": "gone", "path": path, **({} if tty is None else {"tty": tty})}
    reply = client.run_refused(container.handle, spec)
    document = assert_error(reply, 500, "ExecutableNotFoundError")
    assert document["Message"].endswith(f"exec: {text}")
    if path == "does-not-exist":
        assert document["Message"] == MISSING + text
    reply = client.request("GET", f"{container.path}/processes/gone")
    assert_error(reply, 404, "ProcessNotFoundError")
    assert container.sh("exit 0", id="gone")[0] == 0


def test_an_executable_that_is_none(client, container):
    reply = client.run_refused(container.handle, {"path": "/etc/passwd"})
    document = assert_error(reply, 500, "")
    assert document["Message"].endswith('exec: "/etc/passwd": permission denied')


def test_line_31_unknown_user(client, container):
    reply = client.run_refused(container.handle, {"path": "true", "user": "x"})
    assert_error(reply, 500, "", "unable to find user x: no matching entries in passwd file")


def test_line_32_a_client_that_vanishes(container):
    process = container.run("echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; "
                            "head -c 1000000 /dev/zero; exit 5")
    process.wait_output(b"first\n")
    process.vanish()
    container.output("touch /tmp/go")
    assert container.attach(process.id, streams=()).wait() == 5  # nobody read, and it was not held up
    attached = container.attach(process.id)
    assert attached.wait() == 5
    assert attached.stdout.removeprefix(b"first\n") == bytes(1000000)


def test_a_stream_connection_that_vanishes_leaves_the_rest(container):
    process = container.run("echo out; echo err >&2; read x; echo more >&2; exit 6")
    process.wait_output(b"out\n")
    process.connections.pop("stdout").reset()
    process.end_stdin()
    process.wait_for(lambda: "control" in process.ends, "the end")
    assert process.wait_exit_line() == 6
    process.wait_output(b"err\nmore\n", "stderr")
    process.close()


def test_line_36_two_destroys_at_once(client):
    seen = set()
    for _ in range(40):
        name = client.create()
        replies, barrier = [], threading.Barrier(4)

        def destroy():
            with client.connect() as conn:
                barrier.wait()
                conn.send(request_bytes("DELETE", f"/containers/{name}"))
                replies.append(conn.reply("DELETE"))

        threads = [threading.Thread(target=destroy) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [r.status for r in replies].count(200) == 1, replies
        for reply in replies:
            if reply.status == 500:
                assert_error(reply, 500, "", "container already being destroyed")
            elif reply.status != 200:
                assert_error(reply, 404, "ContainerNotFoundError")
            seen.add(reply.status)
        if 500 in seen:
            break
    assert 500 in seen, "no destroy ever met another one"


def test_line_37_destroy_with_a_run_open(container):
    process = container.run("echo ready; trap '' TERM; sleep 1000; sleep 1000")
    attached = container.attach(process.id)
    process.wait_output(b"ready")
    container.destroy()
    assert process.wait() == 137 and attached.wait() == 137


def _slow_root(directory, root, files=4000):
    """A tar whose unpacking takes a while."""
    many = directory / "many"
    roots.unpack_busybox(many)
    (many / "data").mkdir()
    for i in range(files):
        (many / "data" / f"{i}").write_bytes(b"x" * 512)
    return roots.pack(many, directory / "slow.tar.gz", "w:gz")


def test_line_33_the_server_gets_term(start_server, tmp_path, root):
    server = start_server(*NO_POOL)
    oracle.learn_cgroup_name(server)
    before = oracle.snapshot(server)
    box = Container(server, "survivor", rootfs=str(root))
    process = box.run("echo ready; sleep 1000")
    process.wait_output(b"ready")
    pids = set(oracle.family(server)) - {server.pid}
    slow, replies = _slow_root(tmp_path, root), []

    def create():
        replies.append(server.client.request(
            "POST", "/containers", {"handle": "in-flight", "rootfs": str(slow)}))

    thread = threading.Thread(target=create)
    ranges = len(oracle.id_ranges(server))
    thread.start()
    wait_until(lambda: replies or len(oracle.id_ranges(server)) > ranges, "the create's beginning")
    started = time.monotonic()
    server.terminate()
    assert time.monotonic() - started < 20, "it waited for what it should have ended itself"
    thread.join(GUARD)
    assert replies and replies[0].status == 200, replies
    process.wait_ends()
    assert not any("exit_status" in m or "error" in m for m in process.messages)
    living = oracle.all_tasks()
    assert pids <= living.keys(), "the container's processes did not live on"

    server.start("--destroy-containers-on-startup")
    assert server.client.handles("garden.state=all") == []
    wait_until(lambda: not pids & oracle.all_tasks().keys(), "the end of the old processes")
    server.client.destroy(server.client.create("warm-up"))
    after = oracle.snapshot(server)
    for name in ("processes", "cgroup directories", "id ranges", "containers/live", "run"):
        assert len(after[name]) == len(before[name]), oracle.difference(before, after)


def test_term_ends_streams_and_idle_connections_by_fin(start_server):
    server = start_server()
    box = Container(server)
    process = box.run("sleep 1000", tty={})
    idle = server.client.connect()
    idle.send(request_bytes("GET", "/ping"))
    assert idle.reply().status == 200
    started = time.monotonic()
    server.terminate()
    assert time.monotonic() - started < 20, "it waited for what it should have ended itself"
    assert idle.rest() == b"" and idle.ended == "FIN"
    process.wait_ends()
    server.start("--destroy-containers-on-startup")


def test_exec_of_an_unknown_name_in_many_threads_leaves_no_records(client, container):
    def refuse():
        for _ in range(10):
            client.run_refused(container.handle, {"path": "nope", "id": unique_name()})

    threads = [threading.Thread(target=refuse) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert container.info()["ProcessIDs"] in (None, [])
