"""When a wait came to nothing: where every thread of the servers, shims and inits is, for the report."""
import shutil
import subprocess

import oracle

MARKS = ("never happened", "timed out", "TimeoutError")


def is_hang(text):
    return any(mark in text for mark in MARKS)


def kernel_side(task):
    lines = []
    for thread in oracle.listing(f"/proc/{task.pid}/task"):
        path = f"/proc/{task.pid}/task/{thread}"
        stack = " < ".join(line.split()[-1].split("+")[0] for line in oracle.read(f"{path}/stack").splitlines())
        lines.append(f"  {thread} {oracle.read(f'{path}/syscall').split(' ')[0].strip()} {stack}")
    return lines


def user_side(pid):
    if not shutil.which("gdb"):
        return []
    try:
        result = subprocess.run(["gdb", "-p", str(pid), "-batch", "-ex", "set print frame-arguments scalars",
                                 "-ex", "thread apply all bt 12"], stdin=subprocess.DEVNULL, capture_output=True,
                                timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return ["gdb hangs as well"]
    return [line for line in result.stdout.decode("utf-8", "replace").splitlines()
            if line.startswith(("#", "Thread"))]


def report(server):
    lines = [f"server {server.pid}, its log:", server.log_tail()[-2000:]]
    for task in oracle.family(server).values():
        lines += [f"{task.name} {task.pid} {task.state}, child of {task.parent}:", *kernel_side(task)]
    return "\n".join([*lines, *user_side(server.pid)])
