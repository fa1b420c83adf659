"""What a worker brings along is what web can import, and it is ready once its cluster knows it."""
import json
import os

from gardenlib import HttpClient, wait_until
from roots import pack, unpack_busybox
from test_worker_health import free_port
from volumelib import imported


def make_type(directory, name, **metadata):
    """A type's directory with a busybox root of its own beside it."""
    (directory / name).mkdir(parents=True)
    (directory / name / "resource_metadata.json").write_text(json.dumps({"type": name, **metadata}))
    return unpack_busybox(directory / name / "rootfs")


def test_registered_types_and_certificates_can_be_imported_and_run(cluster, start_worker, tmp_path):
    types, certs = tmp_path / "types", tmp_path / "certs"
    packed = make_type(types, "packed", version="1.0", privileged=True)
    pack(packed, types / "packed/rootfs.tgz", "w:gz")
    make_type(types, "tree")
    (tmp_path / "ca.pem").write_text("a certificate")
    certs.mkdir()
    os.symlink(tmp_path / "ca.pem", certs / "link.pem")
    cluster.gateway()
    server = start_worker("--resource-types", types, "--certs-dir", certs)
    cluster.wait_registered()
    document = cluster.web.workers["w"]["document"]
    assert [(one["type"], one["image"], one["version"], one["privileged"]) for one in document["resource_types"]] == [
        ("packed", f"{types}/packed/rootfs.tgz", "1.0", True), ("tree", f"{types}/tree/rootfs", "", False)]
    for one in document["resource_types"]:
        volume = server.volumes.make(f"type-{one['type']}", imported(one["image"]))
        handle = server.client.create(f"c-{one['type']}", rootfs=f"raw://{volume['path']}")
        assert server.client.output(handle, "test -x /bin/sh && echo well") == "well\n"
    server.volumes.make("certs", imported(document["certs_path"], follow_symlinks=True))
    assert server.volumes.file("certs", "link.pem") == b"a certificate"


def test_a_type_that_is_broken_is_named_and_the_server_serves(cluster, start_worker, tmp_path):
    make_type(tmp_path / "types", "broken", privileged="yes")
    cluster.gateway()
    server = start_worker("--resource-types", tmp_path / "types")
    wait_until(lambda: "broken/resource_metadata.json: privileged: expected" in server.log_text(), "the reason")
    assert server.client.handles() == []


def test_a_worker_is_ready_once_it_is_registered(cluster, start_worker):
    port = free_port()
    gateway = cluster.gateway()
    gateway.stop()
    start_worker("--healthcheck-bind-port", port)
    health = HttpClient(("127.0.0.1", port))
    reply = health.request("GET", "/readyz")
    assert reply.status == 503 and reply.json["checks"][-1] == {
        "name": "cluster", "ok": False, "reason": "the cluster has not registered this worker: see the log"}
    assert health.request("GET", "/healthz").status == 200
    gateway.start()
    cluster.wait_registered()
    wait_until(lambda: health.request("GET", "/readyz").status == 200, "ready")
