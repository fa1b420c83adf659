"""Issue 5: what clients get, put together, is what the process wrote, while connections are cut at random bytes and the
server is killed."""
import json
import os
import signal

import pytest

from exact import Collector, Follower, Source, start
from live import IS_LONG, nothing_left, probe, randomness, root, server, start_server  # noqa: F401
import oracle
from gardenlib import wait_until
from serverproc import NO_POOL

MIB = 1 << 20
N_BYTES = 1024 * MIB if IS_LONG else 64 * MIB
N_CUTS = 20
N_KILLS = 5


@pytest.fixture
def fresh(start_server, tmp_path, root):  # noqa: F811
    """A server of its own, with a container."""
    one = start_server(*NO_POOL, directory=tmp_path)
    one.client.create("box", rootfs=str(root))
    return one


def interruptions(rng, n_bytes):
    """(offset, what) in order of offsets."""
    events = ["cut_by_fin", "cut_by_rst"] * (N_CUTS // 2) + ["kill"] * N_KILLS
    rng.shuffle(events)
    return sorted((rng.randrange(n_bytes), what) for what in events)


def restart(one):
    one.kill()
    one.start()


def collect(one, collector, events):
    """Follow the process "lines" through everything; its exit status."""
    events = list(events)
    while True:
        follower = Follower(one, "box", "lines")
        while not events or collector.offset < events[0][0]:
            wanted = events[0][0] - collector.offset if events else MIB
            data = follower.read(min(wanted, MIB))
            if not data:
                assert not events, f"the stream ended at {collector.offset}, before {events}"
                return follower.exit_status()
            collector.add(data)
        what = events.pop(0)[1]
        print(f"{what} at {collector.offset}")
        if what == "kill":
            one.kill()
            for data in follower.rest():
                collector.add(data)
            assert follower.exit_status() in (None, 0)  # which may be known before all of the output has come
            one.start()
        else:
            for data in getattr(follower, what)():
                collector.add(data)


@pytest.mark.parametrize("is_tty", [False, True], ids=["pipe", "tty"])
def test_every_byte_comes_once(fresh, is_tty):
    rng = randomness(f"output {is_tty}")
    source = Source((N_BYTES // 8 if is_tty else N_BYTES) // 64, b"\r\n" if is_tty else b"\n")
    collector = Collector(source)
    start(fresh, "box", "lines", "lines", str(source.n_lines), tty=is_tty)
    assert collect(fresh, collector, interruptions(rng, source.n_bytes)) == 0
    assert collector.offset == source.n_bytes
    assert collector.sha256.hexdigest() == source.sha256()
    again = Follower(fresh, "box", "lines")  # the status stays, the bytes were delivered
    assert (b"".join(again.rest()), again.exit_status()) == (b"", 0)


def test_slow_readers_lose_nothing_when_the_server_dies(fresh):
    """With megabytes on their way in the kernel's buffers: what the shim ends must arrive."""
    source = Source(32 * MIB // 64)
    collector = Collector(source)
    start(fresh, "box", "lines", "lines", str(source.n_lines))
    while True:
        follower = Follower(fresh, "box", "lines", buffer_bytes=1 << 18)
        for _ in range(20):
            data = follower.read(65536)
            collector.add(data)
        if collector.offset > 4 * MIB:
            break
        restart(fresh)
        for data in follower.rest():
            collector.add(data)
        assert follower.exit_status() in (None, 0)
    for data in follower.rest():
        collector.add(data)
    assert follower.exit_status() == 0
    assert collector.sha256.hexdigest() == source.sha256()


def test_who_holds_up_a_dead_servers_stream_is_cut_off_for_the_next_one(fresh):
    """A client of before that reads nothing and does not go: the next one waits some seconds, then goes on behind what
    the first has got."""
    source = Source(16 * MIB // 64)
    start(fresh, "box", "lines", "lines", str(source.n_lines))
    stalled = Follower(fresh, "box", "lines", buffer_bytes=65536)
    got = [stalled.read(100)]
    restart(fresh)
    following = Follower(fresh, "box", "lines")
    try:
        got += stalled.rest()
    except ConnectionResetError:
        pass
    collector = Collector(source)
    for data in got:
        collector.add(data)
    assert 0 < collector.offset < source.n_bytes
    for data in following.rest():
        collector.add(data)
    assert following.exit_status() == 0
    assert collector.sha256.hexdigest() == source.sha256()
    stalled.close()


def n_sockets(pid):
    return sum(path.startswith("socket:") for path in oracle.open_paths(pid))


def waits_for_events_only(pid):
    """It lies in poll, which has no end of its own."""
    words = oracle.read(f"/proc/{pid}/syscall").split()
    return len(words) > 3 and words[3] in ("0xffffffff", "0xffffffffffffffff", "0x0")


def test_who_has_said_its_end_and_reads_nothing_wakes_nobody(fresh):
    """A client of a dead server that has closed its half: the shim looks at it when TCP has news, not by the clock, and
    lets go of it once all has come."""
    (shim,) = oracle.shim_pids(fresh, oracle.all_tasks())
    n_before = n_sockets(shim)
    source = Source(16 * MIB // 64)
    start(fresh, "box", "lines", "lines", str(source.n_lines))
    stalled = Follower(fresh, "box", "lines", buffer_bytes=65536)
    collector = Collector(source)
    collector.add(stalled.read(100))
    fresh.kill()
    stalled.stream.half_close()
    stalled.control.close()
    # the server's is gone, the client's stream is there
    wait_until(lambda: waits_for_events_only(shim) and n_sockets(shim) == n_before, "the shim has nothing to do")
    for data in stalled.rest():
        collector.add(data)
    stalled.close()
    wait_until(lambda: n_sockets(shim) < n_before, "the shim has let go of it")
    fresh.start()
    following = Follower(fresh, "box", "lines")
    for data in following.rest():
        collector.add(data)
    assert following.exit_status() == 0
    assert collector.sha256.hexdigest() == source.sha256()


def test_nobody_reads_before_the_shim_has_said_what_was_delivered(fresh):
    """One that hangs says nothing: the attach is refused, and a later one goes on where the first reader was."""
    (shim,) = oracle.shim_pids(fresh, oracle.all_tasks())
    source = Source(16 * MIB // 64)
    start(fresh, "box", "lines", "lines", str(source.n_lines))
    first = Follower(fresh, "box", "lines", buffer_bytes=1 << 18)
    collector = Collector(source)
    collector.add(first.read(100))
    restart(fresh)
    for data in first.rest():
        collector.add(data)
    os.kill(shim, signal.SIGSTOP)
    reply = fresh.client.request("GET", "/containers/box/processes/lines")
    os.kill(shim, signal.SIGCONT)
    assert reply.status >= 500 and "does not answer" in reply.json["Message"], reply
    following = Follower(fresh, "box", "lines")
    for data in following.rest():
        collector.add(data)
    assert following.exit_status() == 0
    assert collector.sha256.hexdigest() == source.sha256()
    first.close()


def test_what_a_client_heard_the_exit_of_is_whole(start_server, tmp_path, root):  # noqa: F811
    """It knows the status and will not come again: the rest of the output comes before the end of its stream, also from
    the shim alone. The ring holds more than the kernel takes."""
    fresh = start_server(*NO_POOL, "--ring-bytes", str(64 * MIB), directory=tmp_path)
    fresh.client.create("box", rootfs=str(root))
    source = Source(32 * MIB // 64)
    start(fresh, "box", "lines", "lines", str(source.n_lines))
    follower = Follower(fresh, "box", "lines", buffer_bytes=65536)
    collector = Collector(source)
    collector.add(follower.read(100))
    assert json.loads(follower.control.take_until(b"\n"))["exit_status"] == 0
    fresh.kill()
    for data in follower.rest():
        collector.add(data)
    assert collector.sha256.hexdigest() == source.sha256()
    follower.close()
    fresh.start()
    again = Follower(fresh, "box", "lines")
    assert (b"".join(again.rest()), again.exit_status()) == (b"", 0)


def test_two_readers_get_the_same_while_both_stay(fresh):
    rng = randomness("two readers")
    source = Source(N_BYTES // 2 // 64)
    start(fresh, "box", "lines", "lines", str(source.n_lines))
    status = None
    begin = 0  # the resume point: the highest offset that any of them has acknowledged
    while status is None:
        pair = [Follower(fresh, "box", "lines", opens=False) for _ in range(2)]
        for follower in pair:
            follower.open()
        collectors = [Collector(source) for _ in pair]
        for collector in collectors:
            collector.offset = begin
        end = begin + rng.randrange(1, source.n_bytes // 3)
        while min(c.offset for c in collectors) < min(end, source.n_bytes):
            behind = collectors[0].offset > collectors[1].offset
            collectors[behind].add(pair[behind].read(rng.randrange(1, MIB)))
        if end < source.n_bytes:
            restart(fresh)
        for follower, collector in zip(pair, collectors):
            for data in follower.rest():
                collector.add(data)
        status = pair[0].exit_status()
        assert pair[1].exit_status() == status
        begin = max(c.offset for c in collectors)
    assert status == 0
    assert [c.offset for c in collectors] == [source.n_bytes] * 2


class Feeder:
    """Sends numbered chunks to a process that acknowledges each, through cuts and kills."""

    def __init__(self, one, rng):
        self.one, self.rng, self.n_syncs, self.acks = one, rng, 0, []
        self.follower = None
        self.n_idle = n_sockets(one.pid)

    def attach(self):
        """The line of a chunk that was cut off ends here, and what was said about it is heard."""
        self.follower = Follower(self.one, "box", "feed")
        self.n_syncs += 1
        self.follower.control.send(self.follower.message(source=0, data=f"\nsync {self.n_syncs}\n"))
        while (line := self.follower.read_line().strip()) != b"sync %d" % self.n_syncs:
            self.note(line)

    def note(self, line):
        if line.startswith(b"ack "):
            assert int(line[4:]) == len(self.acks), (line, self.acks[-3:])
            self.acks.append(int(line[4:]))
        else:
            assert line == b"bad", line

    def chunk(self, number):
        return f"chunk {number} {'x' * self.rng.randrange(1, 3000)} end\n"

    def send(self, number):
        """As often as it takes."""
        while len(self.acks) == number:
            self.follower.control.send(self.follower.message(source=0, data=self.chunk(number)))
            self.note(self.follower.read_line().strip())

    def cut(self, number, how):
        """In the middle of a chunk. A RST ends no stdin."""
        message = self.follower.message(source=0, data=self.chunk(number))
        self.follower.control.send(message[:self.rng.randrange(len(message) - 20)])
        if how == "kill":
            self.one.kill()
        else:
            self.follower.stream.half_close()
        for line in b"".join(self.follower.rest()).split(b"\n")[:-1]:
            self.note(line.strip())
        if how == "kill":
            assert self.follower.exit_status() is None
            self.one.start()
        else:
            self.follower.stream.close()
            self.follower.control.reset()  # after the server's FIN: until then it may not know what we have read
            # two connections have no order: what this one still brings must come before what the next one does
            wait_until(lambda: n_sockets(self.one.pid) <= self.n_idle, "the server is done with both connections")
        self.attach()


def test_every_chunk_of_stdin_comes_once(fresh):
    rng = randomness("stdin")
    n_chunks = 20000 if IS_LONG else 1000
    cuts = rng.sample(range(n_chunks), N_CUTS + N_KILLS)
    feeder = Feeder(fresh, rng)
    start(fresh, "box", "feed", "acknowledge")
    feeder.attach()
    for number in range(n_chunks):
        if number in cuts:
            feeder.cut(number, "kill" if cuts.index(number) < N_KILLS else "rst")
        feeder.send(number)
    feeder.follower.control.send(feeder.follower.message(source=0))
    assert b"".join(feeder.follower.rest()) == b"end %d\n" % n_chunks
    assert feeder.follower.exit_status() == 0
    assert feeder.acks == list(range(n_chunks))
