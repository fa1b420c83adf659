"""Requests that schemathesis makes up from the documents: whatever comes, status, content type and
document of the answer are as they say, and the server stays up."""
import os
import subprocess
from pathlib import Path

import pytest

from other_tests import start_server  # first: it makes the modules below known

from contract import GARDEN, VOLUMES
from serverproc import TOP

SCHEMATHESIS = TOP / ".venv/bin/schemathesis"
EXAMPLES_PER_ROUTE = 25
SEED = 7777
CHECKS = ["response_schema_conformance", "status_code_conformance", "content_type_conformance"]
HIJACKED = {name for name, operation in GARDEN.operations.items() if operation.hijacks}
# Of these one would end the container that all others are to find.
ENDING = {"container_destroy", "container_grace_time"}

pytestmark = pytest.mark.skipif(not SCHEMATHESIS.exists(),
                                reason=f"{SCHEMATHESIS} is missing: run make deps first")


@pytest.fixture(scope="module")
def server():
    """With few containers: many of the made-up requests create one, and none destroys it."""
    one = start_server("--max-containers", "50")
    yield one
    one.finish()


def run_schemathesis(server, directory, excluded, handle=None, contract=GARDEN):
    config = directory / "schemathesis.toml"
    config.write_text(f'[parameters]\n"path.handle" = "{handle}"\n' if handle else "")
    host, port = (server.client if contract is GARDEN else server.volumes).address
    command = [SCHEMATHESIS, "--config-file", config, "run", contract.path,
               "--url", f"http://{host}:{port}", "--checks", ",".join(CHECKS), "--seed", SEED,
               "--max-examples", EXAMPLES_PER_ROUTE, "--phases", "examples,coverage,fuzzing",
               "--request-timeout", 60, "--generation-database", "none", "--suppress-health-check",
               "all", "--continue-on-failure", "--warnings", "off", "--no-color"]
    for name in sorted(excluded):
        command += ["--exclude-operation-id", name]
    hooks = Path(__file__).parent / "schemathesis_hooks.py"
    result = subprocess.run([str(word) for word in command], cwd=directory, timeout=1200,
                            env={**os.environ, "SCHEMATHESIS_HOOKS": str(hooks)},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    server.check()
    assert result.returncode == 0, result.stdout.decode("utf-8", "replace")


def test_made_up_requests(server, tmp_path):
    run_schemathesis(server, tmp_path, excluded=HIJACKED)
    assert server.client.ok("GET", "/ping") == {}
    server.destroy_all()


def test_made_up_requests_about_a_container(server, tmp_path):
    handle = server.client.create("made-up")
    run_schemathesis(server, tmp_path, excluded=HIJACKED | ENDING, handle=handle)
    assert server.client.info(handle)["State"] in ("active", "stopped")
    server.client.destroy(handle)


def test_made_up_requests_of_volumes(server, tmp_path):
    run_schemathesis(server, tmp_path, excluded=set(), contract=VOLUMES)
    server.destroy_volumes()


def test_made_up_requests_about_a_volume(server, tmp_path):
    server.volumes.make("made-up")
    server.volumes.fill("made-up", "file")
    run_schemathesis(server, tmp_path, excluded={"volume_destroy", "volume_destroy_many"}, handle="made-up",
                     contract=VOLUMES)
    assert server.volumes.get("made-up")["handle"] == "made-up"
    server.destroy_volumes()
