"""HTTP under pressure: lines 125-127, and security lines 67-76."""
import json
import re
import threading
import time

import oracle
import pytest
from conftest import unique_name
from gardenlib import GUARD, request_bytes, wait_until
from serverproc import SANITIZED
from test_wire import assert_error

BROWSER = [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:7777"},
           {"Referer": "http://evil.example/x"}, {"Sec-Fetch-Site": "cross-site"},
           {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "same-site"},
           {"Sec-Fetch-Mode": "no-cors"}, {"Sec-Fetch-Mode": "navigate"},
           {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}, {"Access-Control-Request-Method": "PUT"},
           {"oRiGiN": "http://evil.example"}, {"SEC-FETCH-MODE": "cors"}]


@pytest.mark.parametrize("headers", BROWSER, ids=lambda h: " ".join(next(iter(h.items()))))
def test_p0_67_browsers_are_refused(client, headers):
    handle = unique_name("browser")
    for method, path, body in (("GET", "/ping", None), ("GET", "/containers", None),
                               ("POST", "/containers", {"handle": handle}), ("DELETE", "/containers/x", None)):
        reply = client.request(method, path, body, headers={"Content-Type": "text/plain", **headers})
        assert_error(reply, 403)
        assert "access-control-allow-origin" not in reply.headers
    assert handle not in client.handles("garden.state=all")


@pytest.mark.parametrize("headers", [
    {"Host": "api"}, {"Host": "127.0.0.1:8080"}, {"Host": "localhost"}, {"Host": "web.example:7777"},
    {"Host": "[::1]:7777"}, {"Sec-Fetch-Site": "none"}, {"User-Agent": "Mozilla/5.0"}, {"Cookie": "a=b"}])
def test_p0_67_everybody_else_is_served(client, headers):
    assert client.request("GET", "/ping", headers=headers).status == 200


def test_p0_67_options(client):
    for path in ("/containers", "/ping", "/", "/containers/x/processes"):
        reply = client.request("OPTIONS", path)
        assert reply.status == 405 and "access-control-allow-methods" not in reply.headers


def test_unusual_headers_in_every_reply(client):
    reply = client.request("GET", "/ping")
    assert "date" in reply.headers
    assert not [name for name in reply.headers if name.startswith("access-control")]


def create_bytes(handle):
    return request_bytes("POST", "/containers", {"handle": handle, "properties": {"k": "v"}},
                         headers={"Connection": "close"})


def comparable(data):
    return re.sub(rb"(?i)\r\ndate: [^\r]*", b"", data)


def split_send(client, data, n):
    with client.connect() as conn:
        conn.send(data[:n])
        time.sleep(0.001)  # else the two parts travel as one
        conn.send(data[n:])
        return comparable(conn.rest()), conn.ended


def test_p0_69_a_create_split_at_every_byte(client):
    handle = unique_name()
    data = create_bytes(handle)
    expected = split_send(client, data, len(data))
    client.destroy(handle)
    assert expected[0].startswith(b"HTTP/1.1 200 ") and expected[1] == "FIN"
    for n in range(1, len(data)):
        assert split_send(client, data, n) == expected, n
        client.destroy(handle)


def test_p0_69_a_run_split_at_every_byte(client, container):
    def run(n, name):
        data = request_bytes("POST", f"{container.path}/processes", {
            "id": name, "path": "sh", "args": ["-c", "exit 7"], "env": ["A=\u00fc"]})
        answer, ended = split_send(client, data, n)
        return re.sub(rb'"stream_id":"[^"]*"', b"", answer).replace(name.encode(), b"ID"), ended, len(data)

    expected = run(10 ** 6, "split-000")
    assert b'"exit_status":7' in expected[0]
    for n in range(1, expected[2]):
        assert run(n, f"split-{n:03}") == expected, n


def test_p0_69_byte_by_byte(client):
    handle = unique_name()
    with client.connect() as conn:
        for byte in create_bytes(handle):
            conn.send(bytes([byte]))
        assert conn.reply().json == {"Handle": handle}
    client.destroy(handle)


def test_p0_70_header_block(client):
    big = {f"X-{i}": "v" * 1000 for i in range(200)}
    assert client.request("GET", "/ping", headers=big).status == 200
    for headers in ({f"X-{i}": "v" * 1000 for i in range(400)}, {"X": "v" * 300000}):
        answer, _ = client.raw(request_bytes("GET", "/ping", headers=headers))
        assert answer.startswith(b"HTTP/1.1 431 "), answer[:100]


def test_p0_70_long_paths(client):
    assert client.request("GET", "/containers?p=" + "v" * 100000).status == 200
    answer, _ = client.raw(request_bytes("GET", "/containers?p=" + "v" * 400000))
    assert re.match(rb"HTTP/1\.1 4(14|31) ", answer), answer[:100]


def body_of(size, prefix, filler):
    start = b'{' + prefix + b',"' + filler + b'":"'
    return start + b"x" * (size - len(start) - 2) + b'"}'


@pytest.mark.parametrize("chunked", [False, True])
def test_p0_70_body_limits(client, container, chunked):
    """T-L2: one byte too much is refused before there is any effect."""
    handle, mib = unique_name("large"), 1 << 20
    cases = [("POST", "/containers", 4 * mib, b'"handle":"%s"' % handle.encode()),
             ("POST", f"{container.path}/processes", 4 * mib, b'"path":"true"'),
             ("POST", f"{container.path}/exec", 4 * mib, b'"path":"true"'),
             ("PUT", f"{container.path}/stop", mib, b'"kill":true'),
             ("PUT", f"{container.path}/properties/p", mib, b'"x":1')]
    for method, path, limit, prefix in cases:
        body = body_of(limit + 1, prefix, b"z")
        if chunked:
            data = request_bytes(method, path, headers={"Transfer-Encoding": "chunked", "Connection": "close"})
            data += b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (
                body[i:i + 65536] for i in range(0, len(body), 65536))) + b"0\r\n\r\n"
        else:
            data = request_bytes(method, path, body=body, headers={"Connection": "close"})
        answer, ended = client.raw(data)
        assert answer.startswith(b"HTTP/1.1 413 ") and ended == "FIN", (path, answer[:100], ended)
        assert set(json.loads(answer.split(b"\r\n\r\n", 1)[1])) == {
            "Type", "Message", "Handle", "ProcessID", "Binary"}
    assert handle not in client.handles("garden.state=all")
    assert container.info()["State"] == "active"


def test_p0_70_bodies_within_the_limit(client, container):
    body = body_of(4 << 20, b'"path":"true"', b"z")
    with client.connect() as conn:
        conn.send(request_bytes("POST", f"{container.path}/processes", body=body))
        assert conn.head()[0] == 201
        assert b'"exit_status":0' in conn.rest()
    value = "x" * 1000000
    assert client.ok("PUT", f"{container.path}/properties/big", {"value": value}) == {}
    assert client.ok("GET", f"{container.path}/properties/big") == {"value": value}


@pytest.mark.parametrize("depth,served", [(20, True), (31, True), (33, False), (5000, False)])
def test_p0_70_depth(client, depth, served):
    body = b'{"unknown":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    reply = client.request("POST", "/containers", body=body)
    if served:
        client.destroy(reply.json["Handle"])
    else:
        assert reply.status >= 400
        assert_error(reply, reply.status)


def test_p0_70_an_endless_body_is_cut_off(client):
    """A client that goes on sending gets its answer and an end, within a bound."""
    with client.connect() as conn:
        conn.send(request_bytes("POST", "/containers", headers={"Transfer-Encoding": "chunked"}))
        sent = 0
        try:
            while sent < 1 << 40:
                conn.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
                sent += 65536
        except OSError:
            pass
        assert sent < 1 << 40


@pytest.fixture(scope="module")
def impatient(server):
    from serverproc import Server
    one = Server("--header-timeout", "500ms")
    yield one
    one.finish()


def test_line_126_headers_that_trickle_in(impatient):
    """P0 71: the deadline is for all of the headers, not for each byte."""
    with impatient.client.connect() as conn:
        started, sent = time.monotonic(), 0
        for byte in request_bytes("GET", "/ping", headers={"X": "v" * 10000}):
            try:
                conn.send(bytes([byte]))
            except OSError:
                break
            sent += 1
            time.sleep(0.02)
            assert time.monotonic() - started < GUARD, "still open"
        assert b"200" not in conn.rest() and sent < 9000
    assert impatient.client.ok("GET", "/ping") == {}


def test_line_126_nothing_at_all_is_sent(impatient):
    for data in (b"", b"GET", b"GET /ping HTTP/1.1\r\nHost: api\r\n"):
        with impatient.client.connect() as conn:
            conn.send(data)
            assert not conn.rest().startswith(b"HTTP/1.1 200")


def test_line_126_slow_bodies_and_streams_have_time(impatient):
    client = impatient.client
    handle = client.create()
    process = client.run(handle, {"path": "cat"})
    time.sleep(1.2)
    process.stdin("late\n")
    process.end_stdin()
    assert process.wait() == 0 and process.stdout == b"late\n"
    client.destroy(handle)


def test_p0_71_many_slow_clients_do_not_hold_up_others(client):
    slow = []
    for _ in range(500):
        conn = client.connect()
        conn.send(b"GET /pi")
        slow.append(conn)
    for _ in range(100):
        assert client.ok("GET", "/ping") == {}
    for conn in slow:
        conn.close()


def test_line_127_a_thousand_lists_on_new_connections(client, container):
    failures = []

    def many():
        for _ in range(125):
            try:
                if client.handles() != [container.handle]:
                    failures.append("another list")
            except OSError as error:
                failures.append(error)

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


GOOD_HANDLES = ["a", "A", "0", "x" * 255, "a.b_c~d:e@f+g-h", "...", "a..", "~", "_", "+1", "@a"]


@pytest.mark.parametrize("handle", GOOD_HANDLES, ids=lambda h: h[:20])
def test_p0_72_handles(server, client, handle):
    assert client.create(handle) == handle
    try:
        assert client.handles() == [handle]
        assert client.sh(handle, "exit 3")[0] == 3
        if len(handle) > 4:  # internal names are not made from it
            oracle.learn_cgroup_name(server)
            assert not any(handle in path for path in oracle.cgroup_directories(server))
            assert handle not in oracle.listing(server.work / "containers/live")
            assert not any(handle in name for name in oracle.listing(server.work / "run"))
    finally:
        client.destroy(handle)


def test_p0_73_parameters_are_not_shadowed(client, make_container):
    a, b = make_container(properties={"me": "a"}), make_container(properties={"me": "b"})
    for query in (f"?handle={b}", f"?:handle={b}", f"?handle={b}&handle={b}"):
        assert client.ok("GET", f"{a.path}/info{query}")["Properties"]["me"] == "a"
        assert client.ok("GET", f"{a.path}/properties/me{query}&key=x") == {"value": "a"}
    assert client.ok("PUT", f"{a.path}/properties/p", {"value": "x", "handle": b.handle}) == {}
    assert "p" not in client.ok("GET", f"{b.path}/properties")


@pytest.mark.parametrize("number,served", [
    ("0", True), ("1", True), ("9223372036854775807", True), ("9223372036854775808", False),
    ("18446744073709551615", False), ("-1", False), ("1.0", False), ("1e3", False),
    ("1" + "0" * 300, False), ("0x10", False), ("01", False), ('"5"', False), ("NaN", False)])
def test_p0_74_grace_times(client, number, served):
    reply = client.request("POST", "/containers", body=b'{"grace_time":%s}' % number.encode())
    if served:
        handle = reply.json["Handle"]
        value = client.ok("GET", f"/containers/{handle}/properties")["garden.grace-time"] \
            if number not in ("0", "1") else number
        assert value == number
        client.request("DELETE", f"/containers/{handle}")
    else:
        if reply.status == 200:
            client.destroy(reply.json["Handle"])
        assert reply.status >= 400
        assert_error(reply, reply.status)


@pytest.mark.parametrize("number", ["18446744073709551615", "9223372036854775808", "9223372036854775807"])
def test_p0_74_the_whole_range_of_uint64(client, container, number):
    body = b'{"path":"sh","args":["-c","ulimit -c"],"rlimits":{"core":%s}}' % number.encode()
    with client.connect() as conn:
        conn.send(request_bytes("POST", f"{container.path}/exec", body=body, headers={"Connection": "close"}))
        reply = conn.reply()
    assert reply.status == 200, reply
    if number == "18446744073709551615":
        assert reply.body == b"unlimited\n"
    reply = client.request("POST", "/containers",
                           body=b'{"limits":{"memory_limits":{"limit_in_bytes":%s}}}' % number.encode())
    assert reply.status == 200, reply
    client.destroy(reply.json["Handle"])
    reply = client.request("POST", "/containers",
                           body=b'{"limits":{"memory_limits":{"limit_in_bytes":18446744073709551616}}}')
    assert reply.status in (400, 500, 501)


def test_p0_75_stream_ids_are_random_and_bound(client, container, make_container):
    other = make_container()
    processes = [container.run("echo secret; read x", streams=()) for _ in range(20)]
    ids = [p.stream_id for p in processes]
    assert len(set(ids)) == 20 and all(len(i) >= 16 for i in ids)
    first, second = processes[:2]
    foreign = other.run("read x", streams=())
    nearly = first.stream_id[:-1] + ("1" if first.stream_id[-1] == "0" else "0")
    for path in (f"{container.path}/processes/{second.id}/attaches/{first.stream_id}/stdout",
                 f"{other.path}/processes/{foreign.id}/attaches/{first.stream_id}/stdout",
                 f"{container.path}/processes/{first.id}/attaches/0/stdout",
                 f"{container.path}/processes/{first.id}/attaches/{nearly}/stdout"):
        answer, ended = client.raw(request_bytes("GET", path))
        assert answer.startswith(b"HTTP/1.1 200 ") and b"secret" not in answer and ended == "FIN"
    first.open("stdout")
    first.wait_output(b"secret\n")
    answer, _ = client.raw(request_bytes("GET", first.stream_path("stdout")))
    assert b"secret" not in answer, "single use"
    for process in (*processes, foreign):
        process.end_stdin()
        process.wait()


def resident(server):
    text = oracle.read(f"/proc/{server.pid}/status")
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1])


def test_line_125_slow_readers(server, client, container, make_container):
    """P0 76: readers that stall hold up their own process only, and memory is bounded."""
    other = make_container()
    oracle.Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # the peak starts anew
    before, stalled = resident(server), []
    for i in range(8):
        process = container.run("exec cat /dev/zero", streams=(), id=f"flood-{i}")
        conn = client.connect()
        conn.send(request_bytes("GET", process.stream_path("stdout")))
        assert conn.head()[0] == 200  # and never reads on
        stalled.append((process, conn))
    for _ in range(50):
        assert other.sh("exit 3")[0] == 3
    writers = [pid for pid, task in oracle.family(server).items() if task.name == "cat"]
    assert len(writers) == 8

    def written():
        return [re.search(r"wchar: (\d+)", oracle.read(f"/proc/{pid}/io"))[1] for pid in writers]

    def at_rest():
        first = written()
        time.sleep(0.3)
        return written() == first

    wait_until(at_rest, "the writers stand still")
    # A ring is at most 4 MiB; it is shared memory of server and shim.
    assert SANITIZED or resident(server) - before < 8 * 4200 + 16384, "KiB more than before"
    process, conn = stalled[0]
    taken = len(conn.take(20000000))  # the reader goes on: so does its writer
    assert taken == 20000000
    for process, conn in stalled:
        process.signal(1)
        conn.close()
    for process, _ in stalled:
        assert process.wait_exit_line() == 137
        process.close()
