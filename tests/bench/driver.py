"""The timed client: a program in C (driver/), so that Python's own time is in no figure. One for each server."""
import json
import pathlib
import subprocess
from typing import NamedTuple

HERE = pathlib.Path(__file__).parent
FLAGS = "-std=gnu17 -O2 -Wall -Wextra -Wshadow -Wvla -Werror -D_GNU_SOURCE".split()


class PeerFailed(Exception):
    """What is measured does not do what it should; the others go on."""


class Step(NamedTuple):
    """One request of a script, see driver/steps.h. Times of one label count together."""
    label: str
    api: str
    kind: str
    method: str
    path: str
    body: str = ""
    stdin: str = ""


def build(target):
    subprocess.run(["cc", *FLAGS, "-pthread", "-o", target, *sorted(HERE.glob("driver/*.c"))], check=True)
    return target


class Driver:
    def __init__(self, program, garden, volumes, prefix=()):
        self.n = 0
        addresses = [f"{host}:{port}" for host, port in (garden, volumes)]
        self.process = subprocess.Popen([*prefix, program, *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1)

    def _ask(self, text):
        try:
            self.process.stdin.write(text)
            answer = json.loads(self.process.stdout.readline() or '{"error": "the driver has ended"}')
        except OSError as failure:
            raise PeerFailed(f"the driver: {failure}") from failure
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer

    def learn(self, name, steps):
        for step in steps:
            if any(c in field for field in step for c in "\t\n"):
                raise ValueError(f"a tab or a line's end in {step}")
        self._ask("".join(line + "\n" for line in [f"script {name}", *map("\t".join, steps), "."]))

    def run(self, name, mode="fresh", clients=1, n=1):
        """Seconds, and milliseconds by label. Every run has handles of its own."""
        self.n += 1
        answer = self._ask(f"run {name} {mode} {name}-{self.n} {clients} {n}\n")
        return answer["seconds"], answer["ms"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=120)


class NullServer:
    """Answers at once: what the driver and the kernel cost without any server's work."""

    def __init__(self, program):
        self.process = subprocess.Popen([program, "--null"], stdout=subprocess.PIPE, text=True)
        self.address = ("127.0.0.1", int(self.process.stdout.readline()))

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
