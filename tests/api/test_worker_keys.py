"""Keys of workers and gateways, in every form that operators have them in, and in none that ssh can use."""
import shutil
import subprocess

import pytest

from tsalib import make_key, wait_log


def reformat(key, form):
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "", "-P", "", "-m", form, "-f", key], check=True,
                   stdout=subprocess.DEVNULL)
    return key.read_text()


def as_openssh(key):
    return reformat(key, "RFC4716")


def as_pkcs1(key):
    return reformat(key, "PEM")


def as_pkcs8(key):
    return reformat(key, "PKCS8")


def as_concourse_writes_it(key):
    """concourse generate-key: PKCS#1 that calls itself PKCS#8."""
    text = as_pkcs1(key).replace("RSA PRIVATE KEY", "PRIVATE KEY")
    assert "BEGIN PRIVATE KEY" in text
    return text


def with_odd_line_ends(key):
    return "\n\n" + as_pkcs1(key).strip().replace("\n", "\r\n")


@pytest.mark.parametrize("form", [as_openssh, as_pkcs1, as_pkcs8, as_concourse_writes_it, with_odd_line_ends])
def test_the_worker_s_key_is_taken_in_any_form(cluster, start_worker, form):
    cluster.gateway()
    key = cluster.directory / "worker"
    key.write_text(form(key))
    key.chmod(0o644)  # as mounted secrets often are
    server = start_worker()
    cluster.wait_registered()
    copy, = (server.work / "run/cluster").glob("*.key")
    assert copy.stat().st_mode & 0o777 == 0o600 and copy.parent.stat().st_mode & 0o777 == 0o700
    assert key.stat().st_mode & 0o777 == 0o644  # and what the operator has is left alone


def test_several_host_keys_in_the_forms_of_either_file(cluster, start_worker, ssh_keys):
    cluster.gateway()
    keys = cluster.directory / "keys.pub"
    host = (cluster.directory / "host.pub").read_text()
    keys.write_text(f"# web\n{(ssh_keys / 'other.pub').read_text()}\n[web]:2222 {host}")
    start_worker(host_key=keys)
    cluster.wait_registered()


def test_a_gateway_with_another_host_key_is_refused(cluster, start_worker, ssh_keys):
    gateway = cluster.gateway(key=make_key(cluster.directory / "wrong"))
    server = start_worker()
    line = wait_log(server, "cloche.worker.not-registered", gateway=gateway.at)
    assert "none of those in the file of --tsa-public-key" in line["data"]["error"]
    server.client.create("c")
    assert server.client.output("c", "echo here") == "here\n"
    assert not cluster.web.calls


def test_a_worker_that_the_gateway_does_not_know(cluster, start_worker, ssh_keys):
    gateway = cluster.gateway()
    server = start_worker(key=ssh_keys / "other")
    line = wait_log(server, "cloche.worker.not-registered", gateway=gateway.at)
    assert "--tsa-authorized-keys" in line["data"]["error"]
    assert not cluster.web.calls


def encrypted(key):
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-m", "PEM", "-f", key], check=True,
                   stdout=subprocess.DEVNULL)


def encrypted_openssh(key):
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", key], check=True,
                   stdout=subprocess.DEVNULL)


def public(key):
    shutil.copy(f"{key}.pub", key)


def damaged(key):
    text = as_pkcs1(key).splitlines(keepends=True)
    key.write_text("".join(text[:3] + text[5:]))


def directory(key):
    key.unlink()
    key.mkdir()


def too_long(key):
    key.write_text("x" * 70000)


@pytest.mark.parametrize("spoil, message, error", [
    (lambda key: key.unlink(), "cluster-failed", "cannot be read"),
    (directory, "cluster-failed", "not a file"),
    (too_long, "cluster-failed", "not a key"),
    (public, "cluster-failed", "no key in PEM form"),
    (encrypted, "cluster-failed", "passphrase"),
    (encrypted_openssh, "not-registered", "--tsa-"),
    (damaged, "not-registered", "--tsa-worker-private-key"),
], ids=["missing", "directory", "long", "public", "passphrase", "openssh-passphrase", "damaged"])
def test_a_key_that_is_none_is_named_and_the_server_stays(cluster, start_worker, spoil, message, error):
    cluster.gateway()
    key = cluster.directory / "worker"
    spoil(key)
    server = start_worker()
    line = wait_log(server, f"cloche.worker.{message}", error=error)
    assert message == "not-registered" or str(key) in line["data"]["error"]
    server.client.create("c")
    assert server.client.output("c", "echo here") == "here\n"


@pytest.mark.parametrize("option, variable", [("key", "CONCOURSE_TSA_WORKER_PRIVATE_KEY"),
                                              ("host_key", "CONCOURSE_TSA_PUBLIC_KEY")])
def test_a_key_that_is_not_named(cluster, start_worker, option, variable):
    cluster.gateway()
    server = start_worker(**{option: ""})
    assert option and wait_log(server, "cloche.worker.cluster-failed", error=variable)


def test_a_host_key_file_without_a_key(cluster, start_worker):
    cluster.gateway()
    keys = cluster.directory / "keys.pub"
    keys.write_text("ssh-rsa\n")
    server = start_worker(host_key=keys)
    wait_log(server, "cloche.worker.cluster-failed", error=f"--tsa-public-key '{keys}': line 1")


def test_a_key_that_comes_later_is_found(cluster, start_worker):
    cluster.gateway()
    key = cluster.directory / "worker"
    shutil.move(key, cluster.directory / "aside")
    server = start_worker()
    wait_log(server, "cloche.worker.cluster-failed")
    shutil.move(cluster.directory / "aside", key)
    cluster.wait_registered()
