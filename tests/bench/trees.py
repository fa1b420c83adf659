"""The trees that the volume cases work on, and what Debian's own tools need to move and change them."""
import itertools
import os
import pathlib
import random
import shutil
import subprocess

POOL_BYTES = 32 << 20
PIECE_BYTES = 64 << 10

# what a stream of each encoding is compared with: the same archive by GNU tar and the usual program, piped
PIPES = {
    "raw": ("tar, tar", "tar -C {0} -cf - . | tar -C {1} -xf -"),
    "gzip": ("tar, gzip", "tar -C {0} -czf - . | tar -C {1} -xzf -"),
    "zstd": ("tar, zstd -T0",
             "tar -C {0} -I 'zstd -T0' -cf - . | tar -C {1} -I 'zstd -d' -xf -"),
}


def text_pool(seed=1):
    """Words in random order, some far more often than others: gzip leaves two fifths, as of sources and programs."""
    chance = random.Random(seed)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz_ \n\0\x01\x7f", k=chance.randint(2, 9)))
             for _ in range(6000)]
    often = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    phrases = [b"".join(chance.choices(words, cum_weights=often, k=8)) for _ in range(60000)]
    pool = bytearray()
    while len(pool) < POOL_BYTES:
        pool += b"".join(chance.choices(phrases, k=50000))
    return memoryview(bytes(pool))


def write_file(path, n_bytes, pool, chance):
    with open(path, "wb", buffering=0) as f:
        while n_bytes > 0:
            at, size = chance.randrange(len(pool) - PIECE_BYTES), min(n_bytes, PIECE_BYTES)
            f.write(pool[at:at + size])
            n_bytes -= size


def make_tree(root, n_files, file_bytes, pool, files_per_dir=100):
    """Files of up to twice the given size, in directories two deep. The same every time."""
    chance = random.Random(n_files)
    root.mkdir(parents=True)
    for first in range(0, n_files, files_per_dir):
        n = first // files_per_dir
        directory = root / f"part-{n % 16:x}" / f"directory-{n}"
        directory.mkdir(parents=True)
        for i in range(first, min(first + files_per_dir, n_files)):
            size = file_bytes if n_files < 16 else chance.randrange(2 * file_bytes + 1)
            write_file(directory / f"file-{i}.txt", size, pool, chance)
    return root


def tree_bytes(root):
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def run(*words):
    subprocess.run(words, check=True)


def pipe(command, source, target):
    subprocess.run(["bash", "-o", "pipefail", "-c", command.format(source, target)], check=True)


class Tools:
    """cp, chown and rm on copies of a tree beside it."""

    def __init__(self, source):
        self.source = source
        self.target = source.with_name(source.name + "-copy")

    def cycle(self, times, what):
        """One life of a copy. The owner changes for all, as it does when others walk for a flip."""
        times.take(f"{what('copy')}/cp -a", run, "cp", "-a", self.source, self.target)
        times.take(f"{what('privileged flip')}/chown -R", run, "chown", "-R", "100000:100000", self.target)
        times.take(f"{what('destroy')}/rm -rf", run, "rm", "-rf", self.target)


class Reflinks:
    """cp --reflink where it is one: on an xfs of its own."""

    def __init__(self, source, disk):
        self.source, self.target = disk / source.name, disk / f"{source.name}-copy"
        run("cp", "-a", source, self.source)

    def cycle(self, times, what):
        times.take(f"{what('copy')}/cp -a --reflink (xfs)", run, "cp", "-a", "--reflink=always", self.source, self.target)
        shutil.rmtree(self.target)


def stream_cycle(encoding, source, times, what):
    name, command = PIPES[encoding]
    target = pathlib.Path(f"{source}-piped")
    os.mkdir(target)
    times.take(f"{what}/{name}", pipe, command, source, target)
    shutil.rmtree(target)
