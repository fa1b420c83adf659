"""What the stock clients send and the reference servers answer is what the documents describe."""
import json

import pytest

import other_tests  # noqa: F401 - first: it makes the modules below known

from contract import GARDEN, VOLUMES
from exchanges import all_exchanges
from recording import load_all, parse_head

EXCHANGES = [pytest.param(recording, conn, id=f"{recording.name}-{conn}")
             for recording in load_all("garden") for conn in recording.connections()
             if recording.bytes_of(conn, by_client=True)]
VOLUME_EXCHANGES = [pytest.param(exchange, id=f"{exchange.recording}-{exchange.conn}-{n}")
                    for exchanges in all_exchanges().values() for n, exchange in enumerate(exchanges)]
REPORT = {"$ref": "#/components/schemas/ProcessReport"}
CONTROL = {"$ref": "#/components/schemas/ProcessControl"}


@pytest.mark.parametrize("recording, conn", EXCHANGES)
def test_recorded_answer(recording, conn):
    request, _ = parse_head(recording.bytes_of(conn, by_client=True))
    head, body = parse_head(recording.bytes_of(conn, by_client=False))
    operation = GARDEN.find_operation(request.method, request.target)
    if head.status < 300 and operation.hijacks:
        assert head.headers["transfer-encoding"] == "chunked"
        assert ("content" in operation.responses()[head.status]) == (head.kind == "control")
        if head.kind == "control":
            for line in body.splitlines():
                GARDEN.validate(json.loads(line), REPORT)
    else:
        GARDEN.validate_reply(operation, head.status, head.headers["content-type"], body)


@pytest.mark.parametrize("recording, conn", EXCHANGES)
def test_recorded_request(recording, conn):
    request, body = parse_head(recording.bytes_of(conn, by_client=True))
    operation = GARDEN.find_operation(request.method, request.target)
    if request.headers.get("content-type") == "application/json" and request.length:
        document, body = body[:request.length], body[request.length:]
        GARDEN.validate(json.loads(document), operation.request_schema())
        assert operation.hijacks or not body
    if operation.hijacks:
        for line in body.splitlines():
            GARDEN.validate(json.loads(line), CONTROL)


@pytest.mark.parametrize("exchange", VOLUME_EXCHANGES)
def test_recorded_volume_exchange(exchange):
    operation = VOLUMES.find_operation(exchange.request.method, exchange.request.target)
    content_type = exchange.answer.headers.get("content-type")
    if exchange.document is not None:
        VOLUMES.validate_reply(operation, exchange.answer.status, content_type, exchange.document)
    else:
        assert content_type in operation.responses()[exchange.answer.status]["content"]
    if exchange.body and not exchange.is_stream:
        VOLUMES.validate(json.loads(exchange.body), operation.request_schema())
