"""Every recorded call that Concourse's web, worker and sweeper make of both APIs, replayed in the recorded order: whole
pipelines, a hijack, an abort, a web that was killed, sweeps. The flows build on each other, so one that failed takes
those behind it along."""
import gzip
import json
import re

import pytest

from live_server import server  # noqa: F401 - first: it makes the modules below known

import differences
from archives import Member, encode, tar, untar
from contract import VOLUMES
from exchanges import all_exchanges, web_recordings
from gardenlib import Connection
from mock_resource import make_archive
from recording import parse_head
from replay import FRAMING, Mismatch, compare
from web import load_steps, recorded_streams

RECORDED_WORK, RECORDED_IMAGE = "/srv/cc/worker", "/srv/cc/resource-types/mock/rootfs.tgz"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return make_archive(tmp_path_factory.mktemp("image"))


def request_head(exchange, n_bytes=None):
    lines = [exchange.request.start]
    lines += [f"{name}: {n_bytes if name == 'content-length' else value}"
              for name, value in exchange.request.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def sent_bytes(exchange, work, image):
    """A recorded request with this machine's paths in it."""
    if exchange.body is None:  # what fly uploads
        archive = encode("gzip", tar(Member("f", b"uploaded\n")))
        return request_head(exchange) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(archive), archive)
    body = exchange.body.replace(RECORDED_IMAGE.encode(), str(image).encode())
    body = body.replace(RECORDED_WORK.encode(), str(work).encode())
    return request_head(exchange, len(body)) + body


def wanted_answers(exchange):
    """The status lines that are right: see differences.VOLUME_POLLS."""
    poll = VOLUMES.find_operation(exchange.request.method, exchange.request.target).name == "volume_future_poll"
    return {exchange.answer.start} | ({"HTTP/1.1 200 OK"} if poll and exchange.answer.status == 204 else set())


def check_framing(exchange, reply):
    """Of one answer that is as recorded."""
    got, want = dict(reply.headers), dict(exchange.answer.headers)
    if "transfer-encoding" in want:
        want.pop("transfer-encoding")  # see differences.VOLUME_FRAMING
        want["content-length"] = got.get("content-length")
    for name in FRAMING:
        if want.get(name) != got.get(name):
            raise Mismatch(f"{exchange}: {name} is {got.get(name)!r}, not {want.get(name)!r}")
    if ("content-length" in want) != ("content-length" in got):
        raise Mismatch(f"{exchange}: Content-Length in {got}, but {want} is recorded")


def check_document(exchange, reply, work):
    if exchange.document is None or "[" == exchange.document[:1].decode():
        check_list(exchange, reply)
        return
    want = json.loads(exchange.document.replace(RECORDED_WORK.encode(), str(work).encode()))
    got = reply.json
    if "error" in want:
        got["error"] = got["error"].split(": ")[0]  # see differences.VOLUME_ERRORS
    if list(got.items()) != list(want.items()):
        raise Mismatch(f"{exchange}: {want} expected, not {got}")


def check_list(exchange, reply):
    """What is listed when depends on how fast volumes are made: those that were are here as well."""
    got = reply.json
    for volume in got:
        VOLUMES.validate(volume, {"$ref": "#/components/schemas/Volume"})
    want = json.loads(exchange.document or b"[]")
    missing = {volume["handle"] for volume in want} - {volume["handle"] for volume in got}
    if missing or any(list(volume) != list(got[0]) for volume in want):
        raise Mismatch(f"{exchange}: {want} expected, not {got}")


# ---- containers --------------------------------------------------------------------------------


def error_for(document):
    """The answer that is right in place of a recorded error, or None: see differences.WEB_ERRORS."""
    for recorded, status, kind, message, _ in differences.WEB_ERRORS:
        if re.fullmatch(recorded, document.get("Message", "")):
            return status, kind, message
    return None


def check_error(exchange, line, got, error):
    status, kind, message = error
    if line != f"HTTP/1.1 {status}" or got["Type"] != kind or not re.fullmatch(message, got["Message"]):
        raise Mismatch(f"{exchange}: {error} expected, not {line} {got}")
    if got.keys() != {"Type", "Message", "Handle", "ProcessID", "Binary"}:
        raise Mismatch(f"{exchange}: {got}")


def check_garden(exchange, line, reply):
    want, got = json.loads(exchange.document), reply.json
    if error := error_for(want):
        check_error(exchange, line, got, error)
        return
    if line != exchange.answer.start:
        raise Mismatch(f"{exchange}: {exchange.answer.start!r} expected, not {line!r} {reply}")
    check_framing(exchange, reply)
    if exchange.request.target.endswith("/properties"):  # see differences.WEB_PROPERTIES
        got = {key: value for key, value in got.items() if key in want or (value and not key.startswith("garden."))}
    compare(want, got, str(exchange))


class Stream:
    """A hijacked connection: its head, and what came behind it."""

    def __init__(self, address, request, wanted, where):
        self.wanted_head, self.wanted = wanted
        self.where = where
        self.wire = Connection(address)
        self.wire.send(request)
        line = self.wire.take_until(b"\r\n\r\n").decode().split("\r\n")
        self.head = parse_head("\r\n".join([*line, "", ""]).encode())[0]
        if self.head.start != self.wanted_head.start:
            raise Mismatch(f"{where}: {self.wanted_head.start!r} expected, not {line} {self.wire.rest()}")
        for name in FRAMING:
            if self.head.headers.get(name) != self.wanted_head.headers.get(name):
                raise Mismatch(f"{where}: {name} in {self.head.headers}, but {self.wanted_head.headers} is recorded")
        self.first = json.loads(self.wire.take_until(b"\n")) if self.is_control else None

    @property
    def is_control(self):
        return self.wanted_head.kind == "control"

    @property
    def has_ticks(self):
        return b"tick " in self.wanted

    def wait(self, more=0):
        """Until the long task has printed a line, or more of them."""
        n = self.wire.buffer.count(b"\n") + more if more else 1
        while self.wire.buffer.count(b"\n") < n and self.wire.fill():
            pass

    def end(self, ids):
        """Everything up to the server's FIN is as recorded."""
        got = self.wire.rest()
        if self.wire.ended != "FIN":
            raise Mismatch(f"{self.where}: ended by {self.wire.ended}")
        if self.is_control:
            want = [json.loads(line) for line in self.wanted.splitlines()][1:]
            want = [{**line, "process_id": ids.get(line["process_id"], line["process_id"])} for line in want]
            got = [json.loads(line) for line in got.splitlines()]
        else:
            want = self.wanted
        if not self.has_ticks and got != want:
            raise Mismatch(f"{self.where}: {want!r} expected, not {got!r}")
        return got


def ticks_of(output):
    """What the long task has counted: whole lines only."""
    return [int(line.split()[1]) for line in output.decode().splitlines(keepends=True)
            if line.startswith("tick ") and line.endswith("\r\n")]


# ---- archives ----------------------------------------------------------------------------------


def check_archive(exchange, body):
    """What the recorded steps have written into it. See differences.WEB_ARCHIVES."""
    tree = {name.removeprefix("./"): member for name, member in untar(gzip.decompress(body)).items()}
    if exchange.request.target.endswith("?path=metadata.json"):
        (member,) = tree.values()
        found = json.loads(member.data) == {"env": ["MIRRORED_VERSION=mock"], "user": "root"}
    else:
        found = exchange.request.target.endswith("?path=%2F") and tree["g"].data == b"uploaded\n"
    if not found:
        raise Mismatch(f"{exchange}: {tree}")


# ---- the replay --------------------------------------------------------------------------------


class WebReplay:
    def __init__(self, server, image):
        self.server, self.image = server, image
        self.connections, self.streams, self.ids = {}, {}, {}
        self.wanted = recorded_streams(web_recordings())
        self.ended = {}  # outputs of hijacked connections by recording and connection

    def close(self):
        for one in self.connections.values():
            one.close()
        for one in self.streams.values():
            one.wire.close()

    def run(self, path):
        for step in load_steps(path):
            getattr(self, f"do_{step.kind}")(step)

    # Plain calls.
    def connection(self, step, address):
        if step.key not in self.connections:
            self.connections[step.key] = Connection(address)
        return self.connections[step.key]

    def do_call(self, step):
        exchange = step.data
        is_garden = exchange.request.target.startswith("/containers")
        address = self.server.client.address if is_garden else self.server.volumes.address
        connection = self.connection(step, address)
        connection.send(sent_bytes(exchange, self.server.work, self.image))
        line = connection.take_until(b"\r\n").decode()
        connection.buffer = f"{line}\r\n".encode() + connection.buffer
        reply = connection.reply(exchange.request.method)
        if is_garden:
            check_garden(exchange, line, reply)
        else:
            self.check_volumes(exchange, line, reply)
        if "connection" in exchange.answer.headers and (connection.rest(), connection.ended) != (b"", "FIN"):
            raise Mismatch(f"{exchange}: ended by {connection.ended}")

    def check_volumes(self, exchange, line, reply):
        if line not in wanted_answers(exchange):
            raise Mismatch(f"{exchange}: {exchange.answer.start!r} expected, not {line!r} {reply}")
        if exchange.is_stream and reply.status == 200:
            check_archive(exchange, reply.body)
            return
        VOLUMES.validate_reply(VOLUMES.find_operation(exchange.request.method, exchange.request.target), reply.status,
                               reply.headers.get("content-type"), reply.body)
        if line == exchange.answer.start:
            check_framing(exchange, reply)
            if exchange.has_body:
                check_document(exchange, reply, self.server.work)

    # Hijacked connections.
    def translate(self, data):
        """A request or input with the ids of this server; stream ids are plain numbers, and stand in one place."""
        for recorded, given in self.ids.items():
            if len(recorded) == 36:
                data = data.replace(recorded.encode(), given.encode())
        return re.sub(rb"(/attaches/)(\d+)/", lambda m: m[1] + self.ids[m[2].decode()].encode() + b"/", data)

    def do_open(self, step):
        stream = Stream(self.server.client.address, self.translate(step.data), self.wanted[step.key], step.key)
        self.streams[step.key] = stream
        if stream.is_control:
            recorded = json.loads(stream.wanted.splitlines()[0])
            for key in ("process_id", "stream_id"):
                self.ids[recorded[key]] = stream.first[key]

    def do_input(self, step):
        self.streams[step.key].wire.send(self.translate(step.data))

    def do_wait(self, step):
        if self.streams[step.key].has_ticks:
            self.streams[step.key].wait()

    def do_end(self, step):
        self.ended[step.key] = self.streams[step.key].end(self.ids)

    def do_leave(self, step):
        """The client was killed: between two lines, so that what it was sent it has."""
        stream = self.streams[step.key]
        if stream.has_ticks:
            stream.wait(more=2)
            self.ended[step.key] = stream.wire.buffer
        stream.wire.reset()


@pytest.fixture(scope="module")
def replay(server, image):
    one = WebReplay(server, image)
    yield one
    one.close()


@pytest.mark.parametrize("path", web_recordings(), ids=lambda path: path.stem)
def test_web_recording(replay, server, path):
    replay.run(path)
    server.check()


def test_lines_47_and_90_output_of_the_trap_of_a_stopped_task_is_delivered(replay):
    """See differences.WEB_TICKS and WEB_STOP."""
    output = replay.ended["05-task-that-runs-long", 45].replace(b"Terminated\r\n", b"")
    ticks = ticks_of(output)
    assert output == b"".join(b"tick %d\r\n" % n for n in range(len(ticks))) + b"trapped\r\n" and ticks


def test_line_91_nothing_of_a_task_is_missing_when_web_was_killed(replay, server):
    """See differences.WEB_TICKS."""
    before, later = replay.ended["10-hijack-on-a-terminal", 45], replay.streams["11-web-killed-and-back", 15]
    (handle,) = [handle for handle in server.client.handles() if handle.startswith("497fb163")]
    later.wait(more=3)
    server.client.stop(handle)
    after = later.wire.rest()
    assert later.wire.ended == "FIN" and after.endswith(b"trapped\r\n")
    ticks = ticks_of(before + after)
    assert ticks == list(range(len(ticks))) and len(ticks_of(before)) > 1 and len(ticks_of(after)) > 2
    control = replay.streams["11-web-killed-and-back", 14]
    assert json.loads(control.wire.rest()) == {"process_id": "task", "exit_status": 1}


def test_every_volume_route_that_concourse_uses_is_recorded():
    used = {VOLUMES.find_operation(exchange.request.method, exchange.request.target).name
            for exchanges in all_exchanges().values() for exchange in exchanges}
    assert used == {"volume_list", "volume_create_async", "volume_future_poll", "volume_future_cancel", "volume_get",
                    "volume_destroy", "volume_cleanup", "volume_privileged_set", "volume_stream_in",
                    "volume_stream_out"}
