"""One operation each, and what must be so after it was cut off anywhere: the object is absent or whole, and the handle
usable. `before` makes what it needs, `act` is the operation, `after` looks, and leaves the server as it was."""
import contextlib

from archives import Member, contents, directory, tar
from crashlib import REFUSED
from gardenlib import Hijacked, wait_until
from volumelib import cow, imported

BASE = "base"  # a volume that is always there
WAITS = "echo begun; read x; echo got $x; exit 7"
MARKS = "echo mark >>/marks; " + WAITS


def bind_of(server, handle, path="/volume"):
    return {"src_path": server.volumes.get(handle)["path"], "dst_path": path, "mode": 1}


def check_container(server, handle):
    """It runs what it is told to."""
    assert server.client.output(handle, "echo usable") == "usable\n"


def is_dead(server, handle):
    """Its shim or init was hit: it says so, to everybody."""
    try:
        check_container(server, handle)
        return False
    except REFUSED as failure:
        assert "dead" in str(failure) or "137" in str(failure), failure
        return True


class Scenario:
    survives = True  # the container that it needs, a server that is hit

    def before(self, server):
        server.client.create("box")

    def after(self, server):
        assert server.client.handles("garden.state=all") == ["box"]
        self.look(server)
        check_container(server, "box")
        server.client.destroy("box")

    def look(self, server):
        pass

    def after_loss(self, server):
        """A shim, an init or a helper was hit, and not the server."""
        for handle in server.client.handles("garden.state=all"):
            is_dead(server, handle)
            server.client.destroy(handle)
        server.client.create("box", bind_mounts=[bind_of(server, BASE)])
        check_container(server, "box")
        server.client.destroy("box")
        assert contents(server.volumes.tree(BASE)) == {"file": b"content of file"}


class Create(Scenario):
    privileged = False

    def before(self, server):
        pass

    def act(self, server):
        server.client.create("box", properties={"key": "value"}, env=["A=b"], grace_time=3_600_000_000_000,
                             limits={"memory_limits": {"limit_in_bytes": 1 << 30}, "pid_limits": {"max": 500}},
                             bind_mounts=[bind_of(server, BASE)], privileged=self.privileged,
                             netin=[{"host_port": 0, "container_port": 80}])

    def after(self, server):
        handles = server.client.handles("garden.state=all")
        if not handles:
            self.act(server)
        assert server.client.handles() == ["box"]
        assert server.client.ok("GET", "/containers/box/properties")["key"] == "value"
        assert server.client.output("box", "echo $A; cat /volume/file") == "b\ncontent of file"
        assert len(server.client.info("box")["MappedPorts"] or []) == 1
        server.client.destroy("box")


class CreatePrivileged(Create):
    privileged = True


class Run(Scenario):
    image = {}

    def act(self, server):
        process = server.client.run("box", {"id": "p", "path": "/bin/sh", "args": ["-c", MARKS], **self.image})
        process.wait_output(b"begun\n")
        process.vanish()  # its stdin would end with a FIN

    def n_marks(self, server):
        return server.client.sh("box", "cat /marks")[1].count(b"mark\n")

    def look(self, server):
        try:
            process = server.client.attach("box", "p")
        except Hijacked as refusal:
            assert refusal.reply.status == 404, refusal
            assert self.n_marks(server) == 0, "it ran, and nobody knows it"
            process = server.client.run("box", {"id": "p", "path": "/bin/sh", "args": ["-c", MARKS], **self.image})
        process.stdin("word\n")
        assert process.wait() == 7
        assert process.stdout.endswith(b"got word\n")
        assert self.image or self.n_marks(server) == 1


class RunImage(Run):
    """A process with a root of its own."""

    def before(self, server):
        super().before(server)
        self.image = {"image": {"uri": server.default_rootfs}, "bind_mounts": [bind_of(server, BASE)]}


class Attach(Scenario):
    def before(self, server):
        super().before(server)
        process = server.client.run("box", {"id": "p", "path": "/bin/sh", "args": ["-c", WAITS]})
        process.wait_output(b"begun\n")
        process.vanish()  # its stdin would end with a FIN

    def act(self, server):
        process = server.client.attach("box", "p")
        process.stdin("word\n")
        assert process.wait() == 7

    def look(self, server):
        process = server.client.attach("box", "p")
        with contextlib.suppress(OSError):
            process.stdin("word\n")
        assert process.wait() == 7


class Stop(Attach):
    kill = True

    def act(self, server):
        server.client.stop("box", kill=self.kill)

    def look(self, server):
        server.client.stop("box", kill=self.kill)
        assert server.client.attach("box", "p").wait() == (137 if self.kill else 143)


class StopByTerm(Stop):
    kill = False


class SetProperty(Scenario):
    def before(self, server):
        server.client.create("box", properties={"key": "old", "other": "other"})

    def act(self, server):
        server.client.ok("PUT", "/containers/box/properties/key", {"value": "new"})

    def look(self, server):
        properties = server.client.ok("GET", "/containers/box/properties")
        assert properties["key"] in ("old", "new") and properties["other"] == "other"
        self.act(server)
        assert server.client.ok("GET", "/containers/box/properties/key") == {"value": "new"}


class DeleteProperty(SetProperty):
    def act(self, server):
        server.client.ok("DELETE", "/containers/box/properties/key")

    def look(self, server):
        properties = server.client.ok("GET", "/containers/box/properties")
        assert properties.get("key", "old") == "old" and properties["other"] == "other"


class GraceTime(Scenario):
    def act(self, server):
        server.client.ok("PUT", "/containers/box/grace_time", 3_600_000_000_000)


class NetIn(Scenario):
    def act(self, server):
        server.client.ok("POST", "/containers/box/net/in", {"host_port": 0, "container_port": 80})

    def look(self, server):
        n_before = len(server.client.info("box")["MappedPorts"] or [])
        assert n_before in (0, 1)
        self.act(server)
        assert len(server.client.info("box")["MappedPorts"]) == n_before + 1


class NetOut(Scenario):
    def act(self, server):
        server.client.ok("POST", "/containers/box/net/out", {
            "protocol": 1, "networks": [{"start": "8.8.8.8", "end": "8.8.8.8"}], "ports": [{"start": 53, "end": 53}]})

    def look(self, server):
        self.act(server)


class FilesIn(Scenario):
    def act(self, server):
        assert server.client.stream_in("box", tar(Member("file", b"x" * 100000)), "/tmp").status == 200

    def look(self, server):
        self.act(server)
        assert server.client.output("box", "wc -c </tmp/file") == "100000\n"


class Destroy(Scenario):
    def before(self, server):
        server.client.create("box", bind_mounts=[bind_of(server, BASE)])
        process = server.client.run("box", {"id": "p", "path": "/bin/sh", "args": ["-c", WAITS]})
        process.wait_output(b"begun\n")
        process.vanish()  # its stdin would end with a FIN

    def act(self, server):
        server.client.destroy("box")

    def after(self, server):
        if server.client.handles("garden.state=all"):
            check_container(server, "box")
            assert server.client.output("box", "cat /volume/file") == "content of file"
            server.client.destroy("box")
        self.before(server)
        server.client.destroy("box")


class FailedDestroy(Destroy):
    """Destroyed, or dead and destroyed by whoever asks again."""

    def after(self, server):
        for handle in server.client.handles("garden.state=all"):
            server.client.destroy(handle)


# ---- volumes ---------------------------------------------------------------------------------------------------------

FILES = {"d": b"", "d/one": b"content of d/one", "d/two": b"content of d/two"}


class VolumeScenario(Scenario):
    def before(self, server):
        server.volumes.make("v")

    def after(self, server):
        assert sorted(server.volumes.handles()) == [BASE, "v"]
        self.look(server)
        server.volumes.destroy("v")

    def after_loss(self, server):
        assert server.volumes.forget("v").status in (204, 404)
        for handle in server.volumes.handles():
            if handle != BASE:
                server.volumes.tree(handle)
                server.volumes.destroy(handle)
        server.volumes.make("v", cow(BASE))
        assert server.volumes.file("v", "file") == b"content of file"
        server.volumes.destroy("v")


class VolumeCreate(VolumeScenario):
    expected = {}

    def before(self, server):
        pass

    def strategy(self, server):
        return {"type": "empty"}

    def act(self, server):
        server.volumes.make("v", self.strategy(server), properties={"key": "value"})

    def after(self, server):
        server.volumes.poll_until_done("v")  # what its client would do next: it may be in the making still
        assert server.volumes.forget("v").status in (204, 404)
        if "v" not in server.volumes.handles():
            self.act(server)
        assert contents(server.volumes.tree("v")) == self.expected
        assert server.volumes.get("v")["properties"] == {"key": "value"}
        server.volumes.fill("v", "more")
        server.volumes.destroy("v")


class VolumeCopy(VolumeCreate):
    expected = {"file": b"content of file"}

    def strategy(self, server):
        return cow(BASE)


class VolumeCopyOfFresh(VolumeCreate):
    """The first copy shares what was the parent's own."""
    expected = {"file": b"content of file"}

    def before(self, server):
        server.volumes.make("parent")
        server.volumes.fill("parent", "file")

    def strategy(self, server):
        return cow("parent")

    def after(self, server):
        assert server.volumes.file("parent", "file") == b"content of file"
        super().after(server)
        server.volumes.fill("parent", "more")
        server.volumes.destroy("parent")


class VolumeImport(VolumeCreate):
    expected = FILES

    def strategy(self, server):
        return imported(server.source)


class VolumeStreamIn(VolumeScenario):
    def act(self, server):
        server.volumes.fill("v", directory("d"), "d/one", "d/two")

    def look(self, server):
        found = contents(server.volumes.tree("v"))
        assert found.keys() <= FILES.keys()
        self.act(server)
        assert contents(server.volumes.tree("v")) == FILES


class VolumeStreamOut(VolumeScenario):
    def before(self, server):
        super().before(server)
        server.volumes.fill("v", directory("d"), "d/one", "d/two")

    def act(self, server):
        assert contents(server.volumes.tree("v", encoding="gzip")) == FILES

    def look(self, server):
        self.act(server)


class VolumeProperty(VolumeScenario):
    def before(self, server):
        server.volumes.make("v", properties={"key": "old", "other": "other"})

    def act(self, server):
        server.volumes.set_property("v", "key", "new")

    def look(self, server):
        found = server.volumes.get("v")["properties"]
        assert found["key"] in ("old", "new") and found["other"] == "other"
        self.act(server)
        assert server.volumes.get("v")["properties"]["key"] == "new"


class VolumePrivileged(VolumeScenario):
    def act(self, server):
        server.volumes.set_privileged("v", True)

    def look(self, server):
        self.act(server)
        assert server.volumes.privileged("v") is True


class VolumeDestroy(VolumeScenario):
    def before(self, server):
        server.volumes.make("v", cow(BASE))
        server.volumes.fill("v", "more")

    def act(self, server):
        server.volumes.destroy("v")
        wait_until(lambda: server.process.poll() is not None or not list(server.work.glob("volumes/d*/*")),
                   "dead/ and doomed/ are empty")

    def after(self, server):
        if "v" in server.volumes.handles():
            found = contents(server.volumes.tree("v"))
            assert found == {"file": b"content of file", "more": b"content of more"}
            server.volumes.destroy("v")
        self.before(server)
        server.volumes.destroy("v")


CONTAINERS = [Create, CreatePrivileged, Run, RunImage, Attach, Stop, StopByTerm, SetProperty, DeleteProperty, GraceTime,
              NetIn, NetOut, FilesIn, Destroy]
VOLUMES = [VolumeCreate, VolumeCopy, VolumeCopyOfFresh, VolumeImport, VolumeStreamIn, VolumeStreamOut, VolumeProperty,
           VolumePrivileged, VolumeDestroy]
ALL = CONTAINERS + VOLUMES
