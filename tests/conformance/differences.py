"""Everything in which cloche answers a recorded exchange otherwise than the recorded server did, on
purpose, and everything in a recorded request that a replay has to put in other words. Each with its
reason. What is not in here must be equal."""
import re
from typing import NamedTuple

# Values that differ from run to run or from machine to machine. A replay compares their types.
VARYING_KEYS = {
    "memory_in_bytes": "the machine's memory",
    "disk_in_bytes": "the machine's disk",
    "schedulable_disk_in_bytes": "the machine's disk",
    "max_containers": "the recorded server had a pool of 64 subnets",
    "HostIP": "an address of another pool",
    "ContainerIP": "an address of another pool",
    "ExternalIP": "an address of another pool",
    "garden.network.container-ip": "an address of another pool",
    "garden.network.host-ip": "an address of another pool",
    "garden.network.external-ip": "an address of another host",
    "host_port": "the recorded server had given out a port before",
    "ContainerPath": "below the work directory",
    **dict.fromkeys([
        *(prefix + name for prefix in ("", "total_") for name in (
            "active_anon", "active_file", "cache", "inactive_anon", "inactive_file", "mapped_file", "pgfault",
            "pgmajfault", "pgpgin", "pgpgout", "rss")),
        "TotalUsageTowardLimit", "anon", "file", "swapcached", "Usage", "User", "System", "TotalBytesUsed",
        "TotalInodesUsed", "ExclusiveBytesUsed", "ExclusiveInodesUsed", "Age", "CPUEntitlement"],
        "measured; the limits, the count of processes and what must be zero are compared"),
}

# Lists whose order means nothing.
UNORDERED_KEYS = {"Handles"}

# Null in the recordings, and filled here.
FILLED_KEYS = {
    "ProcessIDs": "the recorded server never fills it; cloche says which processes run",
    "NetworkStat": "an option of the recorded server that was off; here it costs nothing",
}

# Properties of the recorded server that cloche does not have.
ABSENT_PROPERTIES = [
    (r"kawasaki\..*", "the recorded server's own network module keeps its state there"),
    (r"garden\.process-exit-status", "the recorded server knows one exit status per container; here it belongs to a process"),
    (r"rundmc\.state", "the recorded server's own module keeps its state there"),
]


# Texts within answers that are said in other words.
OTHER_WORDS = {
    # of the entry for an unknown handle in bulk_metrics; bulk_info has these words in both
    "runC stats: runc: exit status 1: container does not exist": "unknown handle: wire-none",
}


# Properties that only cloche has.
ADDED_PROPERTIES = {"cloche.exit-reason", "cloche.usage"}


class Answer(NamedTuple):
    """An error in place of the recorded answer."""
    status: str
    type: str
    message: str  # a regular expression
    handle: str = ""



UNKNOWN_HANDLE = "an unknown handle is a typed 404 on every route"
OWN_WORDS = "the recorded text quotes a helper program; the meaning is kept, not the words"
FAILED = "500 Internal Server Error"
NO_WIRE_MIN = Answer("404 Not Found", "ContainerNotFoundError", "unknown handle: wire-min",
                     "wire-min")

# (recording, connection) -> (the answer here, the reason)
ANSWERS = {
    ("05-create-errors", 2): (Answer(FAILED, "", ".*/does/not/exist.*"), OWN_WORDS),
    ("05-create-errors", 3): (Answer(FAILED, "", ".*/does/not/exist.*"), OWN_WORDS),
    ("11-run-errors", 3): (
        Answer(FAILED, "", '.*exec: "/etc/passwd": permission denied'), OWN_WORDS),
    ("22-stream-in-out", 8): (
        Answer(FAILED, "", "stream-out: .*/tmp/absent: no such file or directory"),
        "what is missing is an error, not an empty archive"),
    ("22-stream-in-out", 9): (
        Answer(FAILED, "", "stream-in: error streaming in: .*nobodyatall.*"), OWN_WORDS),
    ("22-stream-in-out", 10): (
        Answer(FAILED, "", "stream-in: error streaming in: This does not look like a tar archive.*"),
        OWN_WORDS),
    ("25-stop-destroy", 15): (NO_WIRE_MIN, UNKNOWN_HANDLE),
    ("25-stop-destroy", 16): (NO_WIRE_MIN, UNKNOWN_HANDLE),
}

# (recording, connection) -> (the output here, the reason)
OUTPUTS = {
    ("16-attach-after-exit-fresh-process", 3): (
        b"words\n", "output that nobody has received is kept for the next attach, never dropped"),
}

# (recording, connection) -> (exit statuses that are as good as the recorded one, the reason)
EXIT_STATUSES = {
    ("25-stop-destroy", 1): (
        {143}, "the recorded client stops the container without waiting for the process's trap"),
}

# (recording, connection) -> why the connection is left out
LEFT_OUT = {}

# The volume API, in test_web_replay.py.
VOLUME_FRAMING = "long lists have a Content-Length, where the recorded server sent chunks from 2 KiB on"
VOLUME_ERRORS = "the cause follows behind the recorded text and a colon; clients compare none of these texts"
VOLUME_POLLS = "a poll is held until the volume is made; the recorded server said at once that it was not yet"

# Recordings of Concourse's web, in test_web_replay.py: error answers of the containers' API. (recorded message, status,
# type, message, the reason).
WEB_ERRORS = [
    (r"load proc: no running process found: .*", "404 Not Found", "ProcessNotFoundError", r"unknown process: (task|resource)",
     "web attaches before it runs; what is not there is a typed 404"),
    (r"proc start: .*executable file not found.*", FAILED, "ExecutableNotFoundError",
     r'.*"no-such-program": executable file not found in \$PATH',
     "the type that web and fly look for, which the recorded server lost; and the words that fly looks for as well"),
]
WEB_PROPERTIES = ("garden.* of guardian are listed here, Concourse's runtime has none of them; so is a property without a value, "
                  "which that forgets")
WEB_ARCHIVES = "archives are not in the recordings; what is in them is compared with what the steps have written"
WEB_STOP = "a stop reaches what the task has started as well, as with guardian: its shell may say that it was terminated"
WEB_TICKS = ("the long task is not waited for as long, so that its count differs; and nothing of it is missing, where the "
             "recorded server dropped what was printed while web was away")

# The environment that the recorded image brings along: it comes before the container's own.
IMAGE_ENV = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/bin:/from-dockerfile",
    "TEST=second-test-from-dockerfile:test-from-dockerfile",
]

# The users of the recorded image that the recordings name, as lines of its passwd and group files.
IMAGE_USERS = ["alice:x:1001:1010::/home/alice:/bin/sh"]
IMAGE_GROUPS = ["wheel:x:10:root", "gardenparty:x:1010:alice", "gardenparty2:x:1011:alice"]


def is_absent_property(name):
    return any(re.fullmatch(pattern, name) for pattern, _ in ABSENT_PROPERTIES)


def is_left_out(recording, conn):
    return (recording, conn) in LEFT_OUT


def answer_for(recording, conn):
    return ANSWERS.get((recording, conn), (None,))[0]


def output_for(recording, conn):
    return OUTPUTS.get((recording, conn), (None,))[0]


def exit_statuses_for(recording, conn):
    return EXIT_STATUSES.get((recording, conn), (set(),))[0]


def rewrite_create(spec, rootfs, bind_source):
    """A create of the recorded image, which lies in a registry, as one of a directory with the same
    users and its environment given; bind sources that exist here. None where the recorded create can be sent as it is."""
    if not spec["image"].get("uri", "").startswith("docker:"):
        return None
    spec["image"] = {}
    spec["rootfs"] = str(rootfs)
    spec["env"] = IMAGE_ENV + spec["env"]
    for mount in spec["bind_mounts"]:
        mount["src_path"] = str(bind_source)
    return spec
