"""The benchmark itself: that it measures what it says, goes on when somebody fails, and leaves nothing behind."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "api")]

import serverproc  # also puts all of this into a network namespace of its own
import common
import driver
import leaks
import report
import scripts

GUARD = 300


def bench(*args, prefix=(), env=None):
    command = [*prefix, "/usr/bin/python3", HERE / "bench.py", *args]
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=GUARD, check=False, env=env)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return driver.build(tmp_path_factory.mktemp("bench") / "driver")


@pytest.fixture
def null(program):
    server = driver.NullServer(program)
    yield server
    server.close()


@pytest.fixture
def asker(program, null):
    asker = driver.Driver(program, null.address, null.address)
    yield asker
    asker.close()


# ---- rounds

def test_a_case_that_is_late_makes_a_few_rounds_and_says_how_many_it_did_not():
    done, deadline = [], common.DEADLINE
    deadline.set(1e-9)
    try:
        common.rounds(10, 0, [common.Candidate("one", lambda: done.append(1))], [], "nothing")
    finally:
        deadline.set(0)
    assert len(done) == deadline.MIN_ROUNDS and deadline.cut == ["7 of 10 rounds of nothing: no time was left"]
    deadline.cut.clear()
    common.rounds(10, 0, [common.Candidate("one", lambda: done.append(1))], [], "nothing")
    assert len(done) == deadline.MIN_ROUNDS + 10 and not deadline.cut


# ---- the driver

@pytest.mark.parametrize("mode", ["kept", "fresh"])
def test_every_client_runs_the_script_so_many_times(asker, mode):
    asker.learn("cycle", scripts.cycle())
    seconds, ms = asker.run("cycle", mode, clients=3, n=4)
    assert {what: len(values) for what, values in ms.items()} == {"create": 12, "run": 12, "destroy": 12}
    assert all(0 < value <= seconds * 1e3 for values in ms.values() for value in values)


def test_steps_of_one_label_count_together(asker):
    asker.learn("copies", scripts.copies("parent"))
    assert list(asker.run("copies")[1]) == ["copy", "privileged flip", "destroy of a copy"]


@pytest.mark.parametrize("name", scripts.CONCOURSE)
def test_recordings_become_scripts(asker, name):
    recording, handle = scripts.CONCOURSE[name]
    steps = scripts.Flow(recording, handle, "image", "/live/").steps
    assert sum(step.kind == "exec" for step in steps) == 1
    assert all(scripts.WORKER_LIVE not in step.body and handle not in step.path for step in steps)
    asker.learn("flow", [step._replace(kind="call" if step.kind == "refused" else step.kind) for step in steps])
    assert set(asker.run("flow")[1]) >= {"create", "exec", "destroy", "volumes"}


def test_what_is_not_answered_as_it_should_is_an_error_and_the_next_is_asked(asker):
    asker.learn("refused", [scripts.REQUESTS["ping"]._replace(kind="refused")])
    asker.learn("ping", [scripts.REQUESTS["ping"]])
    with pytest.raises(driver.PeerFailed, match="ping: status 200"):
        asker.run("refused")
    assert asker.run("ping")[1]["ping"]


@pytest.mark.parametrize("line, words", [("run nothing kept h 1 1", "no such script"), ("run x", "run NAME"),
                                         ("what", "script or run"), ("script s\na\tb\n.", "seven fields"),
                                         ("script s\na\tmoon\tcall\tGET\t/\t\t\n.", "unknown api")])
def test_bad_lines_are_named(asker, line, words):
    with pytest.raises(driver.PeerFailed, match=words):
        asker._ask(line + "\n")  # pylint: disable=protected-access


# ---- bad input

@pytest.mark.parametrize("args, words", [
    (["--only", "cycles+moon"], "unknown case 'moon'; there are: cycles + requests"),
    (["--peers", "floor+moon"], "unknown peer 'moon'; there are: null server"),
    (["--garden", "http://127.0.0.1:1"], "needs a --label"),
    (["--garden", "https://127.0.0.1:1", "--label", "x"], "http://HOST:PORT is expected"),
    (["--garden", "127.0.0.1:1", "--label", "runc"], "the same name"),
    (["--program", "/nothing"], "make all"),
])
def test_bad_options_are_named(args, words):
    done = bench(*args)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_peer_that_dies_does_not_take_the_others_along(program):
    """A server that ends with its 13th connection, which is the first of the fifth cycle."""
    victim = subprocess.Popen([program, "--null", "13"], stdout=subprocess.PIPE, text=True)
    port = int(victim.stdout.readline())
    try:
        done = bench("--brief", "--only-peers", "--only", "cycles+requests", "--peers", "null server",
                     "--garden", f"http://127.0.0.1:{port}", "--label", "victim")
    finally:
        victim.kill()
        victim.wait()
        victim.stdout.close()
    assert done.returncode == 1, done.stderr
    assert "victim failed in round 3 of cycles" in done.stdout
    assert "| create | null server | 4 |" in done.stdout
    assert "| ping, new connection | null server |" in done.stdout


def test_without_root_the_rest_is_measured(tmp_path):
    tmp_path.chmod(0o777)
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    readable = subprocess.run([*drop, "test", "-r", HERE / "bench.py"], check=False)
    if readable.returncode:
        pytest.skip("nobody may not read this directory")
    done = bench("--brief", "--only", "cycles+volumes", prefix=drop, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert "Not there: cloche, floor, runc, crun, podman and volumes: need root" in done.stdout
    assert "Not there: volumes: needs a server of our own" in done.stdout
    assert "| create | null server | 4 |" in done.stdout
    assert list(tmp_path.iterdir()) == []


# ---- all of it, in small

def test_our_server_and_another_one_by_url(tmp_path):
    """The other one is ours as well, but nothing is known of it but its addresses."""
    other = serverproc.Server(pool=64)
    try:
        at = [f"http://127.0.0.1:{client.address[1]}" for client in (other.client, other.volumes)]
        done = bench("--brief", "--only", "cycles+requests+parallel+concourse+loss", "--peers", "null server+floor", "--out", tmp_path,
                     "--garden", at[0], "--baggageclaim", at[1], "--label", "other")
        assert not other.client.handles() and not other.volumes.handles()
    finally:
        other.finish()
    assert done.returncode == 0, done.stdout + done.stderr
    raw = json.loads((tmp_path / "figures.json").read_text())
    assert raw["about"]["remarks"] == []
    for what in ("create", "whole cycle", "attach", "concourse check", "concourse task"):
        assert len(raw["ms"][f"{what}/cloche"]) == len(raw["ms"][f"{what}/other"]) > 0
    for clients in ("1", "8", "32"):
        assert set(raw["cycles_per_second"][clients]) == {"null server", "floor", "cloche", "other"}
    kernel = {who: sum(ms for _, ms in rounds) for who, rounds in raw["processor_ms_per_cycle"]["32"].items()}
    assert kernel["floor"] > 0 and kernel["cloche"] > 0 and kernel["other"] > 0, kernel  # it is counted by ticks
    assert {name.rsplit("/", 1)[1] for name in raw["lost"]} == {"cloche", "other"}
    assert all(values == [0] for values in raw["lost"].values())
    text = (tmp_path / "report.md").read_text()
    assert text.lstrip().startswith("### Distance to the floor")
    has_matplotlib = subprocess.run(["/usr/bin/python3", "-c", "import matplotlib"], stderr=subprocess.DEVNULL, check=False)
    if has_matplotlib.returncode == 0:
        assert "<svg" in (tmp_path / "ratios.svg").read_text()
    else:
        assert "python3-matplotlib is not installed" in done.stderr


def test_what_is_left_behind_is_found(tmp_path):
    group = next(pathlib.Path(path) for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.isdir(path))
    group /= f"bench-{os.getpid()}-test"
    group.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "below"], check=True)
    try:
        found = leaks.look([tmp_path], set(), False)
        assert f"directory {tmp_path}" in found
        assert f"mount {tmp_path / 'below'}" in found
        assert any(what.startswith("cgroup") and str(group) in what for what in found)
    finally:
        subprocess.run(["umount", tmp_path / "below"], check=True)
        subprocess.run(["umount", tmp_path], check=True)
        group.rmdir()
    assert leaks.look([tmp_path / "nothing"], set(), False) == []


def test_a_figure_over_its_budget_is_said():
    raw = {"ms": {"create/cloche": [3.0], "run/cloche": [1.0]}, "lost_most": 7}
    text = report.budget_table(raw)
    assert "| create, pool warm | ≤ 2.5 ms | 3.00 ms | **no** |" in text
    assert "| run true until its exit is known | ≤ 2 ms | 1.00 ms | yes |" in text
    assert "| bytes of output lost | 0 | 7 | **no** |" in text
    assert "memory" not in text


def test_the_floor_decides_what_several_clients_can_get():
    text = report.budget_table({"ms": {}, "cycles_per_second": {"8": {"cloche": [90.0, 80.0, 100.0], "floor": [100.0]}}})
    assert "| 8 clients, whole cycles | ≥ 150/s | 90/s | **no** |" in text
    assert "| 8 clients, whole cycles | ≥ 0.8 × floor, in 8 processes | 0.90 × | yes |" in text
    text = report.budget_table({"ms": {}, "cycles_per_second": {"8": {"cloche": [140.0], "floor": [200.0]}}})
    assert "| 8 clients, whole cycles | ≥ 150/s | 140/s | **no** |" in text and "0.8 × floor" not in text
