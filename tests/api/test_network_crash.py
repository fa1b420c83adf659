"""kill -9 of the server while networks come and go: the next start finds out what there is, gives nothing out twice,
and when the containers are gone nothing of them is left."""
import os
import random
import threading
import time

import internet
import oracle
from gardenlib import wait_until
from netfixtures import outside  # noqa: F401 # a fixture

KILLS = int(os.environ.get("CLOCHE_KILLS", "5"))
SEED = int(os.environ.get("CLOCHE_SEED", "1"))
SPECS = ({}, {"network": "10.70.0.0/24"}, {"network": "10.71.0.0/28", "netin": [{}]}, {"netin": [{}, {}]},
         {"netout_rules": [{"protocol": 1, "networks": [{"start": "8.8.8.8"}], "ports": [{"start": 80, "end": 90}]}]},
         {"network": "10.72.0.2", "netout_rules": [{"protocol": 2}]})


class Client(threading.Thread):
    """Makes and removes containers until the server is gone."""

    def __init__(self, server, number, dice):
        super().__init__()
        self.client, self.number, self.dice = server.client, number, dice

    def run(self):
        mine = []
        try:
            for n in range(1000):
                handle = f"box-{self.number}-{time.monotonic_ns()}-{n}"
                reply = self.client.request("POST", "/containers", {"handle": handle, **self.dice.choice(SPECS)})
                if reply.status == 200:
                    mine.append(handle)
                if mine and self.dice.random() < 0.3:
                    self.client.request("POST", f"/containers/{self.dice.choice(mine)}/net/in", {})
                if len(mine) > 3 or (mine and self.dice.random() < 0.5):
                    self.client.request("DELETE", f"/containers/{mine.pop(self.dice.randrange(len(mine)))}")
        except (EOFError, OSError, AssertionError, ValueError):
            pass  # it was killed


def check_converged(server):
    infos = {handle: server.client.info(handle) for handle in server.client.handles()}
    addresses = [info["ContainerIP"] for info in infos.values()]
    assert all(addresses) and len(set(addresses)) == len(addresses), addresses
    ports = [port["HostPort"] for info in infos.values() for port in info["MappedPorts"]]
    assert len(set(ports)) == len(ports)
    wait_until(lambda: len(oracle.addresses(server)) == len(infos), "the record has those that live, and no more")
    wait_until(lambda: {name for name in oracle.links(server) if "-b" not in name} ==
               {f"cl{server.tag}-" + "".join(f"{int(part):02x}" for part in address.split(".")) for address in addresses},
               "the links are those of the containers")
    for handle in sorted(infos)[:3]:
        assert server.client.sh(handle, "nc -w 5 8.8.8.8 80 </dev/null")[1].decode().strip() == internet.HOST_ADDRESS


def test_a_kill_at_any_time_loses_no_address_and_leaves_nothing(start_server, outside):
    server = start_server()
    server.client.destroy(server.client.create())
    oracle.wait_for_pool(server)
    before = oracle.snapshot(server)
    dice = random.Random(SEED)
    for _ in range(KILLS):
        clients = [Client(server, n, random.Random(dice.random())) for n in range(3)]
        for client in clients:
            client.start()
        time.sleep(dice.uniform(0.02, 0.6))  # not an event: at any time
        server.kill()
        for client in clients:
            client.join(60)
        server.start()
        check_converged(server)
    for handle in server.client.handles("garden.state=all"):
        server.client.destroy(handle)
    oracle.settled(server, before)
