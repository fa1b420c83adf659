"""4.17: calls that are interrupted, and transfers of one byte, of the server, shims, inits and helpers. The same bytes, and
the same answers."""
import hashlib
import json
import random
import socket
import threading

import pytest
from crashlib import LONG, SEED, injected, sample, shims_and_inits  # first: it finds the tests of the API
import oracle
import scenarios
from archives import Member, contents, encode, tar, untar
from conftest import nothing_left, server  # noqa: F401
from gardenlib import Connection, request_bytes
from victims import victim, victims  # noqa: F401

TRANSFERS = "read,write,readv,writev,sendto,recvfrom,sendmsg,splice,copy_file_range"
WAITS = "recvmsg,accept4,poll,ppoll,epoll_wait,epoll_pwait,wait4,waitid"
FAULTS = {"interrupted": ("2+3", "EINTR", f"{TRANSFERS},{WAITS}"), "short": ("1+2", "short", TRANSFERS)}
NAMES = [scenario.__name__ for scenario in scenarios.ALL]
N_BYTES = 2_000_000 if LONG else 300_000


@pytest.fixture(params=FAULTS)
def troubled(request, victim):  # noqa: F811
    """From its call on everything that the server, its shims and their inits do, and what they start."""
    n, action, calls = FAULTS[request.param]
    hits = []

    def trouble(act, *args):
        with injected(n, action, [victim.pid, *shims_and_inits(victim)], calls=calls, of_family=True) as injector:
            result = act(*args)
        hits.extend(injector.hits)
        return result

    yield trouble
    assert hits, "nothing was in its way"
    print(f"{len(hits)}: {sorted(set(hits))}")
    victim.check()
    oracle.settled(victim, victim.before)


@pytest.mark.parametrize("name", NAMES if LONG else sample("interrupted", NAMES, 6))
def test_4_17_each_operation(victim, troubled, name):  # noqa: F811
    scenario = getattr(scenarios, name)()
    scenario.before(victim)
    troubled(scenario.act, victim)
    troubled(scenario.after, victim)


def noise(n_bytes):
    return random.Random(SEED).randbytes(n_bytes)


def text(n_bytes):
    """Without what a terminal would take for more than itself."""
    return noise(n_bytes // 2).hex().encode()


def digest(data):
    return len(data), hashlib.sha256(data).hexdigest()


class Narrow:
    """A client whose window is small, so that what is sent to it goes in pieces."""

    def __init__(self, client):
        self.client = client

    def stream(self, process, name):
        conn = Connection(self.client.address)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        conn.send(request_bytes("GET", process.stream_path(name)))
        assert conn.head()[0] == 200
        data = conn.rest()
        assert conn.ended == "FIN"
        return data


def feed(process, data):
    for at in range(0, len(data), 4000):
        process.stdin(data[at:at + 4000].decode())
    process.end_stdin()


def through(one, spec, data):
    """A process's status, what it says of data, and on standard error."""
    process = one.client.run("box", spec, streams=())
    found = {}
    narrow = Narrow(one.client)
    readers = [threading.Thread(target=lambda name=name: found.update({name: narrow.stream(process, name)}))
               for name in ("stdout", "stderr")]
    for thread in readers:
        thread.start()
    feed(process, data)
    for thread in readers:
        thread.join()
    return process.wait_exit_line(), found["stdout"], found["stderr"]


def test_4_17_streams_of_a_process(victim, troubled):  # noqa: F811
    data = text(N_BYTES)
    victim.client.create("box")
    script = {"path": "/bin/sh", "args": ["-c", "tee /dev/stderr; exit 5"]}
    status, out, err = troubled(through, victim, script, data)
    assert (status, digest(out), digest(err)) == (5, digest(data), digest(data))
    victim.client.destroy("box")


def test_4_17_a_terminal(victim, troubled):  # noqa: F811
    """Lines both ways, without echo."""
    lines = b"".join(text(70) + b"\n" for _ in range(N_BYTES // 71))
    victim.client.create("box")

    def talk():
        process = victim.client.run("box", {"path": "/bin/sh", "args": ["-c", "stty raw -echo; echo begun; head -c "
                                    f"{len(lines)}; exit 6"], "tty": {}})
        process.wait_output(b"begun\n")
        for at in range(0, len(lines), 4000):
            process.stdin(lines[at:at + 4000].decode())
        return process.wait(), process.stdout

    status, out = troubled(talk)
    assert (status, digest(out)) == (6, digest(b"begun\n" + lines))
    victim.client.destroy("box")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "zstd"])
def test_4_17_streams_of_a_volume(victim, troubled, encoding):  # noqa: F811
    files = {f"file{i}": noise(N_BYTES // (i + 1)) for i in range(3)}
    archive = tar(*(Member(name, content) for name, content in files.items()))
    victim.volumes.make("v")

    def there_and_back():
        reply = victim.volumes.stream_in("v", encode(encoding, archive), encoding=encoding)
        assert reply.status == 204, reply
        return victim.volumes.tree("v", encoding=encoding)

    assert contents(troubled(there_and_back)) == files
    victim.volumes.destroy("v")


def test_4_17_files_of_a_container(victim, troubled):  # noqa: F811
    content = noise(N_BYTES)
    victim.client.create("box")

    def there_and_back():
        assert victim.client.stream_in("box", tar(Member("file", content)), "/tmp").status == 200
        return victim.client.stream_out("box", "/tmp/file").body

    assert contents(untar(troubled(there_and_back))) == {"file": content}
    victim.client.destroy("box")


def test_4_17_long_answers(victim, troubled):  # noqa: F811
    value = "v" * 100_000
    victim.client.create("box", properties={"long": value})

    def ask():
        return [victim.client.ok("GET", path) for path in
                ("/containers/box/properties", "/containers/bulk_info?handles=box", "/containers?long=" + value[:50_000])]

    properties, infos, found = troubled(ask)
    assert properties["long"] == value
    assert json.dumps(infos).count(value) == 1
    assert found == {"Handles": []}
    victim.client.destroy("box")
