"""The security tests can fail: for each guard of backend/base/guard.h a server is built that lacks
it, and tests that pass on the whole server must fail on that one, for the reason given here."""
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
RELEASE = TOP / "build/release"
SOURCES = [path for folder in ("backend", "server", "volumes") for path in sorted((TOP / folder).rglob("*.c"))]
KERNEL, SECURITY, FRAMING = "test_security_kernel.py", "test_security.py", "test_framing.py"

# guard: {test: what the message of its failure must contain}
GUARDS = {
    "FILTER": {
        f"{KERNEL}::test_p0_33_34_36_denied_calls[native-root]": "'clone-cgroup': 'ok, not EPERM'",
        f"{KERNEL}::test_p0_35_address_families[native]": "netlink-netfilter"},
    # Without a mount namespace of its own the container may change no mount at all, so nothing can be
    # undone either; the test then misses the rights that root inside should have. That it would see a mount
    # which is undone is shown in test_controls.py.
    "LOCKED_MOUNTS": {
        f"{SECURITY}::test_p0_15_mounts_are_locked_against_every_capability": "the attacker had its capabilities"},
    "CAPS": {
        "test_isolation.py::test_line_80_capabilities": "{'CapEff': "},
    "MASKS": {
        "test_isolation.py::test_line_82_masked[/proc/keys]": "regular",
        f"{KERNEL}::test_files_of_proc_that_can_be_written": "/proc/sys/"},
    "NODEV": {
        f"{SECURITY}::test_p0_20_flags_of_the_root_and_of_binds": "'nodev' in ['rw'",
        f"{KERNEL}::test_p0_44_nodes_of_an_image_cannot_be_opened": "'/null', 'ok'"},
    "RESOLVE": {
        "test_controls.py::test_users_of_the_host_are_unknown": "the run was accepted"},
    "SEAL": {
        f"{SECURITY}::test_p0_1_shim_and_init_run_from_sealed_memory": "(0 & 14) == 14"},
    "DEVICES": {
        f"{KERNEL}::test_p0_44_device_list": "a *:* rwm",
        f"{KERNEL}::test_p0_44_device_list_of_a_privileged_container": "a *:* rwm"},
    "PRIVILEGE": {
        "test_privileged_modes.py::test_every_mode_but_full_has_ids_of_its_own[ignore]": "'4294967295'",
        "test_privileged_modes.py::test_capabilities[fuse-only]": "{'CapEff': "},
    "DEVICE_PROGRAM": {
        "test_devices.py::test_p0_44_devices_that_a_group_may_use[by program-False]": "'c:1:1'",
        "test_devices.py::test_p0_44_a_privileged_container_makes_nodes_but_cannot_open_them[by program]": "['open', 'b:7:0', 'ok']"},
    "TREE_CAPS": {
        "test_tree.py::test_confined_before_the_first_byte": "== 2147483675",
        "test_tree.py::test_a_reader_cannot_write": "== (1 << 2)"},
    "TREE_FILTER": {
        "test_tree.py::test_confined_before_the_first_byte": "the parser alone has a filter"},
    "VIEW_CAPS": {
        "test_files.py::test_line_72_what_the_user_may_not_write": "status=200"},
    "VIEW_USERNS": {
        "test_files.py::test_root_of_the_container_is_not_the_hosts": "status=200"},
    "DIGESTS": {
        "test_images.py::test_damaged_layouts": "status=200"},
    "XATTRS": {
        "test_tree.py::test_t_i9_privileges_in_metadata": "Operation not permitted"},
    "ISOLATION": {
        "test_network_default.py::test_a_neighbour_is_not_reached": "80, b'"},
    "HOST_ACCESS": {
        "test_network_default.py::test_the_host_is_not_reached[HostIP]": "b'listener"},
    "METADATA": {
        "test_network_default.py::test_metadata_services_are_not_reached[169.254.169.254]": "80, b'192.0.2.2"},
    "ANTISPOOF": {
        "test_network_attacks.py::test_a_source_address_of_a_neighbour_gets_nowhere": "nothing more",
        "test_network_attacks.py::test_frames_of_others_change_nothing_on_the_host": "02:66:66",
        "test_network_attacks.py::test_a_sibling_of_a_subnet_is_nobody_else[IPv6]": "fake"},
    "OWNER": {
        "test_bombs.py::test_p0_45_inotify_of_many_users": "(0, 'EMFILE')"},
    "STORE_MODE": {
        "test_volumes_store.py::test_a_store_that_was_open_is_closed": "== 448"},
    # set-uid bits in a mount of no namespace are void whatever its flags
    "STORE_FLAGS": {
        "test_volumes_store.py::test_devices_cannot_be_opened_in_the_servers_mount": "DID NOT RAISE"},
    "BROWSER": {
        "test_limits_of_http.py::test_p0_67_browsers_are_refused[Origin null]": "403",
        "test_limits_of_http.py::test_p0_67_browsers_are_refused[Sec-Fetch-Mode no-cors]": "403"},
    "FRAMING": {
        f"{FRAMING}::test_p0_68_smuggling[length and chunked]": "the hidden request was carried out",
        f"{FRAMING}::test_p0_68_smuggling[length, space before the colon]": "the hidden request was carried out"},
}


def sources_with(guard):
    return [path for path in SOURCES if f"GUARD({guard})" in path.read_text()]


def make(*arguments):
    result = subprocess.run(["make", "-j2", *arguments, "all"], cwd=TOP, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode == 0, result.stdout


@pytest.fixture(scope="session", autouse=True)
def release():
    make("MODE=release")


def build_without(guard):
    """The release's objects, but for those of the sources that hold the guard, and what make makes of them."""
    target = TOP / "build/break" / guard
    left_out = {path.relative_to(TOP).with_suffix(".o") for path in sources_with(guard)}
    shutil.rmtree(target, ignore_errors=True)
    for path in [*RELEASE.rglob("*.o"), RELEASE / "busybox-root.tar"]:
        name = path.relative_to(RELEASE)
        plain = name.relative_to("static") if name.parts[0] == "static" else name
        if plain not in left_out and plain.name != "shim_image.o" and plain.parts[0] != "tests":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / name)
    make("MODE=break", f"BREAK={guard}")
    return target


def run_tests(build, names, report):
    """Each test's outcomes: kind (failure, error, skipped; none if it passed) and message."""
    environment = {**os.environ, "MODE": "break", "CLOCHE_BUILD": str(build)}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", f"--junitxml={report}",
         *(f"tests/{'mutation' if name.startswith('test_controls') else 'api'}/{name}" for name in names)],
        cwd=TOP, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode in (0, 1) and report.exists(), result.stdout
    outcomes = {}
    for case in xml.parse(report).iter("testcase"):
        name = f"{case.get('classname').split('.')[-1]}.py::{case.get('name')}"
        outcomes[name] = [(child.tag, child.get("message")) for child in case]
    assert outcomes.keys() == set(names), result.stdout
    return outcomes


def test_every_guard_is_in_the_table():
    assert GUARDS.keys() == {name for path in SOURCES for name in re.findall(r"\bGUARD\((\w+)\)", path.read_text())}


def test_the_whole_server_passes(tmp_path):
    names = [name for tests in GUARDS.values() for name in tests]
    outcomes = run_tests(RELEASE, names, tmp_path / "report.xml")
    assert not [name for name, found in outcomes.items() if {kind for kind, _ in found} - {"skipped"}], outcomes


@pytest.mark.parametrize("guard", GUARDS)
def test_without(guard, tmp_path):
    outcomes = run_tests(build_without(guard), GUARDS[guard], tmp_path / "report.xml")
    for name, text in GUARDS[guard].items():
        kinds = [kind for kind, _ in outcomes[name]]
        if kinds == ["skipped"]:
            pytest.skip(f"{name}: {outcomes[name][0][1]}")
        assert kinds == ["failure"], f"{name} without {guard}: {outcomes[name] or 'passed'}"
        assert text in outcomes[name][0][1], f"{name} failed for another reason: {outcomes[name]}"
