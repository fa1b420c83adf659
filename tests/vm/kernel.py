"""Debian's kernel for clouds: downloaded as a package, unpacked and kept in build/vm, never installed."""
import re
import shutil
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
CACHE = TOP / "build/vm"
META = "linux-image-cloud-amd64"


class Problem(Exception):
    """What the person who runs the tests can do something about."""


def run(command, **more):
    try:
        return subprocess.run([str(word) for word in command], check=True, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, **more).stdout
    except FileNotFoundError as error:
        raise Problem(f"{command[0]} is missing: make deps-test installs it") from error
    except subprocess.CalledProcessError as error:
        raise Problem(f"{' '.join(str(word) for word in command)}: {error.stdout.strip()[-500:]}") from error


def newest_package():
    found = re.search(rf"Depends: (linux-image-\S*cloud-amd64)", run(["apt-cache", "depends", META]))
    if not found:
        raise Problem(f"{META} is unknown to apt: run apt-get update, and see that Debian's archive is among its sources")
    return found[1]


def download(package, directory):
    try:
        run(["apt-get", "-o", "APT::Sandbox::User=root", "download", package], cwd=directory)
    except Problem as problem:
        raise Problem(f"{package} cannot be downloaded (no network, or apt's lists are old). {problem}") from problem
    return next(directory.glob(f"{package}_*.deb"))


def fetch_kernel():
    """The directory with boot/ and lib/modules/ of the kernel; the one that was fetched before, if any."""
    made = sorted(CACHE.glob("linux-image-*/lib/modules"))
    if made:
        return made[-1].parents[1]
    package = newest_package()
    work = CACHE / "download"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    archive = download(package, work)
    run(["dpkg-deb", "-x", archive, work / "tree"])
    (work / "tree").rename(CACHE / package)
    shutil.rmtree(work)
    return CACHE / package
