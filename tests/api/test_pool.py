"""The pool of unborn containers: what is prepared ahead of requests is seen by nobody, costs nobody a place, and goes
with the server, whatever ends it or them."""
import os
import subprocess

import oracle
import pytest
from gardenlib import wait_until
from serverproc import NO_POOL

SIZE = 2


@pytest.fixture
def pooled(start_server, tmp_path):
    server = start_server("--container-pool", str(SIZE), directory=tmp_path)
    wait_full(server)
    return server


def wait_full(server, n=SIZE):
    """So many are recorded, and have a shim, a builder that waits for the request, and an init each."""
    def is_full():
        names = sorted(task.name for task in oracle.family(server).values())
        return oracle.waiting_builders(server) == n == len(oracle.unborn(server)) and names == ["cloche", *2 * n * ["cloche-shim"], *n * ["garden-init"]]

    wait_until(is_full, f"{n} containers are ready")


def names(server, kind):
    return {pid for pid, task in oracle.family(server).items() if task.name == kind}


def assert_nothing_left(server):
    work = server.directory / "work"
    for name in ("run", "containers/live"):  # what lies in dead/ is deleted sometime
        wait_until(lambda: not os.listdir(work / name), f"{name} empty")
    assert oracle.id_ranges(server) == []
    assert not oracle.cgroup_directories(server)


def test_a_create_takes_one_and_another_is_made(pooled):
    ready = set(oracle.unborn(pooled))
    inits = names(pooled, "garden-init")
    pooled.client.create("box")
    assert pooled.client.sh("box", "exit 3")[0] == 3
    left = ready & set(oracle.unborn(pooled))
    assert len(left) == SIZE - 1
    assert oracle.container_init(pooled, "box") in inits
    wait_until(lambda: len(oracle.unborn(pooled)) == SIZE, "the pool is full again")
    pooled.client.destroy("box")
    wait_full(pooled)


def test_nobody_sees_them(pooled):
    assert pooled.client.handles() == [] == pooled.client.handles("garden.state=all")
    for name in oracle.unborn(pooled):
        for handle in (name, f"unborn%2F{name}"):
            assert pooled.client.request("GET", f"/containers/{handle}/info").status == 404
            assert pooled.client.request("DELETE", f"/containers/{handle}").status == 404
    wait_full(pooled)


def test_they_count_in_no_limit(start_server, tmp_path):
    """Neither in the number of containers nor in that of id ranges, when those run short."""
    server = start_server("--container-pool", "4", "--max-containers", "3", directory=tmp_path, pool=3)
    wait_until(lambda: len(oracle.unborn(server)) == 3, "every range is in the pool")
    for name in "abc":
        server.client.create(name)
    assert "max containers reached" in server.client.request("POST", "/containers", {"handle": "d"}).json["Message"]
    server.client.destroy("a")
    server.client.create("d")
    assert server.client.sh("d", "exit 4")[0] == 4


def test_without_a_pool_nothing_is_prepared(start_server, tmp_path):
    server = start_server(*NO_POOL, directory=tmp_path)
    server.client.create("box")
    server.client.destroy("box")
    assert oracle.unborn(server) == [] and len(names(server, "cloche-shim")) == 0


def test_a_privileged_container_is_made_on_the_spot(pooled):
    ready = set(oracle.unborn(pooled))
    pooled.client.create("box", privileged=True)
    assert set(oracle.unborn(pooled)) == ready
    assert pooled.client.output("box", "cat /proc/self/uid_map").split() == ["0", "0", "4294967295"]


def test_a_failed_create_costs_one_and_leaves_nothing(pooled):
    before = oracle.snapshot(pooled)
    reply = pooled.client.request("POST", "/containers", {"handle": "box", "bind_mounts": [
        {"src_path": "/proc/version", "dst_path": "/proc/version"}]})
    assert reply.status == 500 and "bind" in reply.json["Message"], reply
    oracle.settled(pooled, before)
    pooled.client.create("box")


@pytest.mark.parametrize("kind", ["cloche-shim", "garden-init"])
def test_one_that_has_died_is_not_given_away(pooled, kind):
    oracle.kill_all(names(pooled, kind))
    wait_until(lambda: not names(pooled, "garden-init"), "no init is left")
    for name in ("a", "b"):
        pooled.client.create(name)
        assert pooled.client.sh(name, "exit 5")[0] == 5
        pooled.client.destroy(name)
    wait_full(pooled)


def test_the_server_takes_them_along(pooled):
    oracle.learn_cgroup_name(pooled)
    wait_full(pooled)
    pooled.terminate()
    assert_nothing_left(pooled)
    pooled.start()
    wait_full(pooled)


def test_a_killed_server_leaves_them_to_the_next(pooled):
    """Their shims end with it; the record tells the next start what there was."""
    oracle.learn_cgroup_name(pooled)
    wait_full(pooled)
    before = set(oracle.unborn(pooled))
    pooled.client.create("box")
    pooled.kill()
    pooled.start()
    wait_until(lambda: len(oracle.unborn(pooled)) == SIZE, "the pool is full")
    assert not before & set(oracle.unborn(pooled))
    assert pooled.client.handles() == ["box"] and pooled.client.sh("box", "exit 6")[0] == 6
    pooled.client.destroy("box")
    wait_full(pooled)
    pooled.kill()
    pooled.args = NO_POOL
    pooled.start()
    assert_nothing_left(pooled)


def test_a_kernel_that_cannot_prepare_them(start_server, deny, root, tmp_path):
    """A create says why; the pool stays empty and nothing is left."""
    server = start_server("--container-pool", str(SIZE), prefix=(deny, "unshare", "EPERM"), directory=tmp_path)
    for _ in range(3):
        reply = server.client.request("POST", "/containers", {"handle": "box", "rootfs": str(root)})
        assert reply.status == 500 and "unshare" in reply.json["Message"], reply
    assert any(line["message"] == "cloche.unborn-container-not-made" for line in server.log_lines())
    wait_full(server, 0)
    assert_nothing_left(server)


def test_what_the_host_mounts_later_is_seen(pooled, tmp_path):
    """The builder of an unborn container has its own copy of the host's mounts, from before."""
    source = tmp_path / "later"
    source.mkdir()
    tmp_path.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "later", source], check=True)
    try:
        (source / "file").write_text("mounted later")
        pooled.client.create("box", bind_mounts=[{"src_path": str(tmp_path), "dst_path": "/seen", "mode": 1}])
        assert pooled.client.output("box", "cat /seen/later/file") == "mounted later"
        pooled.client.destroy("box")
    finally:
        subprocess.run(["umount", source], check=True)


def test_they_keep_no_address_from_anybody(start_server, tmp_path):
    """Not from privileged containers either, which cannot be made of them."""
    server = start_server("--container-pool", "4", "--network-pool", "10.77.0.0/28", directory=tmp_path)
    wait_full(server, 4)
    for n in range(4):
        server.client.create(f"box-{n}", privileged=n % 2 == 0)
    assert len({server.client.info(f"box-{n}")["ContainerIP"] for n in range(4)} - {""}) == 4
    reply = server.client.request("POST", "/containers", {"handle": "one-more"})
    assert reply.json["Message"] == "insufficient subnets remaining in the pool"
