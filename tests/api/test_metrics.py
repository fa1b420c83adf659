"""What containers use: lines 94, 95 of garden.md, rows 1.6 and 2.3."""
import os

import pytest

from conftest import Container
from gardenlib import wait_until
from test_limits import MIB, V1, limits
from test_wire import assert_error

BUSY = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null"
EMPTY_ERROR = {"Type": "", "Handle": "", "ProcessID": "", "Binary": ""}


def metrics(box):
    return box.client.ok("GET", f"{box.path}/metrics")


def bulk(client, *handles):
    return client.ok("GET", "/containers/bulk_metrics?handles=" + ",".join(handles))


def assert_busy(found):
    memory = found["MemoryStat"]
    assert memory["TotalUsageTowardLimit"] > 8 * MIB
    assert memory["total_cache" if V1 else "file"] >= 8 * MIB
    assert found["CPUStat"]["Usage"] > 1000000
    assert found["PidStat"]["Current"] == 2 and found["Age"] > 0


def test_line_95_a_busy_container(make_container):
    box = make_container(limits=limits(memory=256 * MIB, pids=50))
    process = box.run(BUSY + "; echo done; read x")
    process.wait_output(b"done\n")
    assert_busy(metrics(box))
    entries = bulk(box.client, box.handle)
    assert entries[box.handle]["Err"] is None
    assert_busy(entries[box.handle]["Metrics"])
    process.end_stdin()
    process.wait()


def test_shape(make_container):
    box = make_container(limits=limits(memory=64 * MIB, pids=50))
    found = metrics(box)
    assert found.keys() == {"MemoryStat", "CPUStat", "DiskStat", "NetworkStat", "PidStat", "Age", "CPUEntitlement"}
    assert len(found["MemoryStat"]) == 32
    assert found["MemoryStat"]["hierarchical_memory_limit"] == 64 * MIB
    assert found["PidStat"]["Max"] == 50
    wait_until(lambda: metrics(box)["PidStat"]["Current"] == 1, "its builder is gone")


def test_line_88_no_limit_of_pids_is_zero(container):
    wait_until(lambda: metrics(container)["PidStat"] == {"Current": 1, "Max": 0}, "its builder is gone")


def test_bulk_with_an_unknown_handle(client, container):
    entries = bulk(client, container.handle, "nobody", "", "a b")
    assert entries.keys() == {container.handle, "nobody", "a b"}
    assert entries[container.handle]["Err"] is None
    assert entries["nobody"]["Err"] == {**EMPTY_ERROR, "Message": "unknown handle: nobody"}
    assert entries["nobody"]["Metrics"]["PidStat"] == {"Current": 0, "Max": 0}
    assert set(entries["nobody"]["Metrics"]["MemoryStat"].values()) == {0}
    assert bulk(client) == {}
    assert_error(client.request("GET", "/containers/bulk_metrics"), 500)


def test_line_94_disk(make_container):
    box = make_container()
    before = metrics(box)["DiskStat"]
    box.output("dd if=/dev/zero of=/root/x bs=1M count=13 2>/dev/null || dd if=/dev/zero of=/x bs=1M count=13; sync")

    def grown():
        after = metrics(box)["DiskStat"]
        return all(12 * MIB <= after[name] - before[name] <= 14 * MIB for name in ("TotalBytesUsed", "ExclusiveBytesUsed"))

    wait_until(grown, "both grew by 13 MiB")
    after = metrics(box)["DiskStat"]
    image = before["TotalBytesUsed"] - before["ExclusiveBytesUsed"]
    assert image > 500000, "the image counts in the total"
    assert after["TotalBytesUsed"] - after["ExclusiveBytesUsed"] == image
    assert after["TotalInodesUsed"] > after["ExclusiveInodesUsed"] > 0


def test_disk_of_many_names_and_deep_trees(make_container):
    """More than the server walks itself: a helper counts."""
    box = make_container()
    box.output("mkdir /many; cd /many; seq 1 20500 | xargs touch; dd if=/dev/zero of=x bs=1M count=5 2>/dev/null; sync")
    wait_until(lambda: metrics(box)["DiskStat"]["ExclusiveInodesUsed"] > 20500, "all names are counted")
    other = make_container()
    other.output("cd /; for i in $(seq 1 80); do mkdir d; cd d; done; dd if=/dev/zero of=x bs=1M count=5 2>/dev/null; sync")
    wait_until(lambda: metrics(other)["DiskStat"]["ExclusiveBytesUsed"] >= 5 * MIB, "what lies deep is counted")


def test_disk_of_a_root_that_is_a_volume(make_container, make_volume, root):
    parent = make_volume(strategy={"type": "import", "path": str(root)})
    volume = make_volume(parent=parent)
    box = make_container(rootfs=f"raw://{volume.path}")
    found = metrics(box)["DiskStat"]
    assert found["TotalBytesUsed"] == found["ExclusiveBytesUsed"] > 500000
    box.output("dd if=/dev/zero of=/x bs=1M count=5 2>/dev/null; sync")
    wait_until(lambda: metrics(box)["DiskStat"]["TotalBytesUsed"] - found["TotalBytesUsed"] >= 5 * MIB, "it grew")


@pytest.mark.parametrize("shares", [None, 512])
def test_entitlement(start_server, shares):
    server = start_server("--cpu-entitlement-per-share", "0.5")
    box = Container(server, limits=limits(limit_in_shares=shares) if shares else {})
    found = metrics(box)
    assert found["CPUEntitlement"] == pytest.approx((shares or 1024) * 0.005 * found["Age"], rel=1e-6)


def test_entitlement_by_the_size_of_the_machine(make_container):
    box = make_container(limits=limits(limit_in_shares=50))
    found = metrics(box)
    memory_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MIB
    assert found["CPUEntitlement"] == pytest.approx(50 * os.cpu_count() / memory_mib * found["Age"], rel=0.02)


def test_numbers_go_on_after_a_restart(start_server):
    server = start_server()
    box = Container(server, limits=limits(memory=256 * MIB))
    process = box.run(BUSY + "; echo done; read x")
    process.wait_output(b"done\n")
    before = metrics(box)
    server.kill()
    server.start()
    box.client = server.client
    after = metrics(box)
    assert after["Age"] > before["Age"]
    assert after["CPUStat"]["Usage"] >= before["CPUStat"]["Usage"]
    image = [found["DiskStat"]["TotalBytesUsed"] - found["DiskStat"]["ExclusiveBytesUsed"] for found in (before, after)]
    assert image[0] == image[1] > 0
    process.vanish()


def test_unknown_handle(client):
    assert client.request("GET", "/containers/nobody/metrics").json["Type"] == "ContainerNotFoundError"
