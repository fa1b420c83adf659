"""A small Concourse cluster: gateways (TSA), each a real sshd in a network namespace of its own, so that each may listen
where the tunnels ask for, and the web (ATC) behind them, which keeps workers and what they report as web does."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from gardenlib import GUARD, Client, wait_until
from internet import ip
from volumelib import VolumeClient

SSHD = "/usr/sbin/sshd"
COMMAND = Path(__file__).with_name("tsa_command.py")
USER = "beacon:x:0:0:beacon:/root:/bin/sh\n"  # whom workers log in as


class Web:
    """Answers the gateways' commands. Everything that was asked is in .calls; .changed is told of each."""

    def __init__(self, directory):
        self.path = str(directory / "web")
        self.beat_seconds = 0.3  # between heartbeats; read when a gateway starts
        self.changed = threading.Condition()
        self.calls = []  # (call, question)
        self.workers = {}  # name: {"state", "ports", "document", "beats"}
        self.rows = {"containers": {}, "volumes": {}}  # handle: state
        self.refused = {}  # call: exit status
        self.answers = {}  # call: what is answered in place of the list
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def _accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        try:
            with conn, conn.makefile("rw") as stream:
                for line in stream:
                    question = json.loads(line)
                    with self.changed:
                        reply = self._answer(question)
                        self.calls.append((question["call"], question))
                        self.changed.notify_all()
                    stream.write(json.dumps(reply) + "\n")
                    stream.flush()
        except OSError:
            pass  # the gateway was killed

    def _answer(self, question):
        call, name = question["call"], question["worker"]["name"]
        if call in self.refused:
            return {"status": self.refused[call]}
        if call == "register":
            self.workers[name] = {"state": "running", "ports": question["ports"], "document": question["worker"],
                                  "beats": 0}
            return {"status": 0}
        if call == "heartbeat":
            worker = self.workers.get(name)
            if worker:
                worker["beats"] += 1
            return {"status": 0, "is_over": worker is None or worker["state"] == "landed"}
        if call in ("land-worker", "retire-worker"):
            self.workers[name]["state"] = {"land-worker": "landing", "retire-worker": "retiring"}[call]
        elif call == "delete-worker":
            self.workers.pop(name, None)
        elif "-" in call:
            verb, kind = call.split("-")
            if verb == "report":
                self._report(self.rows[kind], question["handles"])
            else:
                given_up = [h for h, state in self.rows[kind].items() if state == "destroying"]
                return {"status": 0, "answer": self.answers.get(call, given_up)}
        return {"status": 0}

    @staticmethod
    def _report(rows, handles):
        for handle in [h for h, state in rows.items() if state == "destroying" and h not in handles]:
            del rows[handle]
        for handle in handles:
            rows.setdefault(handle, "destroying")

    def set_state(self, name, state):
        """None: the row is deleted."""
        with self.changed:
            if state:
                self.workers[name]["state"] = state
            else:
                del self.workers[name]

    def wait(self, condition, what, timeout=GUARD):
        """Until condition, which is asked after each call, is true; what it returned."""
        found = []

        def holds():
            found[:] = [condition()]
            return found[0]
        with self.changed:
            assert self.changed.wait_for(holds, timeout), f"never happened: {what}; {self.calls[-5:]}"
        return found[0]

    def wait_call(self, call, start=0, count=1):
        """Until a call has come after the first start ones; what it asked."""
        def find():
            found = [q for c, q in self.calls[start:] if c == call]
            return found[count - 1] if len(found) >= count else None
        return self.wait(find, call)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.accepting.join()  # or it would go on with another socket of the same number
        self.listener.close()
        os.unlink(self.path)


class Gateway:
    """One sshd, at .at; .stop and .start end it and start it anew."""
    numbers = iter(range(1, 250))

    def __init__(self, directory, web, authorized, key):
        self.number = next(self.numbers)
        self.directory, self.web, self.authorized, self.key = directory, web, authorized, key
        self.address = f"10.199.{self.number}.2"
        self.at = f"{self.address}:2222"
        self.log = directory / f"sshd-{self.number}.log"
        self.sshd = None
        users = directory / f"passwd-{self.number}"
        users.write_text(Path("/etc/passwd").read_text() + USER)
        self.holder = subprocess.Popen(
            ["unshare", "-nm", "sh", "-c", f"mount --bind {users} /etc/passwd && mkdir -p /run/sshd && echo && read x"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b"\n"
        pid = self.holder.pid
        self.link = f"tsa{self.number}"
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        ip("addr", "add", f"10.199.{self.number}.1/24", "dev", self.link)
        ip("link", "set", self.link, "up")
        ip("link", "set", "lo", "up", pid=pid)
        ip("addr", "add", f"{self.address}/24", "dev", "eth0", pid=pid)
        ip("link", "set", "eth0", "up", pid=pid)
        self.start()

    def start(self):
        options = {"Port": 2222, "HostKey": self.key, "AuthorizedKeysFile": self.authorized, "StrictModes": "no",
                   "UsePAM": "no", "PermitRootLogin": "yes", "GatewayPorts": "clientspecified", "PidFile": "none",
                   "ForceCommand": f"{sys.executable} {COMMAND} {self.web.path} {self.web.beat_seconds}", "UseDNS": "no",
                   "MaxSessions": 50, "HostKeyAlgorithms": "rsa-sha2-256,rsa-sha2-512"}
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        with open(self.log, "ab") as log:
            self.sshd = subprocess.Popen(["nsenter", "-t", str(self.holder.pid), "-n", "-m", SSHD, "-D", "-e", "-f",
                                          "/dev/null", *words], stdin=subprocess.DEVNULL, stderr=log)
        wait_until(self.answers, f"sshd {self.at}: {self.log.read_text()}")

    def answers(self):
        assert self.sshd.poll() is None, self.log.read_text()
        try:
            socket.create_connection((self.address, 2222), GUARD).close()
            return True
        except OSError:
            return False

    def processes(self):
        """sshd and all below it that is there: what is in its network namespace but the holder."""
        mine, found = os.stat(f"/proc/{self.holder.pid}/ns/net").st_ino, []
        for path in Path("/proc").iterdir():
            try:
                if path.name.isdigit() and (path / "ns/net").stat().st_ino == mine:
                    found.append(int(path.name))
            except OSError:
                pass
        return [pid for pid in found if pid != self.holder.pid]

    def stop(self):
        """As if the machine went: every process of it is killed at once."""
        while self.sshd and (pids := self.processes()):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if self.sshd.pid in pids:
                self.sshd.wait()
            time.sleep(0.01)
        self.sshd = None

    def cut(self):
        """The way to it swallows everything."""
        ip("link", "set", "eth0", "down", pid=self.holder.pid)

    def close(self):
        self.stop()
        self.holder.communicate(b"\n")
        if Path(f"/sys/class/net/{self.link}").exists():
            subprocess.run(["ip", "link", "del", self.link], check=False, stderr=subprocess.DEVNULL)


def make_key(path, *options):
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", path, *options], check=True)
    return path


class Cluster:
    """Web, gateways and keys. worker(...) starts a server that joins; .close ends everything."""

    def __init__(self, directory, keys):
        self.directory = Path(directory)
        self.keys = keys
        for name in ("host", "worker"):
            shutil.copy(keys / name, self.directory / name)
            shutil.copy(keys / f"{name}.pub", self.directory / f"{name}.pub")
        self.authorized = self.directory / "authorized"
        shutil.copy(keys / "worker.pub", self.authorized)
        self.web = Web(self.directory)
        self.gateways = []

    def gateway(self, key=None):
        self.gateways.append(Gateway(self.directory, self.web, self.authorized, key or self.directory / "host"))
        return self.gateways[-1]

    def options(self, name="w", hosts=None, key=None, host_key=None, sweep="1h", **more):
        hosts = hosts if hosts is not None else [g.at for g in self.gateways]
        words = ["--name", name, "--tsa-worker-private-key", self.directory / "worker" if key is None else key,
                 "--tsa-public-key", self.directory / "host.pub" if host_key is None else host_key, "--sweep-interval", sweep,
                 "--healthcheck-bind-port", "0", "--debug-bind-port", "0"]
        for host in hosts:
            words += ["--tsa-host", host]
        for option, value in more.items():
            words += [f"--{option.replace('_', '-')}", value]
        return words

    def clients(self, gateway, name="w"):
        """Of both APIs, as web reaches them: through the tunnels."""
        garden, volumes = self.web.workers[name]["ports"]
        return Client((gateway.address, garden)), VolumeClient((gateway.address, volumes))

    def wait_registered(self, name="w", count=1):
        self.web.wait(lambda: sum(c == "register" and q["worker"]["name"] == name for c, q in self.web.calls) >= count,
                      f"registration {count} of {name}")

    def close(self):
        for gateway in self.gateways:
            gateway.close()
        self.web.close()


def wait_log(server, message, offset=0, **facts):
    """A line of the server's log with this message, whose facts contain these words."""
    def find():
        for line in server.log_lines(offset):
            if line["message"] == message and all(str(v) in str(line["data"].get(k)) for k, v in facts.items()):
                return line
        return None
    return wait_until(find, f"{message} {facts} in {server.log_tail()}")


def helper_of(server):
    """The pid of the process that knows the cluster; None if there is none."""
    for path in Path("/proc").iterdir():
        try:
            words = (path / "cmdline").read_bytes().split(b"\0") if path.name.isdigit() else []
        except OSError:
            continue
        if words[:2] == [b"cloche", b"cluster"] and str(server.work).encode() in words:
            return int(path.name)
    return None


def children_of(pid):
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(path.name))
        except OSError:
            pass
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
