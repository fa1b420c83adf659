"""garden.yaml is a valid OpenAPI 3.1 document and says the same as routes.def and errors.def."""
import json
import re

import pytest

import contract
from contract import API_SPEC, DOCUMENT, ERRORS, OPERATIONS, ROUTES

SCHEMAS = DOCUMENT["components"]["schemas"]
EXAMPLES = sorted((API_SPEC / "examples").glob("*.json"))


def test_routes_def_can_be_read_completely():
    text = (API_SPEC / "routes.def").read_text()
    assert len(ROUTES) == len(re.findall(r"^ROUTE\w*\(", text, re.MULTILINE)) >= 30
    assert len(ERRORS) == len(re.findall(r"^ERROR_KIND\(", (API_SPEC / "errors.def").read_text(),
                                         re.MULTILINE)) > 0


def test_the_routes_are_those_of_routes_def():
    described = {(o.method, o.path, o.name) for o in OPERATIONS.values()}
    assert described == {(r.method, r.path, r.name) for r in ROUTES}
    methods = [m for item in DOCUMENT["paths"].values() for m in item if m in contract.METHODS]
    assert len(methods) == len(ROUTES)  # no operationId twice


def test_what_is_not_built_is_marked():
    assert {o.name for o in OPERATIONS.values() if not o.built} == {
        r.name for r in ROUTES if not r.built}


def test_hijacked_routes_are_marked():
    assert {o.name for o in OPERATIONS.values() if o.hijacks} == {
        "process_run", "process_attach", "process_stdout", "process_stderr"}


def error_types():
    """The (status, Type) pairs that the error responses of all routes allow."""
    for operation in OPERATIONS.values():
        for status, response in operation.responses().items():
            if status >= 400:
                schema = response["content"]["application/json"]["schema"]
                for one in schema.get("oneOf", [schema]):
                    kinds = contract.resolve(DOCUMENT, one)["properties"]["Type"]["enum"]
                    yield from ((status, kind) for kind in kinds)


def test_the_error_responses_are_those_of_errors_def():
    assert set(error_types()) == {(e.status, e.type) for e in ERRORS}
    assert set(SCHEMAS["ErrorDocument"]["properties"]["Type"]["enum"]) == {e.type for e in ERRORS}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_route_names_its_parameters_and_errors(name):
    operation = OPERATIONS[name]
    parameters = [contract.resolve(DOCUMENT, p)
                  for p in DOCUMENT["paths"][operation.path].get("parameters", [])]
    in_path = {p["name"] for p in parameters if p["in"] == "path" and p["required"]}
    assert in_path == set(re.findall(r"{(\w+)}", operation.path))
    statuses = operation.responses()
    assert 403 in statuses and any(status < 300 for status in statuses)
    assert (404 in statuses) == ("handle" in in_path)
    assert (501 in statuses) or operation.built


def test_openapi_version_and_top_level():
    assert re.fullmatch(r"3\.1\.\d+", DOCUMENT["openapi"])
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    assert all(path.startswith("/") for path in DOCUMENT["paths"])
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    assert all(set(o.item["tags"]) <= tags for o in OPERATIONS.values())


def test_every_reference_resolves():
    for target in contract.references(DOCUMENT):
        contract.resolve(DOCUMENT, {"$ref": target})


def test_every_component_is_used():
    used = set(contract.references(DOCUMENT))
    defined = {f"#/components/{kind}/{name}"
               for kind, items in DOCUMENT["components"].items() for name in items}
    assert defined - used == {"#/components/schemas/ProcessControl"}  # sent behind a hijacked head


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_valid(name):
    contract.SCHEMA_DIALECT.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_schemas_of_a_route_are_valid(name):
    operation = OPERATIONS[name]
    contents = [r.get("content", {}) for r in operation.responses().values()]
    contents.append(operation.item.get("requestBody", {}).get("content", {}))
    for content in contents:
        for media in content.values():
            contract.SCHEMA_DIALECT.check_schema(media["schema"])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_of_its_schema(path):
    name, what = path.stem.split(".")
    operation = OPERATIONS[name]
    if what == "request":
        schema = operation.request_schema()
    else:
        schema = operation.response_schema(int(what), "application/json")
    contract.validate(json.loads(path.read_text()), schema)


@pytest.mark.parametrize("change", [
    {"Handle": None}, {"Type": "NoSuchError"}, {"Message": 3}, {"More": ""},
], ids=str)
def test_a_wrong_error_document_is_refused(change):
    document = json.loads((API_SPEC / "examples/process_attach.404.json").read_text())
    document.update(change)
    with pytest.raises(contract.jsonschema.ValidationError):
        contract.validate(document, {"$ref": "#/components/schemas/ErrorDocument"})
