"""The life of a container: lines 55-66 of the acceptance list."""
import os
import signal
import threading
import time

import oracle
import pytest
import roots
from conftest import Container, unique_name
from gardenlib import wait_until
from test_wire import assert_error, assert_unknown


def test_line_55_hostname(make_container):
    handle = "7132-ec774112a9cd-101f8293-230e-4fa8-4138-e8244e6dcfa1"
    assert len(handle) == 54
    box = make_container(handle)
    assert box.output("hostname").strip() == handle[-49:]
    hosts = box.output("cat /etc/hosts")
    assert "127.0.0.1 localhost" in " ".join(hosts.split())
    assert any(handle[-49:] in line.split()[1:] for line in hosts.splitlines()), hosts


def test_hostname_of_a_short_handle(container):
    assert container.output("hostname").strip() == container.handle


def test_line_56_init(container):
    assert container.output("cat /proc/1/comm") == "garden-init\n"
    names = [line.split(None, 2)[2] for line in container.output("ps; true").splitlines()[1:]]
    assert len(names) == 3 and "garden-init" in names[0], names  # init, the shell, ps


def test_line_56_orphans_are_reaped(container):
    container.output("for i in $(seq 100); do (sleep 0.01 &) ; done")
    wait_until(lambda: container.output("ps -o stat,comm | grep -c sleep || true") == "0\n",
               "the end of the orphans")
    assert "Z" not in container.output("ps -o stat")


def test_line_57_stop(container):
    process = container.run("trap 'exit 42' TERM; echo ready; while :; do sleep 0.1; done")
    process.wait_output(b"ready")
    container.client.stop(container.handle)
    assert process.wait() == 42
    assert container.info()["State"] == "stopped"


def test_line_58_stop_of_a_process_that_ignores_term(container):
    process = container.run("trap '' TERM; echo ready; while :; do sleep 1; done")
    process.wait_output(b"ready")
    started = time.monotonic()
    container.client.stop(container.handle)
    assert process.wait() == 137
    assert time.monotonic() - started >= 9, "the KILL came too early"


def test_line_59_stop_reaches_all_descendants(container):
    script = ("mark() { trap \"echo termed > /tmp/$1; exit 1\" TERM; echo up > /tmp/up.$1; "
              "while :; do sleep 0.1; done; }; (mark one; ) & (sh -c 'true'; (mark two) & wait) & "
              "echo ready; exec sleep 1000")
    process = container.run(script)
    process.wait_output(b"ready")
    wait_until(lambda: container.output("ls /tmp").split() == ["up.one", "up.two"], "the children")
    container.client.stop(container.handle)
    assert process.wait() == 143
    assert container.output("cat /tmp/one /tmp/two") == "termed\ntermed\n"


def test_line_60_stop_with_kill(container):
    process = container.run("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    process.wait_output(b"ready")
    container.client.stop(container.handle, kill=True)
    assert process.wait() == 137
    assert "while" not in container.output("ps")


def test_line_61_a_stopped_container_still_runs_processes(container):
    container.client.stop(container.handle)
    assert container.info()["State"] == "stopped"
    assert container.sh("echo alive; exit 3") == (3, b"alive\n", b"")
    assert container.info()["State"] == "stopped"
    assert container.handle in container.client.handles()


def gone(client, handle):
    return lambda: handle not in client.handles("garden.state=all")


def test_line_62_grace_time(client):
    handle = client.create(grace_time=3000000000)
    assert client.ok("GET", f"/containers/{handle}/properties/garden.grace-time") == {
        "value": "3000000000"}
    wait_until(gone(client, handle), "the reaper")
    assert_unknown(client.request("GET", f"/containers/{handle}/info"), handle)


def test_line_62_grace_time_default_and_never(start_server):
    server = start_server("--default-grace-time", "1s")
    client = server.client
    never = client.create()
    assert client.ok("PUT", f"/containers/{never}/grace_time", 0) == {}
    also_never = client.create(grace_time=0)
    default = client.create()
    wait_until(gone(client, default), "the reaper")
    time.sleep(1.5)  # longer than the default again
    assert set(client.handles("garden.state=all")) == {never, also_never}


def test_line_63_grace_time_waits_for_open_connections(client):
    handle = client.create()
    process = client.run(handle, {"path": "sleep", "args": ["1000"]})
    client.ok("PUT", f"/containers/{handle}/grace_time", 50000000)
    time.sleep(1)
    assert handle in client.handles()
    process.signal(1)
    assert process.wait() == 137
    wait_until(gone(client, handle), "the reaper")


def test_line_64_any_request_restarts_the_clock(client):
    handle = client.create(grace_time=4000000000)
    for _ in range(12):
        time.sleep(0.5)
        client.info(handle)
    assert handle in client.handles()
    client.ok("PUT", f"/containers/{handle}/grace_time", 100000000)
    wait_until(gone(client, handle), "the reaper")


FAILING = {
    "missing rootfs": {"rootfs": "/no/such/root"},
    "rootfs is a device": {"rootfs": "/dev/null"},
    "rootfs is no archive": {"rootfs": "/etc/passwd"},
    "missing bind source": {"bind_mounts": [{"src_path": "/no/such", "dst_path": "/x"}]},
    "bind over the root": {"bind_mounts": [{"src_path": "/tmp", "dst_path": "/"}]},
    "bind destination relative": {"bind_mounts": [{"src_path": "/tmp", "dst_path": "x"}]},
    "bind mode unknown": {"bind_mounts": [{"src_path": "/tmp", "dst_path": "/x", "mode": 7}]},
    "bad network": {"network": "bogus/30"},
    "negative grace time": {"grace_time": -1},
}


@pytest.mark.parametrize("case", FAILING)
def test_line_65_a_failed_create_leaves_nothing(server, client, case):
    before = oracle.snapshot(server)
    handle = unique_name()
    reply = client.request("POST", "/containers", {"handle": handle, **FAILING[case]})
    assert reply.status >= 400, reply
    assert_error(reply, reply.status)
    assert handle not in client.handles("garden.state=all")
    oracle.settled(server, before)
    client.destroy(client.create(handle))


def test_line_66_a_container_in_the_making_is_not_listed(client, tmp_path):
    many = roots.unpack_busybox(tmp_path / "many")
    (many / "data").mkdir()
    for i in range(2000):
        (many / "data" / str(i)).write_bytes(b"x" * 100)
    slow, handle = roots.pack(many, tmp_path / "slow.tar"), unique_name()
    thread = threading.Thread(target=lambda: client.create(
        handle, rootfs=str(slow), properties={"a": "b", "c": "d"}))
    thread.start()
    rounds = 0
    while handle not in client.handles():
        rounds += 1
        assert thread.is_alive() or handle in client.handles()
    properties = client.info(handle)["Properties"]
    assert properties["a"] == "b" and properties["c"] == "d"
    assert properties["garden.state"] == "created"
    assert client.sh(handle, "exit 3")[0] == 3
    thread.join()
    assert rounds > 0
    client.destroy(handle)


def test_namespaces_are_the_containers_own(box):
    script = "for n in net ipc uts pid mnt user cgroup; do readlink /proc/self/ns/$n; done"
    inside = box.output(script).split()
    host = [oracle.Task("self").namespace(n) for n in ("net", "ipc", "uts", "pid", "mnt", "user",
                                                       "cgroup")]
    assert len(inside) == 7 and not set(inside) & set(host)
    assert box.output(script).split() == inside


def test_containers_of_one_image_do_not_see_each_other(make_container, root):
    a, b = make_container(rootfs=str(root)), make_container(rootfs=str(root))
    a.output("echo a > /tmp/mine; echo changed > /image-file; rm /bin/only || true")
    assert b.sh("cat /tmp/mine")[0] == 1
    assert b.output("cat /image-file") == "from the image\n"
    assert (root / "image-file").read_text() == "from the image\n"


def test_the_loopback_is_up_beside_one_link(container):
    assert "127.0.0.1" in container.output("ip addr show lo || ifconfig lo")
    assert container.sh("ping -c 1 -W 30 127.0.0.1")[0] == 0
    assert container.output("ls /sys/class/net").split() == ["eth0", "lo"]


def test_max_containers(start_server):
    server = start_server("--max-containers", "2")
    client = server.client
    assert client.ok("GET", "/capacity")["max_containers"] == 2
    a, b = client.create(), client.create()
    reply = client.request("POST", "/containers", {})
    assert reply.status == 500 and reply.json["Message"] == "max containers reached"
    client.destroy(a)
    client.create()
    assert len(client.handles()) == 2 and b in client.handles()


def test_an_id_pool_that_is_used_up(start_server):
    server = start_server(pool=(2147352576 - 3 * 65536, 3))
    client = server.client
    made = [client.create() for _ in range(3)]
    reply = client.request("POST", "/containers", {})
    assert_error(reply, 500, "ServiceUnavailableError")
    client.destroy(made[0])
    client.create()


def test_an_empty_archive_is_a_root(client, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    handle = client.create(rootfs=str(roots.pack(empty, tmp_path / "empty.tar")))
    reply = client.run_refused(handle, {"path": "/bin/true"})
    assert_error(reply, 500, "ExecutableNotFoundError")
    client.destroy(handle)


def test_the_death_of_init_is_the_containers(server):
    box = Container(server)
    process = box.run("echo ready; sleep 1000")
    process.wait_output(b"ready")
    os.kill(box.init_pid(), signal.SIGKILL)
    assert process.wait() == 137
    box.destroy()
