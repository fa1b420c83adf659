"""The contract, api-spec/: routes.def, errors.def and garden.yaml, and how they go together."""
import json
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import jsonschema
import yaml

API_SPEC = Path(__file__).resolve().parents[2] / "api-spec"
SCHEMA_DIALECT = jsonschema.Draft202012Validator


class Route(NamedTuple):
    method: str
    path: str  # parameters as {name}
    name: str
    built: bool


class ErrorKind(NamedTuple):
    name: str
    status: int
    type: str


def load_routes():
    text = (API_SPEC / "routes.def").read_text()
    lines = re.findall(r'^ROUTE(_UNBUILT)?\((\w+), "([^"]+)", (\w+)\)', text, re.MULTILINE)
    return [Route(method, re.sub(r":(\w+)", r"{\1}", path), name, not unbuilt)
            for unbuilt, method, path, name in lines]


def load_errors():
    text = (API_SPEC / "errors.def").read_text()
    lines = re.findall(r'^ERROR_KIND\((\w+), (\d+), "(\w*)"\)', text, re.MULTILINE)
    return [ErrorKind(name, int(status), kind) for name, status, kind in lines]


class Operation:
    """One method of one path of garden.yaml."""

    def __init__(self, document, path, method, item):
        self.document, self.path, self.method = document, path, method.upper()
        self.item = item
        self.name = item["operationId"]
        self.hijacks = item.get("x-hijack", False)
        self.built = not item.get("x-unbuilt", False)

    def responses(self):
        return {int(status): resolve(self.document, response)
                for status, response in self.item["responses"].items()}

    def response_schema(self, status, content_type):
        return self.responses()[status]["content"][content_type]["schema"]

    def request_schema(self):
        return self.item["requestBody"]["content"]["application/json"]["schema"]


def resolve(document, value):
    """Follow a reference within the document, if value is one."""
    while "$ref" in value:
        target = value["$ref"]
        assert target.startswith("#/"), target
        value = document
        for part in target[2:].split("/"):
            value = value[part.replace("~1", "/").replace("~0", "~")]
    return value


METHODS = ("get", "put", "post", "delete")

ROUTES = load_routes()
ERRORS = load_errors()
DOCUMENT = yaml.safe_load((API_SPEC / "garden.yaml").read_text())
OPERATIONS = {item["operationId"]: Operation(DOCUMENT, path, method, item)
              for path, methods in DOCUMENT["paths"].items()
              for method, item in methods.items() if method in METHODS}


def find_operation(method, target):
    """The operation that a request is for. A path without parameters wins over one with."""
    parts = target.split("?")[0].split("/")
    for operation in sorted(OPERATIONS.values(), key=lambda o: o.path.count("{")):
        wanted = operation.path.split("/")
        if operation.method == method and len(wanted) == len(parts) and all(
                want == unquote(part) or want.startswith("{") for want, part in zip(wanted, parts)):
            return operation
    raise LookupError(f"{method} {target} is in no path of garden.yaml")


def validate(value, schema):
    """Fail unless value is of a schema of garden.yaml."""
    whole = {"components": DOCUMENT["components"], "allOf": [schema]}
    SCHEMA_DIALECT(whole).validate(value)


def validate_reply(operation, status, content_type, body):
    """Fail unless a plain reply is one that garden.yaml promises."""
    responses = operation.responses()
    content_type = content_type.split(";")[0]
    assert status in responses, f"{operation.name}: no response {status}: {body!r}"
    assert content_type in responses[status]["content"], f"{operation.name}: {content_type}"
    if content_type == "application/json":
        assert body.endswith(b"\n"), body
        validate(json.loads(body), operation.response_schema(status, content_type))


def references(value):
    """Every $ref below a value."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)
