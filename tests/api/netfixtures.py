"""What the tests of the network share: the made-up internet, a server that sees it, and questions to it."""
import internet
import pytest
from conftest import Container
from serverproc import Server


@pytest.fixture(scope="module")
def outside(nothing_left):
    one = internet.Internet()
    yield one
    one.close()


@pytest.fixture(scope="module")
def net(outside):
    """A server that was started with the uplink in place."""
    one = Server()
    yield one
    one.finish()


@pytest.fixture
def make(net):
    made = []

    def make_one(handle=None, server=net, **spec):
        made.append(Container(server, handle, **spec))
        return made[-1]

    yield make_one
    for one in made:
        if one.server.process.poll() is None:
            assert one.client.request("DELETE", one.path).status in (200, 404)


def says(container, address, port=80):
    """What a TCP peer says to the container; empty if it is not reached."""
    return container.sh(f"nc -w 5 {address} {port} </dev/null")[1].decode().strip()


def refused(container, address, port=80):
    status, out, err = container.sh(f"nc -w 5 {address} {port} </dev/null")
    assert status != 0 and not out, (address, port, out)
    return err.decode()
