"""Lets the tests here use the modules and fixtures of tests/api. CLOCHE_LONG=1: in full length."""
import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "api"))

from conftest import nothing_left, probe, root, server, start_server  # noqa: E402,F401

IS_LONG = os.environ.get("CLOCHE_LONG", "0") not in ("", "0")
SEED = int(os.environ.get("CLOCHE_SEED", random.randrange(1 << 32)))


def randomness(name):
    """Of its own for each test; CLOCHE_SEED makes it the same again."""
    print(f"CLOCHE_SEED={SEED}")
    return random.Random(f"{SEED} {name}")
