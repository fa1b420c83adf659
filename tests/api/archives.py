"""Archives for streams of volumes: tar files made and read with Python's own module, and the four encodings, as far
as possible by other programs than ours."""
import gzip
import io
import subprocess
import tarfile
from typing import NamedTuple

ENCODINGS = ("raw", "gzip", "zstd", "s2")


class Member(NamedTuple):
    """What is known about one entry of an archive."""
    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    target: str = ""  # of a link
    mtime: int = 1700000000
    uname: str = ""
    gname: str = ""
    device: tuple = (0, 0)
    pax: dict = {}

    @property
    def owner(self):
        return self.uid, self.gid


def directory(name, mode=0o755, **more):
    return Member(name, kind=tarfile.DIRTYPE, mode=mode, **more)


def symlink(name, target, **more):
    return Member(name, kind=tarfile.SYMTYPE, mode=0o777, target=target, **more)


def hardlink(name, target, **more):
    return Member(name, kind=tarfile.LNKTYPE, target=target, **more)


def fifo(name, **more):
    return Member(name, kind=tarfile.FIFOTYPE, **more)


def tar(*members, form=tarfile.GNU_FORMAT):
    """An archive with these members, or files of these names with `content of NAME`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for member in members:
            if isinstance(member, str):
                member = Member(member, f"content of {member}".encode())
            archive.addfile(_tar_info(member), io.BytesIO(member.data))
    return out.getvalue()


def _tar_info(member):
    info = tarfile.TarInfo(member.name)
    info.type, info.mode, info.linkname = member.kind, member.mode, member.target
    info.uid, info.gid, info.uname, info.gname = member.uid, member.gid, member.uname, member.gname
    info.mtime, info.size = member.mtime, len(member.data)
    info.devmajor, info.devminor = member.device
    info.pax_headers = dict(member.pax)
    return info


def members(data):
    """The members of a whole archive, named as they are in it."""
    assert len(data) % 512 == 0 and data[-1024:] == bytes(1024), f"no end mark: {len(data)} bytes, {data[-1024:]!r}"
    found = []
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        for info in archive:
            content = archive.extractfile(info).read() if info.isreg() else b""
            found.append(Member(info.name, content, info.type, info.mode, info.uid, info.gid, info.linkname,
                                int(info.mtime), info.uname, info.gname, (info.devmajor, info.devminor),
                                dict(info.pax_headers)))
    return found


def untar(data):
    """A whole archive by plain names: `.` is its root, and nothing begins with `./`."""
    found = {}
    for member in members(data):
        name = member.name.removeprefix("./") or "."
        assert name not in found, f"{name} is in the archive twice"
        found[name] = member
    return found


def contents(tree):
    """The names below the root and what the files among them hold."""
    return {name: member.data for name, member in tree.items() if name != "."}


# The encodings.

def _zstd(*options):
    return lambda data: subprocess.run(["zstd", "-q", "-c", *options], input=data, stdout=subprocess.PIPE,
                                       check=True).stdout


def encode(encoding, data):
    return {"raw": bytes, "gzip": gzip.compress, "zstd": _zstd(), "s2": s2_encode}[encoding](data)


def decode(encoding, data):
    return {"raw": bytes, "gzip": gzip.decompress, "zstd": _zstd("-d"), "s2": s2_decode}[encoding](data)


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = _crc_table()


def masked_crc(data):
    """The CRC-32C of a chunk, as Snappy's framing stores it."""
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xff]
    crc ^= 0xffffffff
    return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff


SNAPPY_START = b"\xff\x06\x00\x00sNaPpY"
S2_START = b"\xff\x06\x00\x00S2sTwO"


def s2_encode(data):
    """Snappy's framing with stored chunks only: every reader of S2 takes it."""
    out = [SNAPPY_START]
    for at in range(0, len(data), 65536):
        part = data[at:at + 65536]
        out += [b"\x01", (len(part) + 4).to_bytes(3, "little"), masked_crc(part).to_bytes(4, "little"), part]
    return b"".join(out)


def s2_decode(data):
    assert data.startswith((SNAPPY_START, S2_START)), data[:16]
    out, at = [], 0
    while at < len(data):
        kind, size = data[at], int.from_bytes(data[at + 1:at + 4], "little")
        chunk = data[at + 4:at + 4 + size]
        assert len(chunk) == size, "a chunk is cut short"
        at += 4 + size
        if kind == 0xff:
            assert chunk in (b"sNaPpY", b"S2sTwO"), chunk
        elif kind in (0, 1):
            part = snappy_block(chunk[4:]) if kind == 0 else chunk[4:]
            assert masked_crc(part) == int.from_bytes(chunk[:4], "little"), "a chunk's checksum is wrong"
            out.append(part)
        else:
            assert kind >= 0x80, f"chunk of type {kind:#x}"
    return b"".join(out)


def _varint(data):
    value, shift = 0, 0
    for at, byte in enumerate(data):
        value |= (byte & 0x7f) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise ValueError("a length is cut short")


def snappy_block(data):
    """A Snappy block: literals and copies, without the extensions of S2."""
    size, at = _varint(data)
    out = bytearray()
    while at < len(data):
        tag = data[at]
        if tag & 3 == 0:
            at, n = _literal_length(data, at)
            out += data[at:at + n]
            at += n
            continue
        if tag & 3 == 1:
            n, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at + 1]
            at += 2
        else:
            width = 2 if tag & 3 == 2 else 4
            n, offset = (tag >> 2) + 1, int.from_bytes(data[at + 1:at + 1 + width], "little")
            at += 1 + width
        assert 0 < offset <= len(out), f"a copy from {offset} back after {len(out)} bytes"
        for _ in range(n):
            out.append(out[-offset])
    assert len(out) == size, f"{len(out)} bytes in a block of {size}"
    return bytes(out)


def _literal_length(data, at):
    """Where a literal begins and how long it is."""
    n = data[at] >> 2
    if n < 60:
        return at + 1, n + 1
    width = n - 59
    return at + 1 + width, int.from_bytes(data[at + 1:at + 1 + width], "little") + 1
