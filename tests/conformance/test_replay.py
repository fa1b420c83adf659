"""Every recorded exchange of the stock Go Garden client with its reference server, replayed. The
flows build on each other, so they run in order in one server, and one that failed takes those
behind it along."""
import functools
import os

import pytest

from live_server import server  # noqa: F401 - first: it makes the modules below known

import differences
from recording import load_all
from replay import Replay
from roots import unpack_busybox

GARDEN = load_all("garden")


@pytest.fixture(scope="module")
def rewrite_create(tmp_path_factory):
    """The recorded creates in this version's words, with a root like the recorded image's."""
    root = unpack_busybox(tmp_path_factory.mktemp("image") / "root")
    for name, lines in (("passwd", differences.IMAGE_USERS), ("group", differences.IMAGE_GROUPS)):
        with open(root / "etc" / name, "a") as file:
            file.writelines(f"{line}\n" for line in lines)
    home = root / "home" / "alice"
    home.mkdir()
    os.chown(home, 1001, 1010)
    bind_source = tmp_path_factory.mktemp("bindsrc")
    return functools.partial(differences.rewrite_create, rootfs=root, bind_source=bind_source)


@pytest.mark.parametrize("recording", GARDEN, ids=lambda recording: recording.name)
def test_recording(server, rewrite_create, recording):
    Replay(recording, server.client.address, rewrite_create).run()
    server.check()


def test_nothing_is_left_at_the_end_of_the_flows(server):
    assert server.client.handles("garden.state=all") == []


@pytest.mark.parametrize("table", ["ANSWERS", "OUTPUTS", "EXIT_STATUSES", "LEFT_OUT"])
def test_every_difference_is_of_a_recorded_connection(table):
    known = {(recording.name, conn) for recording in GARDEN for conn in recording.connections()}
    assert set(getattr(differences, table)) <= known
