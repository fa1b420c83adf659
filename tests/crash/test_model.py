"""4.60: random operations, and random kill -9 of the server and of shims. CLOCHE_MODEL_SECONDS says how long (20; 600 in the
long form, hours if you like), CLOCHE_SEED repeats a run as far as kills at random moments can be repeated."""
import os
import time

from crashlib import LONG, SEED  # first: it finds the tests of the API
import oracle
from conftest import nothing_left, server, start_server  # noqa: F401
from model import Killer, Model
from serverproc import NO_POOL

SECONDS = int(os.environ.get("CLOCHE_MODEL_SECONDS", "600" if LONG else "20"))
PAUSES = (1, 30) if SECONDS > 60 else (0.2, 1.5)  # between two kills
AGREE_EVERY = 25


def test_model_and_server_agree(start_server, tmp_path):  # noqa: F811
    one = start_server(*NO_POOL, directory=tmp_path)
    oracle.learn_cgroup_name(one)
    before = oracle.snapshot(one)
    print("seed", SEED)
    model = Model(one, SEED)
    killer = Killer(model, SEED, PAUSES)
    killer.start()
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            for _ in range(AGREE_EVERY):
                model.step()
            model.agree()
    except Exception:
        print("\n".join(model.log[-60:]))
        raise
    finally:
        killer.end()
    model.agree()
    print(f"{len(model.log)} operations, {killer.n_servers} servers and {killer.n_shims} shims killed")
    assert killer.n_servers and killer.n_shims
    one.destroy_all()
    one.destroy_volumes()
    oracle.settled(one, before)
