"""The run's own network and mount namespaces: links, addresses, rules, sysctls and mounts of the machine stay out of
reach, and two runs side by side do not meet."""
import ctypes
import os
import subprocess

CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
_libc = ctypes.CDLL(None, use_errno=True)


host_fd = None  # of the one before


def on_the_host(*command):
    """The command for a program that needs the machine's own network."""
    return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{host_fd}", *command]


def enter(own_mounts=True):
    """Move this process, which has one thread yet, and whatever it starts into new ones: loopback alone, and mounts that
    nobody else gets."""
    global host_fd
    host_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if _libc.unshare(CLONE_NEWNET | (CLONE_NEWNS if own_mounts else 0)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"unshare the namespaces: {os.strerror(error)}")
    if own_mounts:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
