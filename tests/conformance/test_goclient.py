"""A client on Go's standard library, in whole stories: its HTTP is what all real clients use, and
it forgives nothing."""
import json
import os
import subprocess
from pathlib import Path

import pytest

from live_server import server  # noqa: F401 - first: it makes the modules below known

from gardenlib import GUARD
from serverproc import SANITIZED, TOP

SOURCES = Path(__file__).parent / "goclient"
BUILD = TOP / "build/go"
PROGRAM = BUILD / "goclient"
SCENARIOS = """
    plain-calls properties run run-without-streams run-with-stdout-only stdin stdin-large
    stdin-that-nobody-reads signal-after-stdin-ended signals signal-at-once tty tty-burst
    user-and-environment attach attach-by-many attach-after-exit client-that-vanishes errors
    large-output large-output-on-both runs-in-parallel stop destroy-while-running
""".split()


def go_command():
    """Debian's, which is the oldest that has to do."""
    return "/usr/bin/go" if Path("/usr/bin/go").exists() else "go"


@pytest.fixture(scope="module")
def goclient():
    BUILD.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "GOCACHE": str(BUILD / "cache"), "GOTOOLCHAIN": "local", "GOPROXY": "off",
           "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
    subprocess.run([go_command(), "build", "-o", PROGRAM, "."], cwd=SOURCES, env=env, check=True)
    return PROGRAM


def test_every_scenario_is_run(goclient):
    done = subprocess.run([goclient, "list"], stdout=subprocess.PIPE, check=True, text=True)
    assert sorted(done.stdout.split()) == sorted(SCENARIOS)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(server, goclient, scenario):
    host, port = server.client.address
    done = subprocess.run([goclient, f"{host}:{port}", "go-", scenario], stdout=subprocess.PIPE,
                          timeout=(8 if SANITIZED else 2) * GUARD, text=True)
    server.check()
    result = json.loads(done.stdout)
    assert result.get("ok"), result.get("error")
    assert done.returncode == 0
