"""Controls: what a security test looks for is found where it must be; and what no test of tests/api
would miss. Some of them are in the table of test_mutations.py."""
import pwd
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "api"))

from conftest import make_container, nothing_left, probe, root, server  # noqa: E402,F401
import roots  # noqa: E402


def refusal(container, user):
    reply = container.client.run_refused(container.handle, {"path": "/bin/true", "user": user})
    assert reply.status == 500
    return reply.json["Message"]


def test_the_probe_undoes_mounts_that_are_not_locked(make_container, root):
    """A privileged container owns its mounts. The same attack as in test_p0_15."""
    box = make_container(rootfs=str(root), privileged=True)
    table = box.output("cat /proc/self/mountinfo")
    assert not re.search(r" (shared|master):", table), "it would go on outside"
    undone = {line[0] for line in box.probe("mounts") if line[-1] == "ok"}
    assert {"umount", "clear-ro", "clear-nodev", "clear-nosuid", "reveal", "new"} <= undone, undone


def test_users_of_the_host_are_unknown(make_container, tmp_path):
    """Also where the container's file is a link by the name of the host's."""
    image = roots.unpack_busybox(tmp_path / "image")
    inside = (image / "etc/passwd").read_text()
    user = next(entry.pw_name for entry in pwd.getpwall() if f"{entry.pw_name}:" not in inside)
    assert refusal(make_container(rootfs=str(image)), user).startswith(f"unable to find user {user}: ")
    (image / "etc/passwd").unlink()
    (image / "etc/passwd").symlink_to("/etc/passwd")
    refusal(make_container(rootfs=str(image)), user)
