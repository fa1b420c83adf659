"""For people with curl: GET / and the exec route."""
import json
import re
import threading

import pytest
from conftest import TOP
from gardenlib import request_bytes
from test_wire import assert_error, assert_unknown


def sh(script, **more):
    return {"path": "/bin/sh", "args": ["-c", script], **more}


def test_index_lists_every_route(client):
    reply = client.request("GET", "/")
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/plain")
    text = reply.body.decode()
    table = (TOP / "api-spec/routes.def").read_text()
    routes = re.findall(r'^ROUTE(?:_UPLOAD)?\((\w+), "([^"]+)"', table, re.M)
    assert len(routes) == 30
    for method, path in routes:
        assert re.search(rf"^\s*{method}\s+{re.escape(path)}(\s|$)", text, re.M), (method, path)
    assert "cloche" in text


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_exec_exit_status_in_the_trailer(client, container, status):
    reply = client.exec(container.handle, sh(f"echo out; exit {status}"))
    assert reply.status == 200 and reply.body == b"out\n"
    assert reply.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in reply.headers
    assert reply.trailers == {"cloche-exit-status": str(status)}
    assert "cloche-exit-status" in reply.headers["trailer"].lower()


def test_exec_of_a_killed_process(client, container):
    assert client.exec(container.handle, sh("kill -9 $$")).trailers == {"cloche-exit-status": "137"}


def test_exec_joins_both_streams(client, container):
    reply = client.exec(container.handle, sh("echo out; echo err >&2"))
    assert sorted(reply.body.splitlines()) == [b"err", b"out"]


def test_exec_without_stderr(client, container):
    reply = client.exec(container.handle, sh("echo out; echo err >&2; exit 4"), "?stderr=0")
    assert reply.body == b"out\n" and reply.trailers == {"cloche-exit-status": "4"}


def test_exec_without_stderr_does_not_wait_for_a_reader_of_it(client, container):
    spec = sh("head -c 12000000 /dev/zero >&2; echo out; exit 4")
    reply = client.request("POST", f"{container.path}/exec?stderr=0", spec, timeout=40)
    assert reply.body == b"out\n" and reply.trailers == {"cloche-exit-status": "4"}


def test_exec_with_the_status_as_last_line(client, container):
    reply = client.exec(container.handle, sh("echo out; exit 4"), "?status=1")
    assert reply.body == b"out\nexit status 4\n"
    reply = client.exec(container.handle, sh("echo out; echo err >&2; exit 5"), "?stderr=0&status=1")
    assert reply.body == b"out\nexit status 5\n"
    assert client.exec(container.handle, sh("true"), "?status=1").body == b"exit status 0\n"


def test_exec_status_is_on_a_line_of_its_own(client, container):
    body = client.exec(container.handle, sh("printf no-newline; exit 4"), "?status=1").body
    assert body.splitlines()[-1] == b"exit status 4"


def test_exec_sends_output_as_it_comes(client, container):
    with client.connect() as conn:
        conn.send(request_bytes("POST", f"{container.path}/exec", sh(
            "echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo second")))
        assert conn.head()[0] == 200
        size = int(conn.take_until(b"\r\n"), 16)
        assert conn.take(size) == b"first\n"
        conn.take(2)
        container.output("touch /tmp/go")
        body, trailers = conn.chunked()
        assert (body, trailers) == (b"second\n", {"cloche-exit-status": "0"})


def test_exec_with_much_output(client, container):
    reply = client.exec(container.handle, sh("head -c 20000000 /dev/zero"))
    assert len(reply.body) == 20000000 and reply.trailers == {"cloche-exit-status": "0"}


def test_exec_has_no_stdin(client, container):
    assert client.exec(container.handle, sh("cat; echo done")).body == b"done\n"


def test_exec_on_a_terminal(client, container):
    assert client.exec(container.handle, sh("test -t 1 && echo tty", tty={})).body == b"tty\r\n"


def test_exec_takes_the_whole_process_document(client, box):
    reply = client.exec(box.handle, sh("id -un; pwd; echo $A", user="alice", dir="/tmp", env=["A=b"],
                                       id="mine"))
    assert reply.body == b"alice\n/tmp\nb\n"
    assert box.attach("mine").wait() == 0


def test_exec_errors(client, container):
    assert_unknown(client.exec("nobody", sh("true")), "nobody")
    reply = client.exec(container.handle, {"path": "no-such-program"})
    assert_error(reply, 500, "ExecutableNotFoundError")
    reply = client.exec(container.handle, {"path": "true", "user": "mallory"})
    assert_error(reply, 500, "", "unable to find user mallory: no matching entries in passwd file")
    assert_error(client.request("POST", f"{container.path}/exec", body=b"{"), 500)


def test_exec_whose_client_vanishes(client, container):
    for _ in range(5):
        conn = client.connect()
        conn.send(request_bytes("POST", f"{container.path}/exec", sh(
            "echo first; exec sleep 1000", id=f"gone-{_}")))
        assert conn.head()[0] == 200
        conn.reset()
    container.output("until [ $(pidof sleep | wc -w) = 5 ]; do usleep 1000; done; killall -9 sleep")
    for i in range(5):
        assert container.attach(f"gone-{i}").wait() == 137


def test_many_execs_at_once(client, container):
    failures = []

    def many(n):
        for i in range(20):
            reply = client.exec(container.handle, sh(f"echo {n}.{i}; exit {i}"))
            if (reply.body, reply.trailers) != (b"%d.%d\n" % (n, i), {"cloche-exit-status": str(i)}):
                failures.append(reply)

    threads = [threading.Thread(target=many, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_hijacked_answer_to_http_1_0_is_not_called_chunked(client, container):
    """curl believes in chunks even with --raw; --http1.0 is the way of the README."""
    body = b'{"path":"true","id":"old"}'
    answer, end = client.raw(b"POST %s/processes HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (
        container.path.encode(), len(body), body))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head and b"Connection: close" in head
    assert [sorted(json.loads(line)) for line in rest.splitlines()] == [
        ["process_id", "stream_id"], ["exit_status", "process_id"]]
    assert end == "FIN"
