"""The documents are valid OpenAPI 3.1 and say the same as the .def files, from which the server is made."""
import json
import re

import pytest

import contract
from contract import API_SPEC, CONTRACTS, ERRORS, GARDEN, VOLUMES

SCHEMAS = [pytest.param(one, name, id=f"{one.path.stem}-{name}")
           for one in CONTRACTS for name in one.document["components"]["schemas"]]
ROUTES = [pytest.param(one, name, id=name) for one in CONTRACTS for name in one.operations]
EXAMPLES = sorted((API_SPEC / "examples").glob("*.json"))
each_contract = pytest.mark.parametrize("one", CONTRACTS, ids=lambda one: one.path.stem)


def test_the_definitions_can_be_read_completely():
    for one, least in ((GARDEN, 30), (VOLUMES, 16)):
        text = one.routes_path.read_text()
        assert len(one.routes) == len(re.findall(r"^ROUTE\w*\(", text, re.MULTILINE)) >= least
    assert len(ERRORS) == len(re.findall(r"^ERROR_KIND\(", (API_SPEC / "errors.def").read_text(),
                                         re.MULTILINE)) > 0


@each_contract
def test_the_routes_are_those_of_the_definition(one):
    described = {(o.method, o.path, o.name) for o in one.operations.values()}
    assert described == {(r.method, r.path, r.name) for r in one.routes}
    methods = [m for item in one.document["paths"].values() for m in item if m in contract.METHODS]
    assert len(methods) == len(one.routes)  # no operationId twice


def test_hijacked_routes_are_marked():
    assert {o.name for one in CONTRACTS for o in one.operations.values() if o.hijacks} == {
        "process_run", "process_attach", "process_stdout", "process_stderr"}


def error_types():
    """The (status, Type) pairs that the error responses of all routes allow."""
    for operation in GARDEN.operations.values():
        for status, response in operation.responses().items():
            if status >= 400:
                schema = response["content"]["application/json"]["schema"]
                for one in schema.get("oneOf", [schema]):
                    kinds = contract.resolve(GARDEN.document, one)["properties"]["Type"]["enum"]
                    yield from ((status, kind) for kind in kinds)


def test_the_error_responses_are_those_of_errors_def():
    assert set(error_types()) == {(e.status, e.type) for e in ERRORS}
    schemas = GARDEN.document["components"]["schemas"]
    assert set(schemas["ErrorDocument"]["properties"]["Type"]["enum"]) == {e.type for e in ERRORS}


@pytest.mark.parametrize("one, name", ROUTES)
def test_a_route_names_its_parameters_and_errors(one, name):
    operation = one.operations[name]
    parameters = [contract.resolve(one.document, p)
                  for p in one.document["paths"][operation.path].get("parameters", [])]
    in_path = {p["name"] for p in parameters if p["in"] == "path" and p["required"]}
    assert in_path == set(re.findall(r"{(\w+)}", operation.path))
    statuses = operation.responses()
    assert 403 in statuses and any(status < 300 for status in statuses)
    assert (404 in statuses) == ("handle" in in_path)


@each_contract
def test_openapi_version_and_top_level(one):
    assert re.fullmatch(r"3\.1\.\d+", one.document["openapi"])
    assert {"title", "version"} <= one.document["info"].keys()
    assert all(path.startswith("/") for path in one.document["paths"])
    tags = {tag["name"] for tag in one.document["tags"]}
    assert all(set(o.item["tags"]) <= tags for o in one.operations.values())


@each_contract
def test_every_reference_resolves(one):
    for target in contract.references(one.document):
        contract.resolve(one.document, {"$ref": target})


@each_contract
def test_every_component_is_used(one):
    used = set(contract.references(one.document))
    defined = {f"#/components/{kind}/{name}"
               for kind, items in one.document["components"].items() for name in items}
    # sent behind a hijacked head
    unused = {"#/components/schemas/ProcessControl"} if one is GARDEN else set()
    assert defined - used == unused


@pytest.mark.parametrize("one, name", SCHEMAS)
def test_a_schema_is_valid(one, name):
    contract.SCHEMA_DIALECT.check_schema(one.document["components"]["schemas"][name])


@pytest.mark.parametrize("one, name", ROUTES)
def test_the_schemas_of_a_route_are_valid(one, name):
    operation = one.operations[name]
    contents = [r.get("content", {}) for r in operation.responses().values()]
    contents.append(contract.resolve(one.document, operation.item.get("requestBody", {})).get("content", {}))
    for content in contents:
        for media in content.values():
            contract.SCHEMA_DIALECT.check_schema(media["schema"])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_of_its_schema(path):
    name, what = path.stem.split(".")
    one = next(one for one in CONTRACTS if name in one.operations)
    operation = one.operations[name]
    if what == "request":
        schema = operation.request_schema()
    else:
        schema = operation.response_schema(int(what), "application/json")
    one.validate(json.loads(path.read_text()), schema)


@pytest.mark.parametrize("change", [
    {"Handle": None}, {"Type": "NoSuchError"}, {"Message": 3}, {"More": ""},
], ids=str)
def test_a_wrong_error_document_is_refused(change):
    document = json.loads((API_SPEC / "examples/process_attach.404.json").read_text())
    document.update(change)
    with pytest.raises(contract.jsonschema.ValidationError):
        GARDEN.validate(document, {"$ref": "#/components/schemas/ErrorDocument"})
