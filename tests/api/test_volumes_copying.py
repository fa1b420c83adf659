"""While a volume is being copied file by file: whoever reads or destroys it does not wait, and what is written to it
comes after the copy."""
import threading

import pytest
from archives import Member, contents
from conftest import Container
from gardenlib import wait_until
from volumelib import EMPTY, HeldImport, cow, imported

MEMBERS = [Member(f"f{n:04}", b"%d" % n) for n in range(4000)]
WHOLE = {member.name: member.data for member in MEMBERS}


@pytest.fixture
def copying(start_server, tmp_path):
    """A server whose copy of "parent" does not go on before .held.end()."""
    server = start_server("--baggageclaim-driver", "copy", directory=tmp_path)
    server.volumes.make("parent", properties={"is": "copied"})
    server.volumes.fill("parent", *MEMBERS)
    with HeldImport(tmp_path / "unused.tgz") as server.held:
        assert server.volumes.start("copy", cow("parent")).status == 201
        server.held.hold(server)
        assert not server.volumes.exists("copy"), "it was too fast"
        yield server


def finish(server):
    server.held.end()
    assert server.volumes.poll_until_done("copy").status == 200
    assert contents(server.volumes.tree("copy")) == WHOLE
    server.volumes.forget("copy")


def test_it_can_be_read_and_copied_again(copying):
    volumes = copying.volumes
    assert contents(volumes.tree("parent")) == WHOLE
    assert volumes.file("parent", "f0007") == b"7"
    volumes.make("other", imported(volumes.get("parent")["path"]))
    assert contents(volumes.tree("other")) == WHOLE
    box = Container(copying, bind_mounts=[{"src_path": volumes.get("parent")["path"], "dst_path": "/v", "mode": 0}])
    assert box.output("cat /v/f0007") == "7"
    finish(copying)


def test_it_can_be_destroyed(copying):
    volumes = copying.volumes
    volumes.destroy("parent")
    assert not volumes.exists("parent")
    volumes.make("parent", EMPTY)
    finish(copying)
    assert contents(volumes.tree("parent")) == {}


@pytest.mark.parametrize("who", ["stream", "container"])
def test_whoever_writes_comes_after(copying, who):
    volumes, answers = copying.volumes, []

    def write():
        if who == "stream":
            volumes.fill("parent", "zz")
        else:
            mount = {"src_path": volumes.get("parent")["path"], "dst_path": "/v", "mode": 1}
            Container(copying, bind_mounts=[mount]).output("echo -n content of zz >/v/zz")
        answers.append("written")

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(3):
        assert "zz" not in volumes.tree("parent") and not answers
    finish(copying)
    thread.join()
    assert answers and contents(volumes.tree("parent")) == WHOLE | {"zz": b"content of zz"}


def test_a_kill_while_it_is_copied(copying):
    copying.kill()
    copying.held.end()
    copying.start()
    assert copying.volumes.handles() == ["parent"] and contents(copying.volumes.tree("parent")) == WHOLE
    copying.volumes.forget("copy")
    wait_until(lambda: len(copying.volume_files()) == 1, "nothing left of the copy")
    copying.volumes.make("copy", cow("parent"))
    assert contents(copying.volumes.tree("copy")) == WHOLE
