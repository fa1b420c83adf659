"""Why did it die, and what did it use: line 118 of garden.md; what kills is said on standard error, in the
log, in properties and in events."""
import json

import pytest

from conftest import Container
from gardenlib import wait_until
from test_limits import MIB, limits
from test_wire import assert_error

TOO_MUCH = "dd if=/dev/zero of=/dev/shm/x bs=1M count=65 2>/dev/null"
WORDS = "cloche: killed by OOM: limit 64.0 MiB, peak 64.0 MiB, "


@pytest.fixture
def small(make_container):
    return make_container(limits=limits(memory=64 * MIB, pids=20))


def prop(box, name):
    return box.client.ok("GET", f"{box.path}/properties/{name}")["value"]


def reason(box):
    return prop(box, "cloche.exit-reason")


def usage(box):
    return json.loads(prop(box, "cloche.usage"))


def ended_lines(box):
    return [line["data"] for line in box.server.log_lines() if line["message"] == "cloche.process-ended"
            and line["data"]["handle"] == box.handle]


def test_line_118_an_oom_kill(small):
    assert small.info()["Events"] is None
    status, out, err = small.program("dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=65")
    assert (status, out) == (137, b"")
    assert err.decode().startswith(WORDS + "process dd(") and err.endswith(b")\n")
    assert small.info()["Events"] == ["Out of memory"]
    assert reason(small).startswith("killed by OOM: limit 64.0 MiB, peak 64.0 MiB, process dd(")
    assert ended_lines(small)[-1]["reason"] == reason(small)


def test_a_child_that_is_killed(small):
    """The usual one: a shell reports 137 for what it has started."""
    status, _, err = small.sh(f"echo before >&2; {TOO_MUCH}; exit $?")
    assert status == 137
    assert err.decode().startswith("before\n") and WORDS + "a process started by sh(" in err.decode()
    assert reason(small).startswith("exited with status 137; out of memory: limit 64.0 MiB")


def test_a_child_that_nobody_misses(small):
    """No failure, no words; but info knows, at once and not only after the next end."""
    process = small.run(f"{TOO_MUCH}; echo goes on; read x; exit 0")
    process.wait_output(b"goes on\n")
    wait_until(lambda: small.info()["Events"] == ["Out of memory"], "the event")
    process.end_stdin()
    process.wait()
    assert b"cloche:" not in process.stderr
    assert reason(small).startswith("exited with status 0; out of memory")


def test_init_and_the_others_live(small):
    other = small.run("echo up; read x")
    other.wait_output(b"up\n")
    assert small.sh(TOO_MUCH + "; exit $?")[0] == 137
    assert small.output("rm /dev/shm/x; echo again") == "again\n"
    other.end_stdin()
    assert other.wait() == 1, "a shell's read at the end of its input"


def test_init_is_not_the_first_to_be_killed(small):
    scores = small.output("cat /proc/self/oom_score_adj /proc/1/oom_score_adj").split()
    assert int(scores[0]) >= int(scores[1]) + 100


def test_one_kill_explains_one_failure(small):
    small.sh(TOO_MUCH)
    assert b"cloche:" in small.sh(f"rm /dev/shm/x; {TOO_MUCH}; exit $?")[2]
    assert small.sh("exit 3")[2] == b""
    assert reason(small) == "exited with status 3"
    assert small.sh("kill -9 $$")[0] == 137
    assert reason(small) == "killed by signal 9 (KILL)"
    assert small.sh("kill -15 $$")[0] == 143
    assert reason(small) == "killed by signal 15 (TERM)"


def test_not_on_a_terminal(small):
    process = small.run(TOO_MUCH + "; exit $?", tty={})
    assert process.wait() == 137
    assert b"cloche:" not in process.stdout + process.stderr
    assert "out of memory" in reason(small)


def test_words_can_be_switched_off(start_server):
    box = Container(start_server("--explain-oom=false"), limits=limits(memory=64 * MIB))
    status, _, err = box.sh(TOO_MUCH + "; exit $?")
    assert status == 137 and b"cloche:" not in err
    assert "out of memory" in reason(box)


def test_words_for_a_stream_that_is_full(start_server):
    """They are not worth a wait: what the process wrote is."""
    box = Container(start_server("--ring-bytes", "4096"), limits=limits(memory=64 * MIB))
    process = box.run(f"i=0; while [ $i -lt 4000 ]; do echo 0123456789 >&2; i=$((i+1)); done; {TOO_MUCH}; exit $?",
                      streams=("stdout",))
    process.open("stderr")
    assert process.wait() == 137
    assert process.stderr.startswith(b"0123456789\n" * 4000)


def test_the_limit_of_processes(small):
    status, _, err = small.sh("i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i+1)); done")
    assert status == 2 and b"cloche:" not in err
    assert small.info()["Events"] == ["Process limit reached"]
    assert reason(small).startswith("exited with status 2; the limit of 20 processes stopped ")


def test_usage(make_container):
    box = make_container(limits=limits(memory=256 * MIB))
    box.sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/dev/shm/x bs=1M count=8; "
           "dd if=/dev/zero of=/y bs=1M count=4 conv=fsync; sleep 0.1; exit 5", id="task")
    found = usage(box)
    assert found["process"] == "task" and found["exit_status"] == 5
    assert found["user_seconds"] > 0.005 and found["seconds"] >= 0.1
    assert found["memory_peak_bytes"] >= 8 * MIB and found["max_rss_bytes"] > 100000
    assert found["written_bytes"] >= 4 * MIB and found["pids_peak"] >= 3
    assert json.loads(ended_lines(box)[-1]["usage"]) == found
    assert found.keys() == {"process", "exit_status", "seconds", "user_seconds", "system_seconds", "memory_peak_bytes",
                            "max_rss_bytes", "read_bytes", "written_bytes", "pids_peak"}


def test_no_property_before_the_first_end(container):
    reply = container.client.request("GET", f"{container.path}/properties/cloche.usage")
    assert_error(reply, 500, "", "property does not exist: cloche.usage")
    assert not any(key.startswith("cloche.") for key in container.info()["Properties"])
    container.output("true")
    assert {"cloche.usage", "cloche.exit-reason"} <= container.info()["Properties"].keys()


@pytest.mark.parametrize("name", ["cloche.usage", "cloche.exit-reason"])
def test_the_properties_are_the_servers_own(container, name):
    for method, body in (("PUT", {"value": "x"}), ("DELETE", None)):
        reply = container.client.request(method, f"{container.path}/properties/{name}", body)
        assert_error(reply, 500)
        assert "server's own" in reply.json["Message"]


def test_everything_is_known_after_a_restart(start_server):
    server = start_server()
    box = Container(server, limits=limits(memory=64 * MIB, pids=20))
    assert box.sh(TOO_MUCH + "; exit $?")[0] == 137
    box.sh("rm /dev/shm/x; i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i+1)); done")
    before = box.info()["Events"], reason(box), usage(box)
    server.kill()
    server.start()
    box.client = server.client
    assert (box.info()["Events"], reason(box), usage(box)) == before
    assert before[0] == ["Out of memory", "Process limit reached"]


def test_a_kill_while_the_server_is_down(start_server):
    server = start_server()
    box = Container(server, limits=limits(memory=64 * MIB))
    process = box.run(f"read x; {TOO_MUCH}; exit $?", tty={})  # a terminal's input does not end with the server
    sleeper = box.run(f"sleep 0.5; {TOO_MUCH}; exit $?", id="sleeper")
    server.kill()
    server.start()
    box.client = server.client
    again = box.attach("sleeper")
    assert again.wait() == 137
    assert b"cloche: killed by OOM" in again.stderr
    assert box.info()["Events"] == ["Out of memory"]
    assert "out of memory" in reason(box)
    for one in (process, sleeper):
        one.vanish()


def test_a_container_that_ends(start_server):
    server = start_server()
    box = Container(server, limits=limits(memory=64 * MIB))
    process = box.run("echo up; read x")
    process.wait_output(b"up\n")
    box.destroy()
    assert process.wait() == 137
    wait_until(lambda: any(line["reason"] == "ended with its container" for line in ended_lines(box)), "the line")
