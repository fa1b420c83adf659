"""What tests can have fail (backend/base/fault.h) is in test builds only."""
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
TRACES = (b"CLOCHE_FP", b"CLOCHE_HEAP", b"failure point", b"fault_at", b"__wrap_malloc")


def traces(mode):
    """In server and shim: the server carries the shim."""
    subprocess.run(["make", "-s", "-j2", f"MODE={mode}", "all"], cwd=TOP, check=True)
    image = b"".join((TOP / "build" / mode / name).read_bytes() for name in ("cloche", "cloche-shim"))
    return [trace for trace in TRACES if trace in image]


def test_the_release_has_no_failure_points():
    assert traces("release") == []


def test_the_test_build_has_them():
    assert traces("asan") == list(TRACES)
