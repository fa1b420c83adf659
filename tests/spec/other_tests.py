"""Lets the tests here use the modules of tests/conformance and, by those, of tests/api."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))

from live_server import server, start_server  # noqa: E402,F401
