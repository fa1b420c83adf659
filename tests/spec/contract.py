"""The contract, api-spec/: of each API the routes and the OpenAPI document, and how they go together."""
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


class ErrorKind(NamedTuple):
    name: str
    status: int
    type: str


def load_routes(name):
    text = (API_SPEC / name).read_text()
    lines = re.findall(r'^ROUTE(?:_UPLOAD)?\((\w+), "([^"]+)", (\w+)\)', text, re.MULTILINE)
    return [Route(method, re.sub(r":(\w+)", r"{\1}", path), name)
            for method, path, name in lines]


def load_errors():
    text = (API_SPEC / "errors.def").read_text()
    lines = re.findall(r'^ERROR_KIND\((\w+), (\d+), "(\w*)"\)', text, re.MULTILINE)
    return [ErrorKind(name, int(status), kind) for name, status, kind in lines]


class Operation:
    """One method of one path of a document."""

    def __init__(self, document, path, method, item):
        self.document, self.path, self.method = document, path, method.upper()
        self.item = item
        self.name = item["operationId"]
        self.hijacks = item.get("x-hijack", False)

    def responses(self):
        return {int(status): resolve(self.document, response)
                for status, response in self.item["responses"].items()}

    def response_schema(self, status, content_type):
        return self.responses()[status]["content"][content_type]["schema"]

    def request_schema(self):
        body = resolve(self.document, self.item["requestBody"])
        return body["content"]["application/json"]["schema"]


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


class Contract:
    """One API: a list of routes and a document that describes them."""

    def __init__(self, routes, document):
        self.routes_path, self.path = API_SPEC / routes, API_SPEC / document
        self.routes = load_routes(routes)
        self.document = yaml.safe_load(self.path.read_text())
        self.operations = {item["operationId"]: Operation(self.document, path, method, item)
                           for path, methods in self.document["paths"].items()
                           for method, item in methods.items() if method in METHODS}

    def find_operation(self, method, target):
        """The operation that a request is for. A path without parameters wins over one with."""
        parts = target.split("?")[0].split("/")
        for operation in sorted(self.operations.values(), key=lambda o: o.path.count("{")):
            wanted = operation.path.split("/")
            if operation.method == method and len(wanted) == len(parts) and all(
                    want == unquote(part) or want.startswith("{") for want, part in zip(wanted, parts)):
                return operation
        raise LookupError(f"{method} {target} is in no path of {self.path.name}")

    def validate(self, value, schema):
        """Fail unless value is of a schema of the document."""
        whole = {"components": self.document["components"], "allOf": [schema]}
        SCHEMA_DIALECT(whole).validate(value)

    def validate_reply(self, operation, status, content_type, body):
        """Fail unless a plain reply is one that the document promises."""
        responses = operation.responses()
        assert status in responses, f"{operation.name}: no response {status}: {body!r}"
        contents = responses[status].get("content")
        if not contents:
            assert body == b"", f"{operation.name}: a body with {status}: {body!r}"
            return
        content_type = (content_type or "").split(";")[0]
        assert content_type in contents, f"{operation.name}: {content_type}"
        if content_type == "application/json":
            assert body.endswith(b"\n"), body
            self.validate(json.loads(body), operation.response_schema(status, content_type))


ERRORS = load_errors()
GARDEN = Contract("routes.def", "garden.yaml")
VOLUMES = Contract("volume_routes.def", "volumes.yaml")
CONTRACTS = [GARDEN, VOLUMES]


def references(value):
    """Every $ref below a value."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)
