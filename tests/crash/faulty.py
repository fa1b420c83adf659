"""The server that tests can have fail: the one with sanitizers, whatever the others are."""
import subprocess

import pytest
from serverproc import TOP

PROGRAM = TOP / "build/asan/cloche"


@pytest.fixture(scope="session", autouse=True)
def program():
    result = subprocess.run(["make", "-s", "-j2", "MODE=asan", "all"], cwd=TOP, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)
    assert result.returncode == 0, result.stdout
