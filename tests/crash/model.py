"""A model of the server: what containers, processes and volumes there must be after what was asked of it. Operations are
random; when one is cut off by a kill, the server says afterwards which of the two permitted states it has come to."""
import random
import threading

import oracle
from archives import contents
from crashlib import CUT, REFUSED, has_died
from gardenlib import GUARD, Hijacked, wait_until
from volumelib import EMPTY, cow

MOST = 6  # of containers, and of volumes


class Killer(threading.Thread):
    """Kills the server or a shim, at random moments, at most one at a time."""

    def __init__(self, model, seed, pauses):
        super().__init__(daemon=True)
        self.model, self.random, self.pauses = model, random.Random(seed), pauses
        self.is_over = threading.Event()
        self.n_servers = self.n_shims = 0

    def run(self):
        while not self.is_over.wait(self.random.uniform(*self.pauses)):
            with self.model.lock:  # never while one is being started or looked at
                self.kill_one()

    def kill_one(self):
        alive = [one for one in self.model.containers.values() if one.shim and not one.is_killed]
        if alive and self.random.random() < 0.4:
            one = self.random.choice(alive)
            one.is_killed = True
            oracle.os.kill(one.shim, 9)
            self.n_shims += 1
        else:
            self.model.is_server_killed = True
            self.model.server.process.kill()
            self.n_servers += 1

    def end(self):
        self.is_over.set()
        self.join()


class Container:
    def __init__(self, handle, properties):
        self.handle, self.properties = handle, properties
        self.waiting, self.ended = {}, {}  # exit statuses by the process's id
        self.shim = None
        self.is_killed = False


class Volume:
    def __init__(self, files, value):
        self.files, self.value = files, value


class Model:
    def __init__(self, server, seed):
        self.server, self.random = server, random.Random(seed)
        self.containers, self.volumes = {}, {}
        self.lock = threading.RLock()
        self.is_server_killed = False
        self.n = 0
        self.log = []

    @property
    def client(self):
        return self.server.client

    def name(self, kind):
        self.n += 1
        return f"{kind}{self.n}"

    def any(self, table):
        return self.random.choice(list(table.values()))

    # ---- one operation -----------------------------------------------------------------------------------------------

    def step(self):
        wanted = [self.create, self.create_volume, self.copy_volume]
        if self.containers:
            wanted += [self.run] * 3 + [self.finish] * 3 + [self.set_property] * 2 + [self.stop, self.destroy]
        if self.volumes:
            wanted += [self.fill] * 2 + [self.set_volume_property, self.destroy_volume]
        self.random.choice(wanted)()

    def attempt(self, text, act, done, unsure, container=None):
        """Ask; note what is so now. Cut off by a kill, find it out after the restart."""
        self.log.append(text)
        try:
            act()
        except (*CUT, *REFUSED) as failure:
            self.log.append(f"{text}: {failure!r}")
            if not self.has_died():
                assert container and container.is_killed, f"{text} failed, and nobody was killed: {failure!r}"
                return
            with self.lock:
                self.restart()
                if container is None or container.handle in self.containers:
                    unsure()
            return
        done()

    def has_died(self):
        """Only if it was killed; then it takes a moment."""
        return self.is_server_killed and has_died(self.server, GUARD)

    def restart(self):
        """Whoever has lost its shim is gone with the server that knew it."""
        with self.lock:
            self.is_server_killed = False
            self.server.start()
            for handle in [handle for handle, one in self.containers.items() if one.is_killed]:
                del self.containers[handle]
        self.log.append("restarted")

    # ---- containers --------------------------------------------------------------------------------------------------

    def create(self):
        if len(self.containers) >= MOST:
            self.destroy()
            return
        one = Container(self.name("c"), {"key": self.name("value")})
        shims = set(self.shims())

        def done():
            (one.shim,) = set(self.shims()) - shims
            self.containers[one.handle] = one

        def unsure():
            if one.handle in self.client.handles("garden.state=all"):
                done()

        self.attempt(f"create {one.handle}", lambda: self.client.create(one.handle, properties=one.properties), done, unsure)

    def shims(self):
        return oracle.shim_pids(self.server, oracle.all_tasks())

    def destroy(self):
        one = self.any(self.containers)

        def done():
            with self.lock:
                one.shim = None
                self.containers.pop(one.handle, None)

        def unsure():
            if one.handle not in self.client.handles("garden.state=all"):
                done()

        # that works whatever has happened to it
        self.attempt(f"destroy {one.handle}", lambda: self.client.destroy(one.handle), done, unsure)

    def run(self):
        one, name, status = self.any(self.containers), self.name("p"), self.random.randrange(100)
        spec = {"id": name, "path": "/bin/sh", "args": ["-c", f"read x; exit {status}"]}

        def act():
            self.client.run(one.handle, spec, streams=()).vanish()

        def done():
            one.waiting[name] = status

        def unsure():
            try:
                self.client.attach(one.handle, name, streams=()).vanish()
                done()
            except Hijacked as refusal:
                assert refusal.reply.status == 404, refusal

        self.attempt(f"run {name} in {one.handle}", act, done, unsure, one)

    def finish(self):
        one = self.any(self.containers)
        if not one.waiting:
            self.run()
            return
        name = self.random.choice(list(one.waiting))

        def act():
            process = self.client.attach(one.handle, name)
            process.stdin("now\n")
            assert process.wait(30) == one.waiting[name]

        def done():
            one.ended[name] = one.waiting.pop(name)

        def unsure():
            process = self.client.attach(one.handle, name)
            try:
                process.stdin("now\n")
            except OSError:
                pass  # it has ended
            assert process.wait() == one.waiting[name]
            done()

        self.attempt(f"finish {name} in {one.handle}", act, done, unsure, one)

    def stop(self):
        one = self.any(self.containers)

        def done():
            one.ended |= dict.fromkeys(one.waiting, 137)
            one.waiting = {}

        def unsure():
            self.client.stop(one.handle, kill=True)
            done()

        self.attempt(f"stop {one.handle}", lambda: self.client.stop(one.handle, kill=True), done, unsure, one)

    def set_property(self):
        one, value = self.any(self.containers), self.name("value")

        def done():
            one.properties["key"] = value

        def unsure():
            found = self.client.ok("GET", f"/containers/{one.handle}/properties/key")["value"]
            assert found in (value, one.properties["key"])
            one.properties["key"] = found

        self.attempt(f"set {one.handle} {value}", lambda: self.client.ok(
            "PUT", f"/containers/{one.handle}/properties/key", {"value": value}), done, unsure, one)

    # ---- volumes -----------------------------------------------------------------------------------------------------

    def make_volume(self, strategy, files):
        name, value = self.name("v"), self.name("value")

        def done():
            self.volumes[name] = Volume(set(files), value)

        def unsure():
            if name in self.server.volumes.handles():
                done()

        self.attempt(f"volume {name} {strategy}", lambda: self.server.volumes.create(
            name, strategy, properties={"key": value}), done, unsure)

    def create_volume(self):
        if len(self.volumes) >= MOST:
            self.destroy_volume()
            return
        self.make_volume(EMPTY, ())

    def copy_volume(self):
        if not self.volumes or len(self.volumes) >= MOST:
            self.create_volume()
            return
        parent = self.random.choice(list(self.volumes))
        self.make_volume(cow(parent), self.volumes[parent].files)

    def fill(self):
        handle, name = self.random.choice(list(self.volumes)), self.name("f")
        one = self.volumes[handle]

        def done():
            one.files.add(name)

        def unsure():
            if name in self.server.volumes.tree(handle):
                done()

        self.attempt(f"fill {handle} {name}", lambda: self.server.volumes.fill(handle, name), done, unsure)

    def set_volume_property(self):
        handle, value = self.random.choice(list(self.volumes)), self.name("value")
        one = self.volumes[handle]

        def done():
            one.value = value

        def unsure():
            found = self.server.volumes.get(handle)["properties"]["key"]
            assert found in (value, one.value)
            one.value = found

        self.attempt(f"set {handle} {value}", lambda: self.server.volumes.set_property(handle, "key", value), done, unsure)

    def destroy_volume(self):
        handle = self.random.choice(list(self.volumes))

        def done():
            del self.volumes[handle]

        def unsure():
            if handle not in self.server.volumes.handles():
                done()

        self.attempt(f"destroy {handle}", lambda: self.server.volumes.destroy(handle), done, unsure)

    # ---- agreement ---------------------------------------------------------------------------------------------------

    def agree(self):
        """Nobody is killed meanwhile."""
        with self.lock:
            if self.has_died():
                self.restart()
            assert sorted(self.client.handles("garden.state=all")) == sorted(self.containers)
            for one in self.containers.values():
                assert self.client.ok("GET", f"/containers/{one.handle}/properties/key")["value"] == one.properties["key"]
                if one.is_killed:
                    wait_until(lambda one=one: "dead" in str(self.refusal(one)), "it is known to be dead")
                else:
                    self.agree_on(one)
            assert sorted(self.server.volumes.handles()) == sorted(self.volumes)
            for handle, one in self.volumes.items():
                assert contents(self.server.volumes.tree(handle)) == {name: f"content of {name}".encode() for name in one.files}
                assert self.server.volumes.get(handle)["properties"] == {"key": one.value}

    def refusal(self, one):
        try:
            self.client.output(one.handle, "true")
            return None
        except REFUSED as failure:
            return failure

    def agree_on(self, one):
        for name, status in one.ended.items():
            assert self.client.attach(one.handle, name).wait() == status
        n_shells = self.client.output(one.handle, "ps | grep -c '[r]ead x; exit' || true")
        assert int(n_shells) == len(one.waiting), self.client.output(one.handle, "ps")
        for name in one.waiting:
            process = self.client.attach(one.handle, name, streams=())
            assert len(process.messages) == 1
            process.vanish()
