"""Bad input: after each of these the server serves the next request and nothing is left."""
import json

import oracle
import pytest
from conftest import unique_name
from gardenlib import request_bytes, wait_until
from test_wire import JSON_ROUTES, assert_error


@pytest.fixture(autouse=True)
def still_serving(server):
    before = oracle.snapshot(server)
    yield
    assert server.client.ok("GET", "/ping") == {}
    server.check()
    oracle.settled(server, before)


BROKEN = {
    "cut off": b'{"handle":"broken', "cut off number": b'{"grace_time":1', "no quotes": b"{handle:1}",
    "two commas": b'{"a":1,,"b":2}', "array open": b'{"env":["a"', "text after": b'{"handle":"broken"}x',
    "two documents": b'{"handle":"broken"}{"handle":"broken"}', "not utf-8": b'{"handle":"\xff\xfe"}',
    "lone surrogate": b'{"env":["A=\\ud800"]}', "raw control character": b'{"handle":"a\nb"}',
    "bad escape": b'{"handle":"\\x41"}', "array": b"[]", "number": b"7", "text": b'"text"',
    "null byte": b'{"handle":"broken"}\x00', "byte order mark": b'\xef\xbb\xbf{}',
    "duplicate": b'{"handle":"broken","handle":"other"}',
    "duplicate folded": b'{"handle":"broken","HANDLE":"other"}',
    "duplicate inside": b'{"properties":{"a":"1","a":"2"}}',
    "single quotes": b"{'handle':'broken'}", "comment": b'{/* */"handle":"broken"}',
    "infinity": b'{"grace_time":Infinity}', "huge number": b'{"grace_time":1' + b"0" * 400 + b"}",
    "deep array": b"[" * 100000, "deep objects": b'{"a":' * 100000,
    "deep and closed": b'{"x":' + b"[" * 40 + b"]" * 40 + b"}",
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_create(client, case):
    reply = client.request("POST", "/containers", body=BROKEN[case])
    assert 400 <= reply.status <= 500
    assert_error(reply, reply.status)
    if "duplicate" in case or case in ("text after", "two documents"):
        assert reply.status == 400
    assert "broken" not in client.handles("garden.state=all")


@pytest.mark.parametrize("case", BROKEN)
def test_broken_run(client, container, case):
    for path in ("processes", "exec"):
        reply = client.request("POST", f"{container.path}/{path}", body=BROKEN[case].replace(b"handle", b"id"))
        assert 400 <= reply.status <= 500
        assert_error(reply, reply.status)


WRONG_TYPES = [
    {"handle": 5}, {"handle": ["a"]}, {"grace_time": "5"}, {"grace_time": 1.5}, {"grace_time": {}},
    {"env": "A=b"}, {"env": [5]}, {"env": {"A": "b"}}, {"properties": ["a"]}, {"properties": {"a": 5}},
    {"bind_mounts": {}}, {"bind_mounts": [5]}, {"bind_mounts": ["/tmp"]}, {"privileged": "yes"},
    {"image": "x"}, {"image": {"uri": 5}}, {"rootfs": 5}, {"limits": 5}, {"limits": {"pid_limits": 5}}]


@pytest.mark.parametrize("spec", WRONG_TYPES, ids=json.dumps)
def test_wrong_types_in_a_create(client, spec):
    reply = client.request("POST", "/containers", spec)
    assert 400 <= reply.status <= 501
    assert_error(reply, reply.status)


WRONG_PROCESS = [
    {}, {"path": ""}, {"path": 5}, {"path": ["true"]}, {"path": "true", "args": "x"},
    {"path": "true", "args": [5]}, {"path": "true", "env": "A=b"}, {"path": "true", "env": [["A"]]},
    {"path": "true", "dir": 5}, {"path": "true", "user": 5}, {"path": "true", "tty": 5},
    {"path": "true", "tty": {"window_size": 5}}, {"path": "true", "tty": {"window_size": {"columns": "a"}}},
    {"path": "true", "rlimits": []}, {"path": "true", "rlimits": {"nofile": "30"}},
    {"path": "true", "rlimits": {"nofile": -1}}, {"path": "true", "rlimits": {"nofile": 1.5}},
    {"path": "true", "id": 5}, {"path": "true", "id": "x" * 5000},
    {"path": "tr\u0000ue"}, {"path": "true", "args": ["a\u0000b"]}, {"path": "true", "env": ["A=\u0000"]},
    {"path": "true", "user": "ro\u0000ot"}, {"path": "true", "dir": "/t\u0000mp"},
    {"path": "true", "limits": {"memory_limits": {"limit_in_bytes": 1}}},
    {"path": "true", "image": {"uri": "docker:///x"}}]


@pytest.mark.parametrize("spec", WRONG_PROCESS, ids=lambda spec: json.dumps(spec)[:60])
def test_bad_process_documents(client, container, spec):
    reply = client.run_refused(container.handle, spec)
    assert 400 <= reply.status <= 501
    assert_error(reply, reply.status)


@pytest.mark.parametrize("spec", [{"path": "true", "id": "a/b"}, {"path": "true", "dir": "relative"},
                                  {"path": "true", "id": "ä %/?"}])
def test_odd_process_documents(container, spec):
    """Refused, or run and found again under the same id."""
    outcome = container.exec_or_refusal("true", **{k: v for k, v in spec.items() if k != "path"})
    if outcome is not None and "id" in spec:
        assert container.attach(spec["id"]).wait() == 0


def test_too_many_and_too_long(client, container):
    long_ok = "x" * 100000
    assert container.output("echo ${#A}", env=[f"A={long_ok}"]) == "100000\n"
    reply = client.run_refused(container.handle, {"path": "true", "args": ["x" * 200000]})
    assert_error(reply, 500)  # one argument ends at 128 KiB
    reply = client.run_refused(container.handle, {"path": "true", "env": ["A=" + "x" * 140000]})
    assert_error(reply, 500)
    many = [f"V{i}=value" for i in range(9000)]
    assert container.output("env | grep -c ^V", env=many) == "9000\n"
    for n in (65535, 65536, 65537):
        assert container.program("/bin/sh", "-c", "echo ${#0}", "y" * n)[1] == b"%d\n" % n


BAD_HANDLES = ["a/b", "..", ".", "a b", "-a", "a\u0000b", "ü", "a\nb", "x" * 256, "bulk_info", "bulk_metrics",
               "a%b", "../../etc", "a\\b", "a;b", "$(id)", "a'b", '"', "*", "?"]


@pytest.mark.parametrize("handle", BAD_HANDLES)
def test_handles_out_of_grammar(client, handle):
    reply = client.request("POST", "/containers", {"handle": handle})
    assert 400 <= reply.status <= 500
    assert_error(reply, reply.status)


@pytest.mark.parametrize("path", [
    "/containers/%2e%2e/info", "/containers/a%2Fb/info", "/containers/%00/info", "/containers/%zz/info",
    "/containers/%/info", "/containers/a%5cb/info", "/containers//info", "/containers/%ff/info",
    "/containers/../ping", "/containers/./info", "/containers/" + "x" * 300 + "/info"])
def test_bad_handles_in_paths(client, path):
    reply = client.request("GET", path)
    assert reply.status in (400, 404), reply


MISSING = [("user", "mallory"), ("user", "root:nobodys"), ("path", "no-such"), ("path", "/no/such"),
           ("path", "/etc"), ("path", "/etc/passwd"), ("path", "./x"), ("dir", "/etc/passwd"),
           ("dir", "/etc/passwd/x"), ("dir", "/proc/none/x")]


@pytest.mark.parametrize("key,value", MISSING)
@pytest.mark.parametrize("tty", [None, {}], ids=["pipes", "tty"])
def test_what_is_not_there(client, container, key, value, tty):
    spec = {"path": "true", "id": "failed", key: value, **({} if tty is None else {"tty": tty})}
    reply = client.run_refused(container.handle, spec)
    assert_error(reply, 500, "ExecutableNotFoundError" if key == "path" and value not in (
        "/etc", "/etc/passwd") else "")
    assert_error(client.request("GET", f"{container.path}/processes/failed"), 404, "ProcessNotFoundError")


BAD_MESSAGES = [b"garbage\n", b"{}\n", b'{"source":0,"data":5}\n', b'{"signal":"x"}\n', b"[1,2]\n",
                b'{"process_id":"x","source":7,"data":"x"}\n', b'{"signal":77}\n', b'{"signal":-1}\n',
                b'{"tty":{"window_size":{"columns":-5,"rows":99999999999}}}\n', b'{"tty":5}\n',
                b"{" * 5000, b"\x00\xff\xfe", b'{"a":' * 100, b'"' + b"x" * 3000000, b"\n\n  \n"]


@pytest.mark.parametrize("data", BAD_MESSAGES, ids=lambda d: d[:24].decode("latin-1"))
def test_bad_messages_to_a_process(container, data):
    """The process lives on, whatever becomes of the connection; another one can steer it."""
    process = container.run("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    process.wait_output(b"ready")
    try:
        process.control.send(data)
    except OSError:
        pass
    attached = container.attach(process.id)
    attached.signal(0)
    assert attached.wait() == 9
    process.wait_for(lambda: "control" in process.ends, "the end")
    process.close()


def vanish_points(data):
    head = data.index(b"\r\n\r\n") + 4
    return sorted({0, 1, 4, 5, 15, head - 3, head - 1, head, head + 1, len(data) - 1, len(data),
                   *range(0, len(data), 7)})


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_vanishes_in_a_create(client, how):
    handle = unique_name("vanished")
    data = request_bytes("POST", "/containers", {"handle": handle, "properties": {"a": "b"}})
    for n in vanish_points(data):
        conn = client.connect()
        conn.send(data[:n])
        if n == len(data) and how == "reset":  # a RST may overtake the request: wait for its effect
            wait_until(lambda: handle in client.handles(), "the create that was sent whole")
        getattr(conn, how)()
        if n == len(data):
            wait_until(lambda: client.request("DELETE", f"/containers/{handle}").status == 200,
                       "the create that was sent whole")
        else:
            assert handle not in client.handles("garden.state=all")


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_vanishes_in_a_run(client, container, how):
    data = request_bytes("POST", f"{container.path}/processes", {
        "id": "vanished", "path": "/bin/sh", "args": ["-c", "echo x; read x; exit 6"]})
    for n in vanish_points(data)[:None if how == "close" else -1]:
        conn = client.connect()
        conn.send(data[:n])
        getattr(conn, how)()
    if how == "reset":
        return
    wait_until(lambda: _known(container), "the run that was sent whole")
    attached = container.attach("vanished")
    attached.end_stdin()
    assert attached.wait() == 6 and attached.stdout == b"x\n"


def _known(container):
    from gardenlib import Hijacked
    try:
        container.attach("vanished", streams=()).vanish()
        return True
    except Hijacked:
        return False


@pytest.mark.parametrize("method,path", JSON_ROUTES)
def test_a_body_that_never_ends(client, container, method, path):
    head = f"{method} {path.format(container.handle)} HTTP/1.1\r\nHost: api\r\nContent-Length: 1000\r\n\r\n"
    for how in ("reset", "close"):
        conn = client.connect()
        conn.send(head.encode() + b'{"handle":"never"')
        getattr(conn, how)()
    assert "never" not in client.handles("garden.state=all")


def test_clients_that_vanish_from_streams(container):
    for how in range(8):
        process = container.run("echo a; echo b >&2; read x; exit 3", tty={} if how % 2 else None)
        process.wait_output(b"a")
        process.vanish()
    assert container.sh("exit 4")[0] == 4
