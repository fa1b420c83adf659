"""Row 4.46: this server with containers whose shims are of an older commit, the last one before the shim changed."""
import io
import os
import subprocess
import tarfile

import pytest

from live import nothing_left, probe, root, server, start_server  # noqa: F401 - first: it makes the modules below known

from serverproc import BUILD, MODE, NO_POOL, PROGRAM, TOP

LOOP = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 9"


def git(*words):
    return subprocess.run(["git", "-c", f"safe.directory={TOP}", "-C", TOP, *words], check=True, capture_output=True).stdout


def older_commit():
    """None where there is no history to look at."""
    try:
        changed = git("rev-list", "-n", "1", "HEAD", "--", "backend/shim").decode().strip()
        return git("rev-parse", "--verify", f"{changed}^").decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@pytest.fixture(scope="module")
def older_program(tmp_path_factory):
    commit = older_commit()
    if not commit:
        pytest.skip("NOT TESTED: an older shim; this clone has no history (a shallow one?)")
    shim = BUILD / f"cloche-shim-{commit[:12]}"
    if not shim.exists():
        tree = tmp_path_factory.mktemp("older")
        with tarfile.open(fileobj=io.BytesIO(git("archive", commit, "Makefile", "backend", "server", "volumes"))) as tar:
            tar.extractall(tree)
        target = f"build/{MODE}/cloche-shim"
        subprocess.run(["make", "-s", f"MODE={MODE}", target], cwd=tree, check=True)
        subprocess.run(["strip", "-o", shim, tree / target], check=True)
    program = BUILD / "cloche-other-shim"
    program.unlink(missing_ok=True)
    subprocess.run(["make", "-s", f"MODE={MODE}", f"OTHER_SHIM={shim}", os.path.relpath(program, TOP)], cwd=TOP, check=True)
    return program


def test_4_46_containers_of_an_older_shim_live_on(start_server, tmp_path, older_program):  # noqa: F811
    one = start_server(*NO_POOL, directory=tmp_path, program=older_program)
    one.client.create("box", properties={"key": "value"})
    assert one.client.sh("box", "exit 4", id="ended")[0] == 4
    long = one.client.run("box", {"id": "long", "path": "/bin/sh", "args": ["-c", LOOP]})
    asking = one.client.run("box", {"id": "asking", "path": "/bin/sh", "args": ["-c", "read x; echo got $x; exit 6"]})
    terminal = one.client.run("box", {"id": "terminal", "path": "/bin/cat", "tty": {}})
    long.wait_output(b"line 3\n")
    one.program = PROGRAM
    one.kill()
    one.start()
    assert one.client.attach("box", "ended").wait() == 4
    later = one.client.attach("box", "long")
    assert later.wait() == 9
    whole = b"".join(b"line %d\n" % i for i in range(40))
    assert whole.startswith(long.stdout) and whole.endswith(later.stdout)
    assert len(long.stdout) + len(later.stdout) >= len(whole)  # a shim without MSG_HOLD may send something twice
    asking = one.client.attach("box", "asking")
    asking.stdin("word\n")
    assert (asking.wait(), asking.stdout) == (6, b"got word\n")
    terminal = one.client.attach("box", "terminal")
    terminal.resize(100, 30)
    terminal.stdin("echo\n")
    terminal.wait_output(b"echo\r\necho\r\n")
    terminal.signal(1)
    assert terminal.wait() == 137
    assert one.client.output("box", "echo new") == "new\n"
    assert one.client.stream_in("box", _archive(), "/tmp").status == 200
    assert one.client.output("box", "cat /tmp/file") == "text"
    assert one.client.ok("GET", "/containers/box/properties/key") == {"value": "value"}
    one.client.stop("box")
    one.client.destroy("box")
    assert one.client.handles() == []


def _archive():
    space = io.BytesIO()
    with tarfile.open(fileobj=space, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"text"))
    return space.getvalue()
