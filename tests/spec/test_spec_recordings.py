"""What the stock client sends and the reference server answers is what garden.yaml describes."""
import json

import pytest

import other_tests  # noqa: F401 - first: it makes the modules below known

from contract import GARDEN
from recording import load_all, parse_head

EXCHANGES = [pytest.param(recording, conn, id=f"{recording.name}-{conn}")
             for recording in load_all("garden") for conn in recording.connections()
             if recording.bytes_of(conn, by_client=True)]
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
