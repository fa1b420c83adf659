"""What fails by chance is tried once more; what was found is not."""
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests"))
from again import MAX_TESTS, failures  # noqa: E402

API = "MODE=asan check-api"


def step(tests, command=f"make {API}", more="", n_errors=0):
    lines = "".join(f"FAILED {test} - AssertionError: - it's\n" for test in tests)
    return f"== {command}\n...F\n{more}\n{lines}{len(tests)} failed, {n_errors} errors, 7 passed in 3.20s (0:00:03)\nmake: *** Error 1\n"


def test_each_failure_is_tried_in_its_mode():
    text = step(["tests/api/test_a.py::test_x[a b]"]) + step(["tests/spec/test_b.py::test_y"], "/usr/bin/python3 -m pytest -q")
    assert failures(text) == [("asan", "tests/api/test_a.py::test_x[a b]"), ("release", "tests/spec/test_b.py::test_y")]


@pytest.mark.parametrize("text", [
    step(["tests/api/test_a.py::test_x"], more="WARNING: ThreadSanitizer: data race (pid=1)"),
    step(["tests/api/test_a.py::test_x"], more="a.c:3:4: runtime error: shift exponent"),
    step(["tests/torture/test_exactly_once.py::test_every_byte_comes_once[tty]"], "pytest -q tests/torture"),
    step([f"tests/api/test_a.py::test_{i}" for i in range(MAX_TESTS + 1)]),
    step(["tests/api/test_a.py::test_x"], n_errors=1),  # nobody said what
    step(["tests/api/test_a.py::test_x"], "tests/vm/run"),
    step(["tests/api/test_a.py::test_x"]) + "== lint\na.c:1: too long\n",
    f"== {API}\nkilled\n",
], ids=["race", "undefined", "lost bytes", "many", "unnamed", "another machine", "lint", "no end"])
def test_what_was_found_is_not_tried_again(text):
    assert failures(text) is None


TWICE = """
from pathlib import Path
MARK = Path(__file__).with_name("mark")

def test_first_time_only():
    seen = MARK.exists()
    MARK.touch()
    assert seen

def test_always():
    assert False
"""


def test_what_passes_alone_is_named_and_counted(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_twice.py").write_text(TWICE)
    (tmp_path / "log").write_text(step(["tests/test_twice.py::test_always", "tests/test_twice.py::test_always"]).replace(
        "test_always", "test_first_time_only", 1))
    run = ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_twice.py"]
    assert subprocess.run(run, cwd=tmp_path, stdout=subprocess.DEVNULL).returncode == 1
    out = subprocess.run([str(TOP / "tests/again.py"), "log"], cwd=tmp_path, stdout=subprocess.PIPE, check=True).stdout.decode()
    assert "== UNSTEADY: MODE=asan tests/test_twice.py::test_first_time_only failed, and passed when run alone\n" in out
    assert "UNSTEADY: MODE=asan tests/test_twice.py::test_always" not in out and out.endswith("\n1 unsteady\n")
