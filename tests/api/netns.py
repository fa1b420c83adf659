"""The run's own network namespace: links, addresses, rules and sysctls of the machine stay out of reach, and two
runs side by side do not meet."""
import ctypes
import os
import subprocess

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


host_fd = None  # of the one before


def on_the_host(*command):
    """The command for a program that needs the machine's own network."""
    return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{host_fd}", *command]


def enter():
    """Move this process, which has one thread yet, and whatever it starts into a new one with loopback alone."""
    global host_fd
    host_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if _libc.unshare(CLONE_NEWNET) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"unshare the network namespace: {os.strerror(error)}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
