"""The tools that other tests rely on."""
import re
import subprocess

import hang
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


def test_a_hang_is_reported_with_stacks(server, make_container):
    process = make_container().run("echo ready; read x")
    process.wait_output(b"ready")
    text = hang.report(server)
    assert "cloche-shim" in text and re.search(r"accept_all|do_sys_poll|do_poll", text)
    assert hang.is_hang("AssertionError: never happened: exit") and not hang.is_hang("assert 1 == 2")
    process.end_stdin()
    process.wait()
