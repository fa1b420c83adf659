"""The one answer in which a shim tells a server that comes back of all it has. However it arrives, the start serves, and
the container is whole, or its handle can be used again."""
import pytest
from crashlib import REFUSED, try_to  # first: it finds the tests of the API
import oracle
from conftest import nothing_left, server  # noqa: F401
from faulty import PROGRAM, program  # noqa: F401
from test_points import restart_plain, with_point
from victims import victim, victims  # noqa: F401

IN_PARTS = 5  # more than descriptors fit into one message
OVER_64_KIB = 300


def how_to_start():
    return {"program": PROGRAM}


def begin(one, n):
    for i in range(n):
        process = one.client.run("box", {"id": f"p{i}", "path": "/bin/sh", "args": ["-c", "read x; echo got $x; exit 7"]},
                                 streams=())
        process.control.reset()


def check_all(one, n):
    """Each is there, and its streams."""
    for i in range(n):
        process = one.client.attach("box", f"p{i}")
        process.stdin(f"{i}\n")
        assert (process.wait(), process.stdout) == (7, b"got %d\n" % i)


def come_back(one, n, point=None, action=None):
    """The server is killed while processes wait, and starts again; their shim has a failure point."""
    if point:
        with_point(one, point, action)
        one.kill()
        one.start()
    one.client.create("box")
    begin(one, n)
    one.env = None
    one.kill()
    one.start()


def usable_again(one):
    failure = try_to(one.client.destroy, "box")
    assert not failure or "unknown handle" in str(failure), failure
    one.client.create("box")
    assert one.client.output("box", "echo usable") == "usable\n"
    one.client.destroy("box")
    restart_plain(one)
    oracle.settled(one, one.before)


@pytest.mark.parametrize("n", [0, IN_PARTS, OVER_64_KIB])
def test_all_of_them_are_adopted(victim, n):  # noqa: F811
    come_back(victim, n)
    check_all(victim, n)
    usable_again(victim)


def test_a_shim_without_memory_tells_of_them_one_by_one(victim):  # noqa: F811
    come_back(victim, IN_PARTS, "hello_full", "ENOMEM")
    check_all(victim, IN_PARTS)
    usable_again(victim)


def test_an_answer_that_is_cut(victim):  # noqa: F811
    log_size = victim.log_path.stat().st_size
    come_back(victim, IN_PARTS, "hello_cut", "ENOMEM")
    assert "the shim's answer is cut" in victim.log_text(log_size)
    assert try_to(check_all, victim, 1), "half of it was taken"
    usable_again(victim)


@pytest.mark.parametrize("point", ["hello_full", "hello_cut"])
def test_a_shim_that_dies_while_it_answers(victim, point):  # noqa: F811
    come_back(victim, IN_PARTS, point, "kill")
    with pytest.raises(REFUSED):
        check_all(victim, 1)
    usable_again(victim)
