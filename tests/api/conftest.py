"""Fixtures: one server for the whole run, servers with options of their own, containers, and the
leak oracle around every module."""
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import hang  # noqa: E402
import oracle  # noqa: E402
import roots  # noqa: E402
import tsalib  # noqa: E402
from gardenlib import Hijacked, wait_until  # noqa: E402
from serverproc import BUILD, BUSYBOX_ROOT, NO_POOL, PROGRAM, TOP, Server  # noqa: E402
from volumelib import EMPTY, cow  # noqa: E402

_names = itertools.count()


def pytest_configure(config):
    config.addinivalue_line("markers", "real_root: needs a Debian root, made with mmdebstrap")


def unique_name(prefix="test"):
    return f"{prefix}-{os.getpid()}-{next(_names)}"


def build_tool(name, *options):
    """A C program of tests/tools, compiled when its source is newer."""
    source, target = TOP / "tests/tools" / f"{name}.c", BUILD / "tests" / name
    parts = [source, *source.parent.glob(f"{name}_*.c"), *source.parent.glob(f"{name}*.h")]
    if not target.exists() or target.stat().st_mtime < max(p.stat().st_mtime for p in parts):
        target.parent.mkdir(parents=True, exist_ok=True)
        made = target.with_suffix(f".{os.getpid()}")
        sources = [p for p in parts if p.suffix == ".c"]
        subprocess.run(["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-o", made, *sources,
                        *options], check=True)
        made.rename(target)
    return target


class Container:
    """A container of the test's server, with the client's calls for it."""

    def __init__(self, server, handle=None, **spec):
        self.server, self.client = server, server.client
        self.handle = self.client.create(handle or unique_name(), **spec)

    def __str__(self):
        return self.handle

    @property
    def path(self):
        return f"/containers/{self.handle}"

    def run(self, script, streams=("stdout", "stderr"), **spec):
        """Start a shell script and leave it running."""
        spec = {"path": "/bin/sh", "args": ["-c", script], **spec}
        return self.client.run(self.handle, spec, streams)

    def sh(self, script, **spec):
        return self.client.sh(self.handle, script, **spec)

    def output(self, script, **spec):
        return self.client.output(self.handle, script, **spec)

    def program(self, path, *args, **spec):
        return self.client.program(self.handle, path, args, **spec)

    def probe(self, *args, **spec):
        """What the probe printed: its lines, split into words."""
        status, out, err = self.program("/bin/probe", *args, **spec)
        assert status == 0, f"probe {args}: {status} {out!r} {err!r}"
        return [line.split(" ") for line in out.decode().splitlines()]

    def exec_or_refusal(self, path, args=(), **spec):
        """Exit status and output, or None when the server refused the run."""
        try:
            return self.program(path, *args, **spec)[:2]
        except Hijacked as refusal:
            assert refusal.reply.status == 500 and refusal.reply.json["Message"]
            return None

    def attach(self, pid, streams=("stdout", "stderr")):
        return self.client.attach(self.handle, pid, streams)

    def info(self):
        return self.client.info(self.handle)

    def init_pid(self):
        """Its init, by the host's pid."""
        return oracle.container_init(self.server, self.handle)

    def destroy(self):
        self.client.destroy(self.handle)


class Volume:
    """A volume of the test's server, with the client's calls for it."""

    def __init__(self, client, handle=None, strategy=EMPTY, **spec):
        self.client = client
        self.info = client.make(handle or unique_name("volume"), strategy, **spec)
        self.handle, self.path = self.info["handle"], self.info["path"]

    def __str__(self):
        return self.handle

    def bind(self, target, rest="", read_only=False):
        """It, or a part of it, as a bind mount of a container."""
        return {"src_path": self.path + rest, "dst_path": target, "mode": 0 if read_only else 1}

    def fill(self, *members, path=None, encoding="raw"):
        self.client.fill(self.handle, *members, path=path, encoding=encoding)
        return self

    def tree(self, path=None, encoding="raw"):
        return self.client.tree(self.handle, path, encoding)

    def file(self, path):
        return self.client.file(self.handle, path)

    def destroy(self):
        self.client.destroy(self.handle)


def have_server():
    if not PROGRAM.exists():
        pytest.exit(f"{PROGRAM} is missing: run make first", returncode=3)


@pytest.fixture(scope="session")
def server():
    have_server()
    one = Server("--baggageclaim-p2p-interface-name-pattern", "lo", pool=512)
    yield one
    one.finish()


@pytest.fixture
def client(server):
    return server.client


@pytest.fixture
def start_server():
    """Start servers with options of the test's own; each ends with the test, and leaves nothing."""
    have_server()
    started = []

    def start(*args, **more):
        started.append(Server(*args, **more))
        return started[-1]

    yield start
    for one in reversed(started):
        one.finish()


@pytest.fixture(scope="session")
def ssh_keys(tmp_path_factory):
    directory = tmp_path_factory.mktemp("keys")
    for name in ("host", "worker", "other"):
        tsalib.make_key(directory / name)
    return directory


@pytest.fixture
def cluster(tmp_path, ssh_keys):
    """A cluster without gateways yet."""
    one = tsalib.Cluster(tmp_path, ssh_keys)
    yield one
    one.close()


@pytest.fixture
def start_worker(cluster, start_server):
    """Start a worker of the cluster: options of the server, then those of Cluster.options by name."""
    def start(*words, env=None, directory=None, **options):
        return start_server(*NO_POOL, "--default-rootfs", BUSYBOX_ROOT, *cluster.options(**options), *words,
                            command=("worker",), env=env, directory=directory)

    return start


@pytest.fixture(scope="session")
def probe():
    return build_tool("probe", "-static")


@pytest.fixture(scope="session")
def deny():
    return build_tool("deny", "-lseccomp")


@pytest.fixture(scope="session")
def root(tmp_path_factory, probe):
    """A directory with busybox, users and the probe; no test writes to it."""
    have_server()
    return roots.make_root(tmp_path_factory.mktemp("roots") / "root", probe)


@pytest.fixture(scope="session")
def pea_root(tmp_path_factory, probe):
    """Another root, for processes, with a user that only it has."""
    top = roots.make_root(tmp_path_factory.mktemp("pea") / "pea", probe)
    (top / "image-file").write_text("from the pea's image\n")
    (top / "etc/passwd").write_text(roots.PASSWD + "peauser:x:1234:1010::/home/peauser:/bin/sh\n")
    return top


@pytest.fixture
def make_container(server):
    """Make containers of the session's server; they end with the test."""
    made = []

    def make(handle=None, **spec):
        made.append(Container(server, handle, **spec))
        return made[-1]

    yield make
    for one in made:
        reply = one.client.request("DELETE", one.path)
        assert reply.status in (200, 404), reply


@pytest.fixture
def container(make_container):
    """A container from the default root."""
    return make_container()


@pytest.fixture
def box(make_container, root):
    """A container from the test root: with users and the probe."""
    return make_container(rootfs=str(root))


@pytest.fixture
def volumes(server):
    """The client of the volume API. No test finds or leaves volumes."""
    wait_until(lambda: not server.volume_files(), "the files of the test before are gone")
    yield server.volumes
    server.volumes.destroy_many(server.volumes.handles())


@pytest.fixture
def make_volume(volumes):
    """Make volumes of the session's server; what a container still uses goes with it."""
    def make(handle=None, strategy=EMPTY, parent=None, **spec):
        return Volume(volumes, handle, cow(parent.handle) if parent else strategy, **spec)

    return make


@pytest.fixture
def volume(make_volume):
    """An empty volume."""
    return make_volume()


@pytest.fixture(scope="module", autouse=True)
def nothing_left(request):
    """After each module the machine is as before it; and the server has not died on the way. What a module
    makes for all of its tests must ask for this, so as to go first."""
    if request.module.__name__.endswith(("test_tools", "test_tree")):  # no server there
        yield
        return
    one = request.getfixturevalue("server")
    oracle.learn_cgroup_name(one)
    before = oracle.snapshot(one)
    yield
    one.check()
    oracle.settled(one, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A wait that came to nothing is reported with what everybody was doing instead."""
    outcome = yield
    result = outcome.get_result()
    if call.when == "call" and result.failed and hang.is_hang(result.longreprtext):
        for one in Server.running:
            if one.process.poll() is None:
                result.sections.append(("where everybody is", hang.report(one)))


def pytest_make_parametrize_id(config, val):
    """Long values make ids that nobody can read."""
    if isinstance(val, (str, bytes)) and len(val) > 60:
        return f"{val[:20]!r}...{len(val)}"
    return None
