"""What a server finds when it starts: the same containers, those of another boot, what belongs to nobody."""
import os
import signal
import sqlite3
import threading
import uuid

from live import IS_LONG, nothing_left, probe, randomness, root, server, start_server  # noqa: F401 - first: it makes the modules below known

import oracle
from gardenlib import wait_until
from serverproc import NO_POOL

N_CONTAINERS = 200 if IS_LONG else 24
FAKE_BOOT = ("unshare", "-m", "sh", "-c", 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"')


def each(work, items):
    threads = [threading.Thread(target=lambda part=part: [work(item) for item in part])
               for part in (items[i::4] for i in range(4))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def table(one, name):
    with sqlite3.connect(one.work / "state.db") as database:
        return database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]


def test_many_containers_with_networks_come_back_as_they_were(start_server, tmp_path):  # noqa: F811
    rng = randomness("many")
    one = start_server(*NO_POOL, directory=tmp_path, pool=512)
    handles = [f"box-{i}" for i in range(N_CONTAINERS)]

    def make(handle):
        one.client.create(handle)
        one.client.run(handle, {"id": "asks", "path": "/bin/sh", "args": ["-c", "read x; echo $x; exit 7"]}).vanish()

    each(make, handles)
    shims = oracle.shim_pids(one, oracle.all_tasks())  # while they are the server's children
    infos = {handle: one.client.info(handle) for handle in handles}
    assert len({info["ContainerIP"] for info in infos.values()}) == N_CONTAINERS
    for _ in range(2):
        one.kill()
        one.start()
        assert sorted(one.client.handles()) == sorted(handles)
        assert {handle: one.client.info(handle) for handle in handles} == infos
    dying = rng.sample(sorted(shims), N_CONTAINERS // 8)
    one.kill()
    for pid in dying:
        os.kill(pid, signal.SIGKILL)
    one.start()
    assert len(one.client.handles()) == N_CONTAINERS - len(dying)
    each(lambda handle: check_asks(one, handle), one.client.handles())


def check_asks(one, handle):
    process = one.client.attach(handle, "asks")
    process.stdin("answer\n")
    assert (process.wait(), process.stdout) == (7, b"answer\n")


def test_4_44_after_another_boot_only_volumes_are_left(start_server, tmp_path):  # noqa: F811
    """The processes of the boot before are gone, and the kernel says another id."""
    one = start_server(*NO_POOL, directory=tmp_path)
    one.volumes.make("kept")
    for i in range(8):
        one.client.create(f"box-{i}")
        one.client.sh(f"box-{i}", "echo upper > /tmp/file")
    shims = oracle.shim_pids(one, oracle.all_tasks())
    one.kill()
    for pid in shims:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(shims) & oracle.all_tasks().keys(), "the shims are gone")
    boot_id = tmp_path / "boot-id"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    one.prefix = (*FAKE_BOOT, boot_id)
    one.start()
    assert one.client.handles("garden.state=all") == []
    assert one.volumes.handles() == ["kept"]
    for name in ("run", "containers/live", "containers/dead"):
        wait_until(lambda: not os.listdir(one.work / name), f"{name} empty")
    assert [table(one, name) for name in ("containers", "addresses", "ports")] == [0, 0, 0]
    assert one.client.create("box-0") == "box-0"
    assert one.client.output("box-0", "ls /tmp") == ""


def test_4_26_a_small_pool_is_recomputed_from_what_there_is(start_server, tmp_path):  # noqa: F811
    """As many containers as the pool of ids has: one more is refused, also after kill -9; one less, and there is room."""
    one = start_server(*NO_POOL, directory=tmp_path, pool=4)
    for i in range(4):
        one.client.create(f"box-{i}")
    for _ in range(2):
        reply = one.client.request("POST", "/containers", {"handle": "one-more"})
        assert reply.status in (500, 503) and reply.json["Message"], reply
        one.kill()
        one.start()
    assert sorted(one.client.handles()) == [f"box-{i}" for i in range(4)]
    one.client.destroy("box-2")
    wait_until(lambda: one.client.request("POST", "/containers", {"handle": "one-more"}).status == 200, "room again")
