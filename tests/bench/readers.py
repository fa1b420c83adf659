"""The cases of bench.py about several clients of one process: output to more than one reader, and what an idle attach
holds in memory."""
import contextlib
import json
import threading
import time

from client import Connection
from common import PeerFailed, Server, children
from scale import field_kb

MIB = 1 << 20


def attach(garden, process_id, stack):
    """A second client's stdout."""
    control = Connection(garden.address)
    stack.callback(control.close)
    control.send("GET", f"/containers/readers/processes/{process_id}")
    control.head()
    stream = garden.stdout("readers", json.loads(control.until(b"\n")))
    stack.callback(stream.close)
    return stream


def count(stream, ends):
    space, total = memoryview(bytearray(MIB)), len(stream.buffer)
    while got := stream.socket.recv_into(space):
        total += got
    ends.append(total)


def rate(bench, garden, n_readers):
    """MB/s of one stream that so many clients count."""
    n_bytes = bench.plan.output_mib * MIB
    script = f"read x; exec dd if=/dev/zero bs=1M count={bench.plan.output_mib} status=none"
    ends = []
    with contextlib.ExitStack() as stack:
        control, ids = garden.start("readers", "/bin/sh", "-c", script)
        streams = [stack.enter_context(contextlib.closing(garden.stdout("readers", ids)))]
        streams += [attach(garden, ids["process_id"], stack) for _ in range(n_readers - 1)]
        threads = [threading.Thread(target=count, args=(stream, ends)) for stream in streams]
        for thread in threads:
            thread.start()
        begin = time.perf_counter()
        control.socket.sendall(b'{"process_id":"x","source":0,"data":"\\n"}\n')
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begin
        garden.wait(control)
    if ends != [n_bytes] * n_readers:
        raise PeerFailed(f"{ends} bytes came to {n_readers} readers")
    return n_bytes / seconds / 1e6


def idle_attaches(server, n):
    """kB of the server and of the shim for each attach that waits for output."""
    garden, pid = server.garden, server.process.pid
    with contextlib.ExitStack() as stack:
        control, ids = garden.start("readers", "/bin/sleep", "100000")
        stack.callback(control.close)
        shim = max(child for child, name in children(pid) if name == "cloche-shim")
        before = field_kb(pid), field_kb(shim)
        for _ in range(n):
            attach(garden, ids["process_id"], stack)
        after = field_kb(pid), field_kb(shim)
    return [(a - b) / n for a, b in zip(after, before)]


def measure(bench):
    server = Server(bench.opts.program, bench.disk / "readers", bench.disk / "log of readers", "--container-pool", "0")
    bench.servers.append(server)
    bench.stack.callback(bench.end, server)
    server.garden.create("readers")
    for _ in range(bench.plan.n_outputs):
        for n in (1, 2):
            bench.output_rates[f"dd bs=1M, cloche, readers: {n}"].append(rate(bench, server.garden, n))
    bench.attach_kb = dict(zip(("server", "shim"), idle_attaches(server, bench.plan.n_attaches)))
    server.garden.destroy("readers")
