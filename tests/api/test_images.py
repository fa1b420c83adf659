"""Images by URI: the image map, OCI layouts, environments, what is kept and what is swept. Lines 107 and 108 of Garden's
acceptance list."""
import gzip
import hashlib
import json
import os
import platform
import subprocess

import oracle
import pytest
import roots
from archives import Member, directory, hardlink, symlink, tar
from conftest import Container
from gardenlib import wait_until

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"


class Layout:
    """An OCI layout in the making."""

    def __init__(self, path):
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.manifests = []

    def blob(self, data, **more):
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        digest = hashlib.sha256(data).hexdigest()
        self.blob_path(digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data), **more}

    def blob_path(self, digest):
        return self.path / "blobs/sha256" / digest.split(":")[-1]

    def manifest(self, *layers, env=(), **more):
        config = self.blob({"config": {"Env": list(env)}, "rootfs": {"type": "layers"}})
        return self.blob({"schemaVersion": 2, "config": config, "layers": [self.blob(layer) for layer in layers]},
                         mediaType=MANIFEST, **more)

    def add(self, *layers, tag=None, env=(), **more):
        self.put(self.manifest(*layers, env=env, **more), tag)
        return self

    def put(self, descriptor, tag=None):
        if tag:
            descriptor = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}}
        self.manifests.append(descriptor)
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.manifests}))


@pytest.fixture(scope="session")
def base_layer(root, tmp_path_factory):
    return roots.pack(root, tmp_path_factory.mktemp("layers") / "base.tar").read_bytes()


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "layout")


@pytest.fixture
def map_of(start_server, tmp_path):
    """A server with an image map of these lines."""
    def start(*lines):
        path = tmp_path / "map"
        path.write_text("# URI, path, environment\n\n" + "".join("\t".join(map(str, line)) + "\n" for line in lines))
        return start_server("--image-map", str(path))

    return start


def images(server):
    return sorted(os.listdir(server.work / "images"))


def container(server, uri, **spec):
    return Container(server, image={"uri": uri}, **spec)


def refused(server, uri):
    reply = server.client.request("POST", "/containers", {"handle": "no", "image": {"uri": uri}})
    assert reply.status in (500, 501), reply
    assert server.client.handles("garden.state=all") == []
    return reply.json["Message"]


# ---- the map -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["directory", "tar", "tar.gz", "tar.zst", "layout"])
def test_line_107_a_mapped_image(map_of, root, tmp_path, base_layer, layout, form):
    path = {"directory": root, "layout": layout.path}.get(form, tmp_path / "image")
    if form == "layout":
        layout.add(gzip.compress(base_layer, 1))
    elif form != "directory":
        path.write_bytes(gzip.compress(base_layer, 1) if form == "tar.gz" else base_layer)
    if form == "tar.zst":
        subprocess.run(["zstd", "-q", "-1", path, "-o", tmp_path / "zst"], check=True)
        path = tmp_path / "zst"
    (tmp_path / "env").write_text("FROM_IMAGE=yes\n")
    server = map_of(("docker:///app#tag", path, tmp_path / "env"), ("docker:///other", "/nowhere"))
    for field in ("image", "rootfs"):
        spec = {"image": {"uri": "docker:///app#tag"}} if field == "image" else {"rootfs": "docker:///app#tag"}
        box = Container(server, **spec)
        assert box.output("cat /image-file; echo $FROM_IMAGE") == "from the image\nyes\n"
        box.output("echo changed >/image-file")
        box.destroy()


@pytest.mark.parametrize("uri", ["docker:///app", "docker:///app#other", "docker:///busybox", "oci:///x", "https://a/b"])
def test_line_107_what_is_not_mapped(map_of, root, uri):
    message = refused(map_of(("docker:///app#tag", root)), uri)
    assert uri in message and "--image-map" in message


def test_without_a_map(start_server):
    assert "--image-map" in refused(start_server(), "docker:///busybox")


def test_what_is_mapped_and_not_there(map_of, root, tmp_path):
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "f")
    (tmp_path / "bad-env").write_text("A=1\nno assignment\n")
    server = map_of(("a:b", tmp_path / "missing"), ("c:d", root, tmp_path / "no-env"), ("e:f", tmp_path / "f"),
                    ("g:h", root, tmp_path / "bad-env"), ("i:j", root))
    assert "No such file" in refused(server, "a:b") and "image a:b" in refused(server, "a:b")
    assert "no-env" in refused(server, "c:d")
    assert "neither a directory nor an archive" in refused(server, "e:f")
    assert "bad-env" in refused(server, "g:h") and "NAME=value" in refused(server, "g:h")
    assert "only an OCI layout has tags" in refused(server, "i:j#tag")


@pytest.mark.parametrize("line,why", [
    ("docker:///a", "expected URI<TAB>path"), ("\t/path", "expected URI<TAB>path"), ("docker:///a\trelative", "absolute"),
    ("docker:///a\t/b\trelative", "absolute"), ("docker:///a\t/b\t/c\t/d", "three parts"),
    ("docker:///a\t/b\ndocker:///a\t/c", "has a line already")])
def test_a_map_that_means_nothing(start_server, tmp_path, line, why):
    server = start_server()
    server.terminate()
    (tmp_path / "map").write_text(f"# one\n{line}\n")
    size = server.start_process("--image-map", str(tmp_path / "map"))
    assert server.process.wait(60) == 1
    text = server.log_path.read_bytes()[size:].decode()
    assert why in text and "--image-map" in text and f"line {2 + line.count(chr(10))}" in text
    server.start()


def test_a_map_that_is_not_there(start_server, tmp_path):
    server = start_server()
    server.terminate()
    server.start_process("--image-map", str(tmp_path / "missing"))
    assert server.process.wait(60) == 1
    server.start()


# ---- environments ------------------------------------------------------------------------------------------------------

def test_line_108_the_image_comes_first(map_of, root, tmp_path):
    (tmp_path / "env").write_text("PATH=/from/image:/bin\nA=image\nB=image\nC=image\nEMPTY=\n")
    server = map_of(("docker:///app", root, tmp_path / "env"))
    box = container(server, "docker:///app", env=["B=container", "C=container"])
    expected = "/from/image:/bin image container process\n"

    def seen():
        return box.output("echo $PATH $A $B $C $EMPTY", env=["C=process"])

    assert seen() == expected
    environ = box.program("/bin/cat", "/proc/self/environ")[1].split(b"\0")
    assert environ[:3] == [b"PATH=/from/image:/bin", b"A=image", b"B=container"]
    server.kill()
    server.start()
    box.client = server.client
    (tmp_path / "env").write_text("A=changed\n")
    assert seen() == expected
    box.destroy()
    again = container(server, "docker:///app")
    assert again.output("echo $A $B") == "changed\n"
    again.destroy()


def test_the_environment_of_a_layout(map_of, tmp_path, base_layer, layout):
    layout.add(base_layer, env=["PATH=/bin:/layout", "L=yes"])
    (tmp_path / "env").write_text("F=file\n")
    server = map_of(("a", layout.path), ("b", layout.path, tmp_path / "env"))
    for uri, expected in (("a", "/bin:/layout yes\n"), ("b", "file\n")):
        box = container(server, uri)
        assert box.output("[ $F ] || echo $PATH $L; [ ! $F ] || echo $F$L") == expected
        box.destroy()


# ---- layouts -----------------------------------------------------------------------------------------------------------

def test_layers_one_over_the_other(map_of, base_layer, layout, root):
    first = tar(directory("d"), "d/gone", "d/stays", directory("opaque"), "opaque/old", directory("tree"),
                directory("tree/below"), "tree/below/f", "becomes-dir", directory("becomes-file"), "becomes-file/x",
                symlink("link", "/etc"), "file", Member("mode", b"1", mode=0o600), directory("linked"), "linked/target",
                "kept")
    second = tar(Member("d/.wh.gone"), Member("opaque/.wh..wh..opq"), "opaque/new", Member(".wh.tree"),
                 directory("becomes-dir"), "becomes-dir/y", "becomes-file", Member(".wh.never-there"),
                 Member(".wh..wh.plnk"), directory("link"), "link/inside", Member("mode", b"2", mode=0o644),
                 hardlink("linked/hard", "linked/target"), Member("nowhere/.wh.x"))
    third = tar(directory("tree"), "tree/again", Member(".wh.kept"), "d/more")
    layout.add(base_layer, gzip.compress(first), second, third)
    server = map_of(("app", layout.path))
    box = container(server, "app")
    assert box.output("ls -d d/* opaque/* tree/* becomes-dir/* link/* kept 2>/dev/null; true", dir="/").split() == [
        "becomes-dir/y", "d/more", "d/stays", "link/inside", "opaque/new", "tree/again"]
    assert box.output("cat /becomes-file /mode; stat -c ' %h' /linked/hard; find / -xdev -name '.wh*'; ls /etc/passwd") == (
        "content of becomes-file2 2\n/etc/passwd\n")
    box.destroy()


def test_a_tag_picks_one(map_of, base_layer, layout):
    layout.add(base_layer, tar("one"), tag="1").add(base_layer, tar("two"), tag="2")
    server = map_of(("docker:///app", layout.path), ("docker:///app#mapped", layout.path))
    for tag, name in (("1", "one"), ("2", "two")):
        box = container(server, f"docker:///app#{tag}")
        assert box.output("ls -d /one /two 2>/dev/null; true") == f"/{name}\n"
        box.destroy()
    assert "must name a tag" in refused(server, "docker:///app")
    assert "no image with the tag 3" in refused(server, "docker:///app#3")
    assert "no image with the tag mapped" in refused(server, "docker:///app#mapped")


def test_platforms_and_indexes_in_indexes(map_of, base_layer, layout):
    other = {"os": "linux", "architecture": "s390x"}
    wrong = layout.manifest(tar("wrong"), platform=other)
    right = layout.manifest(base_layer, tar("right"), platform={"os": "linux", "architecture": ARCH})
    inner = layout.blob({"schemaVersion": 2, "manifests": [wrong, right]}, mediaType=INDEX)
    layout.put(inner, "both")
    server = map_of(("app", layout.path))
    box = container(server, "app")
    assert box.output("ls /right") == "/right\n"
    box.destroy()
    layout.manifests = []
    layout.put(wrong)
    assert f"linux/{ARCH}" in refused(server, "app")
    for _ in range(4):
        inner = layout.blob({"manifests": [inner]})
    layout.manifests = []
    layout.put(inner)
    assert "indexes in indexes" in refused(server, "app")


def damages(layout, base_layer):
    """What was done to it, and what the refusal must say."""
    good = layout.manifest(base_layer)
    digest = good["digest"]
    document = json.loads(layout.blob_path(digest).read_bytes())
    layer = document["layers"][0]
    layer_path = layout.blob_path(layer["digest"])

    def with_manifest(**change):
        layout.manifests = []
        layout.put(layout.blob({**document, **change}))

    def write_index(text):
        (layout.path / "index.json").write_bytes(text)

    layout.put(good)
    yield "whole", None
    whole = layer_path.read_bytes()
    layer_path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    yield "a changed layer", "damaged"
    layer_path.write_bytes(whole[:-512])
    yield "a cut layer", "not a file of the"
    layer_path.unlink()
    yield "no layer", "No such file"
    layer_path.symlink_to("/etc/passwd")
    yield "a link out", "No such file"
    layer_path.unlink()
    layer_path.write_bytes(whole)
    with_manifest(layers=[{**layer, "digest": "sha256:../../../../etc/passwd"}])
    yield "a digest that is a path", "digest"
    with_manifest(layers=[{**layer, "digest": "md5:" + "0" * 64}])
    yield "another digest", "digest"
    with_manifest(layers=[{**layer, "size": -1}])
    yield "a negative size", "size"
    with_manifest(layers="x")
    yield "layers that are no list", "layers"
    with_manifest(layers=[1])
    yield "a layer that is no object", "layers[0]"
    with_manifest(layers=[layer] * 501)
    yield "too many layers", "more than 500"
    with_manifest(layers=None)
    yield "no manifest", "no image manifest"
    with_manifest(layers=[layout.blob(b"no archive")])
    yield "a layer that is no archive", "tar archive"
    with_manifest(layers=[layout.blob(tar("../x"))])
    yield "a hostile layer", "not allowed in names"
    with_manifest(config=layout.blob({"config": {"Env": ["no assignment"]}}))
    yield "an environment that is none", "NAME=value"
    with_manifest(config=layout.blob({"config": {"Env": 1}}))
    yield "an environment that is a number", "Env"
    with_manifest(config={"digest": "sha256:" + "0" * 64, "size": 5 << 20})
    yield "much JSON", "bytes of JSON"
    write_index(b"{")
    yield "a broken index", "index.json"
    write_index(b"[]")
    yield "a list for an index", "index.json"
    write_index(b"{}")
    yield "an empty index", "no manifests"
    write_index(b'{"manifests": [], "x": "' + b"x" * (5 << 20) + b'"}')
    yield "a large index", "index.json"
    (layout.path / "index.json").unlink()
    os.mkfifo(layout.path / "index.json")
    yield "a fifo for an index", "index.json"


def test_damaged_layouts(map_of, base_layer, layout):
    server = map_of(("app", layout.path))
    for what, why in damages(layout, base_layer):
        if why is None:
            container(server, "app").destroy()
            assert len(images(server)) == 1
            continue
        # an image that was unpacked is not read again
        server.terminate()
        subprocess.run(["rm", "-rf", *(server.work / "images").glob("oci-*")], check=True)
        server.start()
        message = refused(server, "app")
        assert why in message and "image app" in message, (what, message)
        assert images(server) == [], what


# ---- what is kept ------------------------------------------------------------------------------------------------------

def test_the_same_content_is_unpacked_once(map_of, base_layer, layout, tmp_path):
    layout.add(base_layer)
    subprocess.run(["cp", "-r", layout.path, tmp_path / "copy"], check=True)
    server = map_of(("a", layout.path), ("b", tmp_path / "copy"))
    for uri in ("a", "b", "a"):
        container(server, uri).destroy()
    (name,) = images(server)
    assert name.startswith("oci-")


def test_unused_images_go_at_the_next_start(start_server, root, tmp_path, base_layer):
    for name in ("kept", "gone"):
        (tmp_path / name).write_bytes(base_layer)
    server = start_server("--default-rootfs", str(tmp_path / "gone"))
    server.terminate()
    server.args = ("--default-rootfs", str(tmp_path / "default"))
    (tmp_path / "default").write_bytes(base_layer)
    server.start()
    box = Container(server, rootfs=str(tmp_path / "kept"))
    Container(server, rootfs=str(tmp_path / "gone")).destroy()
    Container(server).destroy()
    assert len(images(server)) == 3
    (server.work / "images/tmp-0123").mkdir()
    server.kill()
    server.start()
    box.client = server.client
    assert len(images(server)) == 2  # the living container's, and the default root's
    assert box.output("cat /image-file") == "from the image\n"
    box.destroy()
    server.terminate()
    server.start()
    assert len(images(server)) == 1
    wait_until(lambda: not os.listdir(server.work / "containers/dead"), "what was swept is deleted")


def test_containers_of_which_nothing_is_written_down_keep_everything(start_server, tmp_path, base_layer):
    """As they are when an earlier version has made them."""
    (tmp_path / "image").write_bytes(base_layer)
    server = start_server()
    box = Container(server, rootfs=str(tmp_path / "image"))
    server.kill()
    subprocess.run(["/usr/bin/python3", "-c", "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
                    "db.executescript('DROP TABLE images; DELETE FROM meta WHERE key = \"images\"')",
                    server.work / "state.db"], check=True)
    server.start()
    box.client = server.client
    assert len(images(server)) == 1 and box.output("cat /image-file") == "from the image\n"
    box.destroy()
    server.terminate()
    server.start()
    assert images(server) == []


def test_killed_while_it_unpacks(start_server, tmp_path, base_layer):
    """A half one is never taken for a whole one."""
    path = tmp_path / "image"
    os.mkfifo(tmp_path / "x")
    path.write_bytes(tar(*[Member(f"f{n}", b"x" * 1000) for n in range(20000)]))
    server = start_server()
    conn = server.client.connect()
    conn.send(b"POST /containers HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(
        body := json.dumps({"handle": "h", "rootfs": str(path)}).encode()) + body)
    wait_until(lambda: any(name.startswith("tmp-") for name in images(server)), "it unpacks")
    server.kill()
    conn.close()
    server.start()
    assert images(server) == [] and server.client.handles("garden.state=all") == []
    wait_until(lambda: not oracle.helpers(server), "no helper is left")
