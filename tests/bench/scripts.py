"""What clients ask of the servers, as tables of steps; and the recorded calls of Concourse's web, made into such tables."""
import json
import pathlib
import re

from driver import Step

RECORDINGS = pathlib.Path(__file__).with_name("recordings")
CONTAINER = "/containers/%h"


def garden(label, kind, method, path, body=""):
    return Step(label, "garden", kind, method, path, body)


def volumes(label, method, path, body="", kind="call"):
    return Step(label, "volumes", kind, method, path, body)


def cycle(rootfs=None):
    body = json.dumps({"handle": "%h", **({"rootfs": rootfs} if rootfs else {})})
    return [garden("create", "call", "POST", "/containers", body),
            garden("run", "run", "POST", f"{CONTAINER}/processes", '{"path":"/bin/true"}'),
            garden("destroy", "call", "DELETE", CONTAINER)]


# on a container that lives, in which a process named "sleeper" does nothing
REQUESTS = {
    "ping": garden("ping", "call", "GET", "/ping"),
    "list": garden("list", "call", "GET", "/containers"),
    "info": garden("info", "call", "GET", "/containers/idle-0/info"),
    "properties": garden("properties", "call", "GET", "/containers/idle-0/properties"),
    "set-property": garden("set-property", "call", "PUT", "/containers/idle-0/properties/key", '{"value":"text"}'),
    "attach": garden("attach", "attach", "GET", "/containers/idle-0/processes/sleeper"),
}

EMPTY = '{"handle":"%h","strategy":{"type":"empty"}}'
VOLUMES = [volumes("volume create", "POST", "/volumes", EMPTY),
           volumes("volume copy", "POST", "/volumes", '{"handle":"%h-copy","strategy":{"type":"cow","volume":"%h"}}'),
           volumes("volume flip", "PUT", "/volumes/%h-copy/privileged", '{"value":true}'),
           volumes("volume flip", "PUT", "/volumes/%h-copy/privileged", '{"value":false}'),
           volumes("volume list", "GET", "/volumes"),
           volumes("volume destroy", "DELETE", "/volumes/%h-copy"),
           volumes("destroy of the parent", "DELETE", "/volumes/%h")]
VOLUMES_ASYNC = [volumes("volume create, asynchronous, first poll", "POST", "/volumes-async", EMPTY),
                 volumes("volume create, asynchronous, first poll", "GET", "/volumes-async/%h", kind="poll"),
                 volumes("forget", "DELETE", "/volumes-async/%h"),
                 volumes("destroy of the empty one", "DELETE", "/volumes/%h")]


def copies(parent):
    return [volumes("copy", "POST", "/volumes", json.dumps({"handle": "%h", "strategy": {"type": "cow", "volume": parent}})),
            volumes("privileged flip", "PUT", "/volumes/%h/privileged", '{"value":true}'),
            volumes("privileged flip", "PUT", "/volumes/%h/privileged", '{"value":false}'),
            volumes("destroy of a copy", "DELETE", "/volumes/%h")]


# ---- recordings

WORKER_LIVE = "/srv/cc/worker/volumes/live/"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Request:
    """One recorded request with the status of its answer and what the client sent behind it."""

    def __init__(self, event, later):
        head, _, self.body = event["data"].partition("\r\n\r\n")
        self.method, self.path = head.split(" ")[:2]
        self.body = self.body.strip()
        self.api = "garden" if event["port"] == 7777 else "volumes"
        answers = [e["data"] for e in later if e["from"] == "server" and e["data"].startswith("HTTP/1.1 ")]
        self.status = int(answers[0].split(" ")[1]) if answers else 0
        self.stdin = next((e["data"] for e in later if e["from"] == "client" and e["data"].startswith("{")), "")

    def mentions(self, handles):
        return any(handle in self.path + self.body for handle in handles)


def read(name):
    events = json.loads((RECORDINGS / f"{name}.json").read_text())["events"]
    found = []
    for at, event in enumerate(events):
        if event["from"] == "client" and re.match("[A-Z]+ /", event["data"]):
            found.append(Request(event, [e for e in events[at + 1:] if e["conn"] == event["conn"]]))
    return found


def stdin_data(text):
    """The JSON string of the one message that carries data."""
    if not text:
        return ""
    return json.dumps(json.loads(text.splitlines()[0])["data"])


def label_of(request):
    kind = "volumes" if request.api == "volumes" else "container"
    return {"/containers": "create" if request.method == "POST" else "list"}.get(request.path, kind)


def step_of(request, rename):
    kind = "call" if request.status // 100 == 2 else "refused"
    label = label_of(request)
    if request.path.startswith("/volumes-async/") and request.method == "GET":
        kind = "poll"
    if request.path.endswith("/processes"):
        kind = label = "exec"
    return Step(label, request.api, kind, request.method, rename(request.path), rename(request.body), stdin_data(request.stdin))


class Flow:
    """What web asked for one container: its volumes, the container, its process; and in the end the sweeper's calls."""

    def __init__(self, name, handle, image, live):
        requests = read(name)
        create = next(r for r in requests if r.path == "/containers" and r.method == "POST" and handle in r.body)
        mine = [handle, *dict.fromkeys(UUID.findall(create.body.replace(handle, "")))]
        self.parent_names = {}
        self.mine, self.image, self.live = mine, image, live
        self.steps = []
        self.done = set()
        for request in requests:
            if request.mentions(mine) and self._is_wanted(request):
                self.steps.append(step_of(request, self._rename))
        self.steps += [garden("destroy", "call", "DELETE", f"/containers/{self._rename(handle)}")]
        self.steps += [volumes("volumes", "DELETE", f"/volumes/{self._rename(v)}") for v in mine[1:]]

    def _is_wanted(self, request):
        """The first run only, each poll once (the answer is held), and outputs as the driver itself opens them."""
        if "exec" in self.done and not request.path.endswith(("exit-status", "resource-result")):
            return False
        if "/attaches/" in request.path or (request.method, request.path) in self.done:
            return False
        if "/volumes-async/" in request.path and request.method == "GET":
            self.done.add(("GET", request.path))
        if request.path.endswith("/processes"):
            self.done.add("exec")
        elif "exec" in self.done:
            self.done.add((request.method, request.path))
        return True

    def _rename(self, text):
        """Handles of this run; parents that others have made are the image."""
        text = text.replace(WORKER_LIVE, self.live)
        return UUID.sub(lambda m: f"{m[0][:8]}-%h" if m[0] in self.mine else self.image, text)


# what its time is called: the recording, and the container in it
CONCOURSE = {"concourse check": ("check", "6a0d47eb-be2d-480c-917e-88f9bddb57a1"),
             "concourse task": ("task", "bf9cc868-76c7-4474-83c6-a8eca9e82261")}
