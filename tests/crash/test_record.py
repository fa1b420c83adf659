"""4.40: a record that is damaged on disk. A start serves, or says why not; what runs goes on, and no volume is deleted."""
import contextlib
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from crashlib import LONG, SEED  # first: it finds the tests of the API
import oracle
from conftest import Container, nothing_left, server, start_server  # noqa: F401
from gardenlib import wait_until
from serverproc import NO_POOL

RECORDS = ("state.db", "volumes/state.db")


def cut_off(path, rng):
    with open(path, "r+b") as file:
        file.truncate(rng.randrange(path.stat().st_size))


def zero_page(path, rng):
    overwrite(path, rng.randrange(path.stat().st_size // 4096) * 4096, bytes(4096))


def flip_bits(path, rng):
    for _ in range(20):
        overwrite(path, rng.randrange(path.stat().st_size), bytes([rng.randrange(256)]))


def no_database(path, rng):
    path.write_bytes(bytes(rng.randrange(256) for _ in range(8192)))


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


DAMAGES = [cut_off, zero_page, flip_bits, no_database]


def trees(one):
    """What there is of volumes, wherever it was set aside; what is being removed meanwhile need not be seen."""
    found = []
    for directory, _, files in os.walk(one.work / "volumes"):
        if "file" in files:
            with contextlib.suppress(FileNotFoundError):
                found.append((Path(directory) / "file").read_text())
    return sorted(found)


@pytest.mark.parametrize("round_", range(20 if LONG else 1))
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("record", RECORDS)
def test_4_40_a_record_is_damaged(start_server, tmp_path, record, damage, round_):  # noqa: F811
    one = start_server(*NO_POOL, directory=tmp_path)
    one.volumes.make("v")
    one.volumes.fill("v", "file")
    box = Container(one, "box")
    process = box.run("read x; exit 5", id="asks")
    shims = oracle.shim_pids(one, oracle.all_tasks())
    before = trees(one)
    one.terminate()  # so that all of it is in the file
    process.close()
    path = one.work / record
    shutil.copy(path, tmp_path / "whole")
    damage(path, random.Random(f"{SEED} {record} {damage.__name__} {round_}"))
    log_size = one.start_process()
    wait_until(lambda: one.process.poll() is not None or "cloche.serving" in one.log_text(log_size), "it serves, or says why not")
    if one.process.poll() is not None:
        one.is_ended = True
        assert not Counter(before) - Counter(trees(one)), "a tree was lost"  # those of its trials are for the next start
        assert one.process.returncode == 1 and path.name in one.log_text(log_size), one.log_text(log_size)
        assert set(shims) <= oracle.all_tasks().keys(), "what runs was ended"
    else:
        wait_until(lambda: trees(one) == before, "its trees, and no more those of its trials")
        one.kill()
    for extra in ("-wal", "-shm"):
        (one.work / f"{record}{extra}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "whole", path)
    one.start()
    wait_until(lambda: trees(one) == before, "its trees, and no others")
