"""Every recorded call that Concourse makes of the volume API, replayed in the recorded order: the flows build on each
other, so one that failed takes those behind it along. Streams are left out: their archives are not in the recordings."""
import gzip
import json

import pytest

from live_server import server  # noqa: F401 - first: it makes the modules below known

from archives import directory, tar
from contract import VOLUMES
from exchanges import all_exchanges
from gardenlib import Connection
from replay import FRAMING, Mismatch

EXCHANGES = all_exchanges()
RECORDED_WORK, RECORDED_IMAGE = "/srv/cc/worker", "/srv/cc/resource-types/mock/rootfs.tgz"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "rootfs.tgz"
    path.write_bytes(gzip.compress(tar(directory("bin"), "bin/sh")))
    return path


def sent_bytes(exchange, work, image):
    """A recorded request with this machine's paths in it."""
    body = exchange.body.replace(RECORDED_IMAGE.encode(), str(image).encode())
    body = body.replace(RECORDED_WORK.encode(), str(work).encode())
    lines = [exchange.request.start]
    lines += [f"{name}: {len(body) if name == 'content-length' else value}"
              for name, value in exchange.request.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


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


class VolumeReplay:
    def __init__(self, server, image):
        self.server, self.image = server, image
        self.connections = {}

    def run(self, exchanges):
        try:
            for exchange in exchanges:
                if not exchange.is_stream:
                    self.step(exchange)
        finally:
            for connection in self.connections.values():
                connection.close()

    def step(self, exchange):
        if exchange.conn not in self.connections:
            self.connections[exchange.conn] = Connection(self.server.volumes.address)
        connection = self.connections[exchange.conn]
        connection.send(sent_bytes(exchange, self.server.work, self.image))
        line = connection.take_until(b"\r\n").decode()
        connection.buffer = f"{line}\r\n".encode() + connection.buffer
        reply = connection.reply(exchange.request.method)
        if line not in wanted_answers(exchange):
            raise Mismatch(f"{exchange}: {exchange.answer.start!r} expected, not {line!r} {reply}")
        VOLUMES.validate_reply(VOLUMES.find_operation(exchange.request.method, exchange.request.target), reply.status,
                               reply.headers.get("content-type"), reply.body)
        if line == exchange.answer.start:
            check_framing(exchange, reply)
            if exchange.has_body:
                check_document(exchange, reply, self.server.work)
        if "connection" in exchange.answer.headers and (connection.rest(), connection.ended) != (b"", "FIN"):
            raise Mismatch(f"{exchange}: ended by {connection.ended}")


@pytest.mark.parametrize("name", EXCHANGES)
def test_volume_recording(server, image, name):
    VolumeReplay(server, image).run(EXCHANGES[name])
    server.check()


def test_every_volume_route_that_concourse_uses_is_recorded():
    used = {VOLUMES.find_operation(exchange.request.method, exchange.request.target).name
            for exchanges in EXCHANGES.values() for exchange in exchanges}
    assert used == {"volume_list", "volume_create_async", "volume_future_poll", "volume_future_cancel", "volume_get",
                    "volume_destroy", "volume_cleanup", "volume_privileged_set", "volume_stream_in",
                    "volume_stream_out"}
