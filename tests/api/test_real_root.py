"""Real input: in a Debian root, made by mmdebstrap, a container that is driven through the API only
builds and runs a real C program: cloche's own unit tests. The root is kept below build/."""
import hashlib
import os
import shutil
import subprocess

import netns
import pytest
from conftest import Container
from serverproc import TOP

pytestmark = pytest.mark.real_root

PACKAGES = ["gcc", "libc6-dev", "make", "pkg-config", "libcmocka-dev", "uthash-dev", "libsqlite3-dev",
            "libjansson-dev"]
BUILD_SCRIPT = r"""
set -e
cd "$HOME" && rm -rf work && mkdir work && cd work
%(fetch)s
mkdir out
for test in tests/unit/test_*.c; do
    name=$(basename "$test" .c)
    [ -e "backend/base/${name#test_}.c" ] || continue
    gcc -std=gnu17 -D_GNU_SOURCE -O1 -Wall -iquote . -iquote backend -o "out/$name" "$test" backend/base/*.c \
        -lcmocka -lsqlite3 -pthread
    CMOCKA_MESSAGE_OUTPUT=TAP "./out/$name" > "out/$name.tap" 2> "out/$name.err" \
        || { cat "out/$name.tap" "out/$name.err"; exit 9; }
    grep -c '^ok' "out/$name.tap" | sed "s/^/$name passed /"
    if grep '^not ok' "out/$name.tap"; then exit 8; fi
done
echo "built as $(id -un) on $(tty || true)"
exit 42
"""


@pytest.fixture(scope="module")
def debian():
    """A tar of the root, named after what is in it."""
    if os.environ.get("CLOCHE_DEBIAN_ROOT"):
        return os.environ["CLOCHE_DEBIAN_ROOT"]
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap is missing: make deps installs it")
    key = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:12]
    # One for all modes: it has nothing to do with how the server was built.
    path, link = TOP / f"build/debian-root-{key}.tar", TOP / "build/debian-root.tar"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.tar")
        result = subprocess.run(netns.on_the_host("mmdebstrap", "--mode=root", "--variant=minbase",
                                                  "--include=" + ",".join(PACKAGES), "bookworm", part),
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if result.returncode:
            part.unlink(missing_ok=True)
            pytest.fail("mmdebstrap failed:\n" + result.stdout.decode()[-3000:])
        part.rename(path)
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    return path


@pytest.fixture(scope="module")
def machine(server, debian, nothing_left):
    box = Container(server, rootfs=str(debian), bind_mounts=[
        {"src_path": str(TOP / part), "dst_path": f"/src/{part}"} for part in ("backend", "tests", "api-spec")])
    try:
        box.output("useradd --create-home --shell /bin/sh builder")
        yield box
    finally:
        box.destroy()


def check(status, text):
    assert status == 42, text[-4000:]
    assert "built as builder" in text
    assert text.count(" passed ") >= 3, text


def test_builds_from_bound_sources(machine):
    script = BUILD_SCRIPT % {"fetch": "cp -r /src/backend /src/tests /src/api-spec ."}
    status, out, err = machine.sh(script, user="builder")
    check(status, out.decode() + err.decode())


def test_builds_on_a_terminal(machine):
    script = BUILD_SCRIPT % {"fetch": "cp -r /src/backend /src/tests /src/api-spec ."}
    status, out, err = machine.sh(script, user="builder", tty={})
    check(status, out.decode().replace("\r\n", "\n"))
    assert err == b"" and b"on /dev/pts/" in out


def test_builds_from_sources_that_come_by_stdin(machine):
    """As base64, since a Garden client cannot send every byte."""
    script = BUILD_SCRIPT % {"fetch": "base64 -d | tar xz"}
    archive = subprocess.run(["tar", "czf", "-", "-C", TOP, "backend", "tests/unit", "api-spec"], check=True,
                             stdout=subprocess.PIPE).stdout
    import base64
    process = machine.run(script, user="builder")
    text = base64.b64encode(archive).decode()
    for i in range(0, len(text), 32768):
        process.stdin(text[i:i + 32768])
    process.end_stdin()
    check(process.wait(), (process.stdout + process.stderr).decode())


def test_bytes_come_through_unchanged(machine):
    status, out, _ = machine.sh("cat /usr/bin/x86_64-linux-gnu-gcc-12 || cat /usr/bin/gcc-12", user="builder")
    assert status == 0
    digest = machine.output("cat /usr/bin/gcc-12 | sha256sum").split()[0]
    assert hashlib.sha256(out).hexdigest() == digest


def test_a_real_distribution_works(machine):
    assert machine.output("dpkg --verify gcc libc6 && echo clean") == "clean\n"
    assert machine.output("apt-get --version | head -n 1").startswith("apt ")
    assert machine.output("su builder -c 'id -un'") == "builder\n"
    assert machine.output("perl -e 'print 6*7'") == "42"


def test_root_inside_installs_nothing_outside(machine, debian):
    before = os.stat(debian).st_mtime_ns
    machine.output("echo x > /etc/x; dpkg -P --force-all make >/dev/null 2>&1; ! command -v make")
    assert os.stat(debian).st_mtime_ns == before
