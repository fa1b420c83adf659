"""The runner of tests/vm without a virtual machine: what it counts, and what it says when there is no kernel to boot."""
import importlib.machinery
import importlib.util
import os
import stat
import sys
from pathlib import Path

import pytest

VM = Path(__file__).resolve().parents[1] / "vm"
sys.path.insert(0, str(VM))

import kernel  # noqa: E402


def load(name):
    loader = importlib.machinery.SourceFileLoader(f"vm_{name}", str(VM / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


run = load("run")


@pytest.mark.parametrize("text,expected", [
    ("..\n2 passed in 12.40s\nvm: status 0\n", (2, 0)),
    ("====== 2 passed, 5 deselected in 12.40s (0:00:12) ======\nvm: status 0\n", (2, 0)),
    ("1 failed, 16 passed, 1 skipped, 1 error in 107.60s (0:01:47)\nvm: status 1\n", (16, 2)),
    ("2 errors in 3.00s\nvm: status 2\n", (0, 2)),
    ("3 skipped in 3.00s\nvm: status 0\n", (0, 1)),
    ("no tests ran in 15.02s\nvm: status 4\n", (0, 1)),
    ("5 passed in 3.00s\nvm: status 137\n", (5, 1)),
    ("5 passed in 3.00s\n", (5, 1)),
    ("7 passed in a test's output\nvm: status 0\n", (0, 1)),
    ("....\nvm: no end after 9 s, the machine is stopped\n", (0, 1)),
    ("Kernel panic - not syncing\n", (0, 1)),
    ("", (0, 1)),
])
def test_what_is_counted(text, expected):
    assert run.verdict(text) == expected


def test_every_line_of_the_list_is_a_test():
    chosen = run.chosen_tests()
    assert len(chosen) > 20 and len(set(chosen)) == len(chosen)
    for line in chosen:
        path, _, name = line.partition("::")
        text = (VM.parents[1] / path).read_text()
        assert not name or f"def {name.split('[')[0]}(" in text, line


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A place before all others in which a tool can be replaced."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(kernel, "CACHE", tmp_path / "cache")

    def replace(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return replace


def test_no_network(tools):
    tools("apt-cache", "echo '  Depends: linux-image-6.1.0-99-cloud-amd64'")
    tools("apt-get", "echo 'E: Failed to fetch it'; exit 100")
    with pytest.raises(kernel.Problem, match=r"6\.1\.0-99-cloud-amd64 cannot be downloaded \(no network.*Failed to fetch it"):
        kernel.fetch_kernel()
    assert not list(kernel.CACHE.glob("linux-*")), "a kernel that was not fetched is not taken for one"


def test_no_archive_of_debian(tools):
    tools("apt-cache", "echo nothing")
    with pytest.raises(kernel.Problem, match="linux-image-cloud-amd64 is unknown to apt: run apt-get update"):
        kernel.fetch_kernel()


def test_a_missing_tool():
    with pytest.raises(kernel.Problem, match="no-such-tool is missing: make deps-test installs it"):
        kernel.run(["no-such-tool"])


def test_a_kernel_that_is_there_is_taken(tools):
    tools("apt-cache", "exit 1")
    there = kernel.CACHE / "linux-image-6.1.0-1-cloud-amd64"
    (there / "lib/modules").mkdir(parents=True)
    assert kernel.fetch_kernel() == there
