"""The tools that other tests rely on."""
import subprocess

import pytest


def run(*command):
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


def test_deny_makes_one_call_fail(deny):
    result = run(deny, "mkdirat", "ENOSYS", "python3", "-c",
                 "import os\ntry: os.mkdir('x', dir_fd=os.open('/tmp', 0))\nexcept OSError as e: print(e.errno)")
    assert result.stdout == b"38\n"
    assert run(deny, "mkdir", "28", "mkdir", "/tmp/never").returncode == 1
    assert run(deny, "mkdir", "ENOSPC", "sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize("args", [[], ["mkdir"], ["mkdir", "ENOSPC"], ["nonsense", "ENOSPC", "true"],
                                  ["mkdir", "NONSENSE", "true"], ["mkdir", "ENOSPC", "/no/such"]])
def test_deny_refuses_nonsense(deny, args):
    assert run(deny, *args).returncode == 125


def test_probe_sees_what_there_is(probe):
    result = subprocess.run([probe, "fds"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            close_fds=True)
    assert [line.split()[0] for line in result.stdout.splitlines()] == [b"0", b"1", b"2"]
    assert run(probe, "nonsense").returncode == 2
