"""Many clients at once, on the same volumes."""
import os
import threading

import pytest
from archives import Member, contents, encode, tar
from conftest import unique_name
from gardenlib import wait_until
from serverproc import SANITIZED
from volumelib import EMPTY, Refused, cow


def together(works):
    """Run functions at the same moment; the first failure is raised. Their results."""
    barrier, results, failures = threading.Barrier(len(works)), [None] * len(works), []

    def run(n, work):
        barrier.wait()
        try:
            results[n] = work()
        except Exception as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


def test_fifty_copies_of_a_parent_that_is_read(volumes, make_volume):
    parent = make_volume().fill(*[f"file-{n}" for n in range(100)], Member("big", os.urandom(1 << 20)))
    expected = parent.tree()
    handles = [unique_name("copy") for _ in range(15 if SANITIZED else 50)]

    def copy(part):
        for handle in part:
            volumes.make(handle, cow(parent.handle))

    def read():
        for _ in range(2 if SANITIZED else 5):
            assert parent.tree() == expected

    together([*[lambda part=handles[n::5]: copy(part) for n in range(5)], read, read])
    for handle in handles:
        assert volumes.tree(handle) == expected
        volumes.fill(handle, Member("file-0", handle.encode()))
    assert parent.tree() == expected
    assert [volumes.file(handle, "file-0") for handle in handles] == [handle.encode() for handle in handles]
    volumes.destroy_many(handles)


def test_copies_of_a_parent_that_is_written(volumes, make_volume):
    """A stream that runs is in a copy or not, file by file; what had ended before it is."""
    parent = make_volume().fill("before")
    handles = [unique_name("copy") for _ in range(10)]
    upload = volumes.upload(parent.handle, None, "raw")
    archive = tar(*[f"file-{n}" for n in range(50)])
    upload.send(archive[:len(archive) // 2])
    for handle in handles[:5]:
        volumes.make(handle, cow(parent.handle))
    upload.send(archive[len(archive) // 2:])
    assert upload.finish().status == 204
    for handle in handles[5:]:
        volumes.make(handle, cow(parent.handle))
    whole = contents(parent.tree())
    assert len(whole) == 51
    for n, handle in enumerate(handles):
        found = contents(volumes.tree(handle))
        assert found["before"] == b"content of before" and set(found) <= set(whole)
        assert n < 5 or found == whole
    volumes.destroy_many(handles)


@pytest.mark.parametrize("how", ["create", "make"])
def test_the_same_handle_created_by_many(server, volumes, how):
    for _ in range(5):
        handle = unique_name("same")

        def attempt(n, handle=handle):
            try:
                getattr(volumes, how)(handle, EMPTY, properties={"by": str(n)})
                return n
            except Refused as refused:
                assert refused.reply.status == 500, refused
                return None
            except AssertionError:
                return None  # it forgot the future of another one

        results = together([lambda n=n: attempt(n) for n in range(6)])
        winners = [n for n in results if n is not None]
        assert winners and (how == "make" or len(winners) == 1)
        assert volumes.get(handle)["properties"]["by"].isdigit()
        volumes.fill(handle, "file")
        volumes.destroy(handle)
    wait_until(lambda: server.volume_files() == [], "nothing is left")


def test_a_parent_is_destroyed_while_it_is_copied(server, volumes):
    for _ in range(10):
        parent = volumes.make()["handle"]
        volumes.fill(parent, "file")
        handles = [unique_name("child") for _ in range(4)]

        def copy(handle, parent=parent):
            try:
                volumes.make(handle, cow(parent))
            except Refused as refused:
                assert refused.reply.status == 422, refused
                return False
            return True

        made = together([*[lambda h=handle: copy(h) for handle in handles], lambda p=parent: volumes.destroy(p)])[:-1]
        assert sorted(volumes.handles()) == sorted(handle for handle, is_made in zip(handles, made) if is_made)
        for handle in volumes.handles():
            assert contents(volumes.tree(handle)) == {"file": b"content of file"}
        volumes.destroy_many(handles)
    wait_until(lambda: server.volume_files() == [], "nothing is left")


def test_destroyed_by_many(volumes):
    for _ in range(10):
        handle = volumes.make()["handle"]
        replies = together([lambda h=handle: volumes.request("DELETE", f"/volumes/{h}").status for _ in range(5)])
        assert sorted(replies) == [204, 404, 404, 404, 404]


def test_destroy_during_streams_out(server, volumes, make_volume):
    """A stream that has begun ends whole, or is broken off; never in between."""
    data = {f"part-{n}": os.urandom(1 << 20) for n in range(16)}
    for encoding in ("raw", "gzip"):
        one = make_volume().fill(*[Member(*item) for item in data.items()])
        copy = make_volume(parent=one)
        for target in (copy, one):
            with volumes.download(target.handle, encoding=encoding) as stream:
                first = stream.next()
                target.destroy()
                volumes.cleanup()
                try:
                    assert len(first + stream.rest()) > 16 << 20
                except EOFError:
                    pass
        wait_until(lambda: server.volume_files() == [], "its files are gone")


def test_lists_while_volumes_come_and_go(volumes, make_volume):
    """Those that stay are in every list, and nobody is in one twice."""
    lasting = {make_volume().handle for _ in range(30)}
    ended = threading.Event()

    def change(n):
        while not ended.is_set():
            handle = unique_name(f"passing-{n}")
            volumes.make(handle)
            volumes.destroy(handle)

    def look():
        try:
            for _ in range(100):
                handles = volumes.handles()
                assert lasting <= set(handles)
                assert handles == sorted(set(handles))
        finally:
            ended.set()

    together([*[lambda n=n: change(n) for n in range(3)], look])


def test_everything_at_once(server, volumes, make_volume):
    """Copies of copies, streams, flags and destroys, each thread with volumes of its own and one parent for all."""
    parent = make_volume().fill("shared")

    def work(n):
        last = parent.handle
        for step in range(8):
            handle = f"chain-{n}-{step}"
            volumes.make(handle, cow(last))
            reply = volumes.stream_in(handle, encode("gzip", tar(f"own-{n}-{step}")))
            assert reply.status == 204, reply
            volumes.set_privileged(handle, step % 2 == 0)
            expected = {"shared", *[f"own-{n}-{s}" for s in range(step + 1)]}
            assert set(contents(volumes.tree(handle))) == expected
            if step % 3 == 2:
                volumes.destroy(last) if last != parent.handle else None
                assert set(contents(volumes.tree(handle))) == expected
            last = handle

    together([lambda n=n: work(n) for n in range(4)])
    volumes.destroy_many([handle for handle in volumes.handles() if handle.startswith("chain-")])
    assert set(contents(parent.tree())) == {"shared"}


def test_a_handle_that_comes_and_goes(volumes):
    """Whoever looks sees one volume or none, with the content of one moment."""
    handle, ended = unique_name("flicker"), threading.Event()

    def flicker():
        try:
            for n in range(10 if SANITIZED else 30):
                volumes.make(handle, properties={"n": str(n)})
                volumes.fill(handle, Member("n", b"%d" % n))
                volumes.destroy(handle)
        finally:
            ended.set()

    def look():
        while not ended.is_set():
            reply = volumes.request("GET", f"/volumes/{handle}")
            assert reply.status in (200, 404)
            reply = volumes.stream_out(handle, "n")
            assert reply.status in (200, 404), reply

    together([flicker, look, look])


def test_a_chain_longer_than_a_mount_can_name(make_volume, volumes):
    """Copies of copies without end: an overlay has a bound on its layers, a volume has none."""
    last = make_volume().fill("file-0")
    length = 70 if SANITIZED else 140  # 64 is the bound
    for n in range(1, length):
        handle = f"link-{n}"
        volumes.make(handle, cow(last.handle if n == 1 else f"link-{n - 1}"))
        volumes.fill(handle, f"file-{n}")
    final = f"link-{length - 1}"
    assert len(contents(volumes.tree(final))) == length
    assert len(contents(volumes.tree("link-67"))) == 68
    volumes.destroy_many([f"link-{n}" for n in range(1, length - 1)])
    assert len(contents(volumes.tree(final))) == length
    volumes.destroy(final)
