"""Lets the tests here use the modules of tests/api and tests/spec, and gives each module a server.
(Not a conftest: the one of tests/api is imported by that name, and there can be only one.)"""
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "api"), str(TESTS / "spec")]

from serverproc import PROGRAM, Server  # noqa: E402


def start_server(*options):
    if not PROGRAM.exists():
        pytest.fail(f"{PROGRAM} is missing: run make first", pytrace=False)
    return Server(*options)


@pytest.fixture(scope="module")
def server():
    one = start_server()
    yield one
    one.finish()
