"""The options of Concourse's worker: each is understood under its own name (options.def, concourse.def)."""
import os
import re
import subprocess

import pytest

from conftest import TOP
from serverproc import PROGRAM, refused_start

# Those of Concourse's worker.
FLAGS = """
    tsa-host tsa-public-key tsa-worker-private-key rebalance-interval connection-drain-timeout sweep-interval
    container-sweeper-max-in-flight volume-sweeper-max-in-flight garden-request-timeout
    name team tag ephemeral max-active-tasks version http-proxy https-proxy no-proxy certs-dir work-dir resource-types
    bind-ip bind-port debug-bind-ip debug-bind-port healthcheck-bind-ip healthcheck-bind-port healthcheck-timeout
    external-garden-url log-level runtime baggageclaim-bind-ip baggageclaim-bind-port baggageclaim-debug-bind-ip
    baggageclaim-debug-bind-port baggageclaim-driver baggageclaim-btrfs-bin baggageclaim-mkfs-bin baggageclaim-volumes
    baggageclaim-overlays-dir baggageclaim-disable-user-namespaces baggageclaim-p2p-interface-name-pattern
    baggageclaim-p2p-interface-family baggageclaim-log-level containerd-bin containerd-config containerd-log-level
    containerd-init-bin containerd-cni-plugins-dir containerd-seccomp-profile containerd-oci-hooks-dir
    containerd-request-timeout containerd-max-containers containerd-privileged-mode containerd-allowed-device
    containerd-external-ip containerd-dns-proxy-enable containerd-dns-server containerd-additional-hosts
    containerd-restricted-network containerd-network-pool containerd-mtu containerd-allow-host-access
    containerd-v6-enable containerd-v6-pool containerd-v6-disable-masquerade garden-bin garden-config
    garden-dns-proxy-enable garden-max-containers garden-network-pool tracing-service-name tracing-otlp-address
    tracing-jaeger-endpoint tracing-honeycomb-api-key tracing-stackdriver-projectid
""".split()


@pytest.fixture(scope="module")
def table():
    """Flag to variable and what becomes of it, as the program says."""
    lines = subprocess.run([PROGRAM, "manual", "flags"], stdout=subprocess.PIPE, check=True, text=True).stdout
    rows = [[cell.strip(" `") for cell in line.split("|")[1:4]] for line in lines.splitlines()[2:]]
    return {name.removeprefix("--"): (variable, what) for name, variable, what in rows}


@pytest.mark.parametrize("flag", FLAGS)
def test_every_option_of_concourse_is_known_by_its_flag_and_its_variable(table, flag):
    variable = table[flag][0]
    proxies = {"http-proxy": "http_proxy", "https-proxy": "https_proxy", "no-proxy": "no_proxy"}
    assert variable == proxies.get(flag, "CONCOURSE_" + flag.upper().replace("-", "_"))


def test_the_table_in_the_package_is_that_of_the_program():
    """`cloche manual flags > packaging/flags.md` makes it anew."""
    made = subprocess.run([PROGRAM, "manual", "flags"], stdout=subprocess.PIPE, check=True, text=True).stdout
    assert (TOP / "packaging/flags.md").read_text() == made


@pytest.mark.parametrize("path", ["README.md", "packaging/cloche.service", "packaging/worker.env"])
def test_every_variable_that_is_named_is_known(path):
    named = set(re.findall(r"\b(?:CLOCHE|CONCOURSE)_[A-Z0-9_]+", (TOP / path).read_text()))
    known = subprocess.run([PROGRAM, "--help"], stdout=subprocess.PIPE, check=True, text=True).stdout
    assert named and named <= set(re.findall(r"\b(?:CLOCHE|CONCOURSE)_[A-Z0-9_]+", known))


def test_the_unit_leaves_containers_alone():
    unit = (TOP / "packaging/cloche.service").read_text().splitlines()
    assert {"KillMode=process", "ExecStart=/usr/local/sbin/cloche worker"} <= set(unit)


def test_options_without_effect_are_named_in_the_log(start_server):
    one = start_server("--baggageclaim-btrfs-bin", "/bin/btrfs", env={
        **os.environ, "CONCOURSE_CONTAINERD_BIN": "/bin/containerd", "CONCOURSE_GARDEN_UNHEARD_OF": "1"})
    remarks = [line["data"]["remark"].split(":")[0] for line in one.log_lines()
               if line["message"] == "cloche.option-without-effect"]
    assert remarks == [f"{name} has no effect" for name in
                       ("CONCOURSE_CONTAINERD_BIN", "CONCOURSE_GARDEN_UNHEARD_OF", "--baggageclaim-btrfs-bin")]


@pytest.mark.parametrize("flag", ["external-garden-url", "containerd-seccomp-profile", "containerd-oci-hooks-dir",
                                  "garden-config", "garden-apparmor", "garden-network-plugin"])
def test_what_would_be_dangerous_to_ignore_is_refused_with_the_reason(table, tmp_path, flag):
    variable, what = table[flag]
    code, text = refused_start(directory=tmp_path, env={**os.environ, variable: "/x"})
    assert code == 1 and text == f"cloche: {variable}: {what.removeprefix('**refused**: ')}\n"


def test_names_of_containerd_and_guardian_set_limits_and_network(start_server):
    one = start_server(env={**os.environ, "CONCOURSE_CONTAINERD_MAX_CONTAINERS": "1", "CONCOURSE_GARDEN_MTU": "1234",
                            "CONCOURSE_CONTAINERD_ADDITIONAL_HOSTS": "1.2.3.4 somewhere"})
    one.client.create("only")
    reply = one.client.request("POST", "/containers", {"handle": "more"})
    assert reply.status == 500 and "max containers reached" in reply.json["Message"]
    assert one.client.output("only", "cat /sys/class/net/eth0/mtu; grep somewhere /etc/hosts") == \
        "1234\n1.2.3.4 somewhere\n"


@pytest.mark.parametrize("variable, value, expected", [
    ("CONCOURSE_GARDEN_MTU", "wide", "BYTES"), ("CONCOURSE_REBALANCE_INTERVAL", "soon", "DURATION"),
    ("CONCOURSE_CONNECTION_DRAIN_TIMEOUT", "1 hour", "DURATION"), ("CONCOURSE_SWEEP_INTERVAL", "-1s", "DURATION"),
    ("CONCOURSE_CONTAINER_SWEEPER_MAX_IN_FLIGHT", "many", "N"), ("CONCOURSE_VOLUME_SWEEPER_MAX_IN_FLIGHT", "1.5", "N"),
    ("CONCOURSE_GARDEN_REQUEST_TIMEOUT", "5", "DURATION"), ("CONCOURSE_MAX_ACTIVE_TASKS", "-1", "N")])
def test_a_bad_value_names_the_variable_that_has_it(tmp_path, variable, value, expected):
    code, text = refused_start(directory=tmp_path, env={**os.environ, variable: value})
    assert (code, text) == (1, f"cloche: {variable} '{value}': expected {expected}\n")


@pytest.mark.parametrize("words", [("--no-such-option",), ("--no-such-option", "x"), ("strange",)])
def test_an_unknown_option_is_named(tmp_path, words):
    code, text = refused_start(*words, directory=tmp_path)
    assert code == 1 and text.startswith("cloche: ") and words[0] in text
