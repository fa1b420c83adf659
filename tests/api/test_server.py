"""The server as a program: sockets, log, options, missing kernel features, its end."""
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess

import oracle
import pytest
import serverproc
from conftest import Container
from gardenlib import Client, wait_until
from serverproc import NO_POOL, SANITIZED, TOP, refused_start, without_library


def test_unix_socket(start_server, tmp_path):
    path = tmp_path / "api.sock"
    server = start_server("--bind-socket", str(path))
    assert stat.S_ISSOCK(path.stat().st_mode) and path.stat().st_mode & 0o777 == 0o600
    client = Client(str(path))
    assert client.ok("GET", "/ping") == {}
    handle = client.create()
    assert client.sh(handle, "echo over a socket; exit 3") == (3, b"over a socket\n", b"")
    assert server.client.handles() == [handle]
    client.destroy(handle)
    server.terminate()
    server.start()  # the old file is no obstacle
    assert client.ok("GET", "/ping") == {}


def test_mode_of_the_unix_socket(start_server, tmp_path):
    path = tmp_path / "api.sock"
    start_server("--bind-socket", str(path), "--socket-mode", "0660")
    assert path.stat().st_mode & 0o777 == 0o660


def test_log_lines_have_lagers_shape(server, container):
    container.sh("exit 3")
    lines = server.log_text().splitlines()
    assert lines
    for line in lines:
        record = json.loads(line)
        assert {"timestamp", "level", "source", "message", "data"} <= record.keys(), line
        assert record["level"] in ("debug", "info", "error", "fatal", "warn")
        assert record["source"] == "cloche" and record["message"].startswith("cloche.")
        assert isinstance(record["data"], dict)


def groups_of(work):
    """The parent groups of a server, found by the name that it records before it makes them."""
    if not (work / "state.db").exists():
        return []
    with sqlite3.connect(f"file:{work}/state.db?mode=ro", uri=True) as database:
        names = database.execute("SELECT value FROM meta WHERE key = 'instance'").fetchall()
    # os.walk passes over what others remove meanwhile
    return [path for (name,) in names for path, _, _ in os.walk(oracle.CGROUPS) if path.endswith(f"/cloche-{name}")]


def test_groups_are_found_by_their_record(server):
    """A control of the next test."""
    assert groups_of(server.work)


@pytest.mark.parametrize("args", [
    ["--log-level", "nonsense"], ["--no-such-option"], ["--max-containers", "many"], ["--idmap", "odd"],
    ["--ring-bytes", "5"], ["--id-pool-start", "0"], ["--id-pool-count", "-1"], ["--bind-port", "99999"],
    ["--default-grace-time", "soon"], ["--bind-ip", "nowhere"], ["--socket-mode", "9"],
    ["--id-pool-start", "4294901760", "--id-pool-count", "10"]], ids=" ".join)
def test_bad_options_are_refused(args, tmp_path):
    code, text = refused_start(*args, directory=tmp_path)
    assert code in (1, 2), (code, text)
    assert args[0].lstrip("-") in text or args[-1] in text, text
    assert groups_of(tmp_path / "work") == [], "a refused start left its groups"


def test_options_from_the_environment(start_server, tmp_path):
    path = tmp_path / "by-environment.sock"
    env = {**os.environ, "CLOCHE_BIND_SOCKET": str(path), "CLOCHE_MAX_CONTAINERS": "3"}
    server = start_server(env=env)
    assert path.exists() and server.client.ok("GET", "/capacity")["max_containers"] == 3


def test_a_second_server_on_one_work_directory_is_refused(server):
    code, text = refused_start(directory=server.directory)
    assert code in (1, 2), (code, text)
    server.check()
    assert server.client.ok("GET", "/ping") == {}


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2,
                                    signal.SIGCHLD, signal.SIGWINCH])
def test_other_signals_do_nothing(start_server, number):
    server = start_server()
    os.kill(server.pid, number)
    assert server.client.ok("GET", "/ping") == {}
    server.check()


@pytest.mark.skipif(serverproc.MODE != "release", reason="only a release is installed")
def test_install(start_server, tmp_path, monkeypatch):
    """What `make install` lays down is a whole server with its root and its manual."""
    there = tmp_path / "there"
    subprocess.run(["make", "-C", TOP, "install", f"DESTDIR={there}", "PREFIX=/opt"], check=True,
                   stdout=subprocess.DEVNULL)
    program = there / "opt/sbin/cloche"
    monkeypatch.setattr(serverproc, "PROGRAM", program)
    client = start_server(directory=tmp_path).client
    assert client.sh(client.create(), "exit 3")[0] == 3
    usage = subprocess.run([program, "--help"], check=True, stdout=subprocess.PIPE).stdout.decode()
    manual = (there / "opt/share/man/man8/cloche.8").read_text().replace("\\", "")
    options = re.findall(r"--([a-z-]+)", usage)
    assert len(options) > 10 and not [name for name in options if f"--{name}" not in manual]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end(start_server, number):
    server = start_server()
    oracle.learn_cgroup_name(server)
    os.kill(server.pid, number)
    assert server.process.wait(60) == 0
    server.is_ended = True
    server.check_log()
    groups = [top for top, names, _ in os.walk(oracle.CGROUPS) if server.cgroup_name in names]
    assert groups == [], "groups without a container stay"


def test_work_directory_is_closed(server, box):
    """P0 60 and T-J2 as far as there is a store."""
    assert stat.S_IMODE(os.stat(server.work).st_mode) == 0o700
    for name in oracle.listing(server.work / "run"):
        assert os.lstat(server.work / "run" / name).st_mode & 0o077 == 0, name


MISSING_CALLS = ["openat2", "mount_setattr", "clone3", "fsopen", "fsmount", "open_tree", "move_mount",
                 "close_range", "memfd_create", "pivot_root", "unshare"]


@pytest.mark.skipif(SANITIZED, reason="the sanitizers' own calls would fail")
@pytest.mark.parametrize("call", MISSING_CALLS)
def test_a_kernel_without(start_server, deny, call, tmp_path):
    """F-NOSYS: it refuses to start and says what is missing, or works, or fails cleanly."""
    try:
        server = start_server(*NO_POOL, prefix=(deny, call, "ENOSYS"), directory=tmp_path)
    except AssertionError as refusal:
        text = str(refusal)
        assert re.search(r"ended with [12] at its start", text), text
        assert call in text or "not implemented" in text, text
        return
    reply = server.client.request("POST", "/containers", {"handle": "h"})
    if reply.status == 200:
        assert server.client.sh("h", "exit 3")[0] == 3
        server.client.destroy("h")
    else:
        assert reply.json["Message"]
    wait_until(lambda: oracle.listing(server.work / "containers/live") == [] and not [
        t for t in oracle.family(server).values() if t.name != "cloche"], "that nothing is left")
    assert server.client.ok("GET", "/ping") == {}


def test_without_the_library_that_speaks_http(tmp_path):
    code, text = refused_start(prefix=without_library("libmicrohttpd.so.12"), directory=tmp_path)
    assert code == 1 and "libmicrohttpd.so.12" in text and "libmicrohttpd does not start" in text


def test_who_comes_during_the_start_waits_and_is_served(start_server):
    server = start_server()
    (_, port), (_, volumes_port) = server.client.address, server.volumes.address
    server.terminate()
    offset = server.start_process("--bind-port", port, "--baggageclaim-bind-port", volumes_port)

    def comes(client):
        try:
            return client.request("GET", "/volumes" if client is server.volumes else "/ping").status == 200
        except ConnectionRefusedError:
            return False
    wait_until(lambda: comes(server.client), "the address is there")
    assert comes(server.volumes)  # both are taken before anything else
    wait_until(lambda: any(line["message"] == "cloche.serving" for line in server.log_lines(offset)), "it serves")


def test_file_descriptors_run_short(start_server):
    """4.13: at the limit new connections wait or are refused; afterwards all is well."""
    import resource
    server = start_server()
    box = Container(server)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (60, 60))
    crowd = []
    for _ in range(100):
        try:
            crowd.append(server.client.connect(timeout=5))
        except OSError:
            pass
    for conn in crowd:
        conn.close()
    wait_until(lambda: server.client.request("GET", "/ping").status == 200, "service again")
    server.check()
    assert box.sh("exit 3")[0] == 3
    box.destroy()
