"""The output cases of bench.py: how fast it comes, and whether all of it does when its reader is slow, late or away."""
import collections
import contextlib
import functools
import time

from common import Candidate, PeerFailed, rounds
from containers import remove
from peers import bare_relay, unpack

MIB = 1 << 20
PROGRAMS = {
    "head -c": ("/bin/head", "-c", "{}", "/dev/zero"),
    "dd bs=1M": ("/bin/dd", "if=/dev/zero", "bs=1M", "count={}", "status=none"),
}


def program(name, n_mib):
    """Its words, and how many bytes come: fewer of the slow one."""
    n_mib = n_mib if name.startswith("dd") else n_mib // 4
    number = str(n_mib if name.startswith("dd") else n_mib * MIB)
    return [word.format(number) for word in PROGRAMS[name]], n_mib * MIB


def count(connection, early, want):
    """Reads a socket to its end, looking at nothing. Returns MB/s; `early` bytes came before."""
    space, total = memoryview(bytearray(MIB)), early
    begin = time.perf_counter()
    while got := connection.recv_into(space):
        total += got
    seconds = time.perf_counter() - begin
    if total != want:
        raise PeerFailed(f"{total} bytes of output came instead of {want}")
    return total / seconds / 1e6


def through_server(bench, target):
    for name in PROGRAMS:
        (path, *args), want = program(name, bench.plan.output_mib)
        process, ids = target.garden.start("output", path, *args)
        with contextlib.closing(target.garden.stdout("output", ids)) as stream:
            rate = count(stream.socket, len(stream.buffer), want)
        bench.output_rates[f"{name}, {target.name}"].append(rate)
        target.garden.wait(process)


def bare(bench, tree):
    for name in PROGRAMS:
        (path, *args), want = program(name, bench.plan.output_mib)
        with bare_relay([tree / path[1:], *args]) as client:
            bench.output_rates[f"{name}, bare pipe to TCP"].append(count(client, 0, want))


def boxes(bench, what):
    """Who has made a container for this."""
    for target in bench.usable():
        if target.is_null:
            continue
        with bench.part(target, what):
            target.garden.create("output", **({"rootfs": target.rootfs} if target.rootfs else {}))
            bench.stack.callback(remove, target, "output")
            yield target


def throughput(bench):
    tree = unpack(bench.opts.root, bench.disk / "tree of the relay", 0, bench.is_root)
    targets = list(boxes(bench, "output"))
    candidates = [Candidate(t.name, functools.partial(through_server, bench, t)) for t in targets]
    candidates.append(Candidate("bare pipe to TCP", functools.partial(bare, bench, tree)))
    rounds(bench.plan.n_outputs, 0, candidates, bench.remarks, "output")
    for target in targets:
        remove(target, "output")


# ---- loss

def lines(first, last):
    return b"".join(b"%d\n" % i for i in range(first, last + 1))


def read_all(connection):
    """To its end."""
    parts = [connection.buffer]
    while got := connection.socket.recv(MIB):
        parts.append(got)
    return b"".join(parts)


def stalling(garden, n):
    """A reader that does nothing for a second, then reads all."""
    process, ids = garden.start("output", "/bin/seq", "1", str(n))
    with contextlib.closing(garden.stdout("output", ids)) as stream:
        time.sleep(1)
        got = read_all(stream)
    garden.wait(process)
    return got


def late(garden, n):
    """One that comes when the process has been writing for a while."""
    process, ids = garden.start("output", "/bin/seq", "1", str(n))
    time.sleep(0.5)
    with contextlib.closing(garden.stdout("output", ids)) as stream:
        got = read_all(stream)
    garden.wait(process)
    return got


def vanishing(garden, n):
    """One that reads half, whose connections then end, and that comes back when the rest was written. It has read all
    that was sent to it; the end of its stdin is what lets the process go on."""
    script = f"seq 1 {n // 2}; read x; seq {n // 2 + 1} {n}"
    process, ids = garden.start("output", "/bin/sh", "-c", script)
    half = len(lines(1, n // 2))
    with contextlib.closing(garden.stdout("output", ids)) as stream:
        got = stream.buffer
        while len(got) < half and (more := stream.socket.recv(MIB)):
            got += more
    process.close()
    time.sleep(0.5)
    control = garden.connect()
    control.send("GET", f"/containers/output/processes/{ids['process_id']}")
    control.head()
    again = garden.line(control)
    with contextlib.closing(garden.stdout("output", again)) as stream:
        got += read_all(stream)
    control.close()
    return got


READERS = {"stalls for 1 s": stalling, "comes 0.5 s late": late, "is away while half is written": vanishing}


def lost(got, want):
    """Bytes that did not come, and whether what came is right otherwise."""
    missing = len(want) - len(got)
    if missing < 0 or (missing == 0 and got != want):
        raise PeerFailed(f"the output is not what was written: {len(got)} bytes instead of {len(want)}")
    return missing


def one_loss(bench, target, want):
    for name, reader in READERS.items():
        bench.losses[name, target.name].append(lost(reader(target.garden, bench.plan.n_lines), want))


def loss(bench):
    bench.losses = collections.defaultdict(list)
    want = lines(1, bench.plan.n_lines)
    bench.loss_bytes = len(want)
    targets = list(boxes(bench, "loss"))
    rounds(bench.plan.n_losses, 0, [Candidate(t.name, functools.partial(one_loss, bench, t, want)) for t in targets],
           bench.remarks, "loss")
    for target in targets:
        remove(target, "output")
