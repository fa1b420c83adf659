"""Makes what the virtual machine boots: an initramfs of busybox and modules, and a disk with cloche, Python, pytest
and the tests, copied from this machine. No package is installed, nothing is mounted."""
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from kernel import CACHE, TOP, Problem, run

HERE = Path(__file__).resolve().parent
BUSYBOX = Path("/bin/busybox")

# With what these need. The first are for the disk; the network ones are loaded before any test asks for them.
MODULES = """virtio_pci virtio_blk overlay veth bridge loop fuse tun
    nf_tables nft_ct nft_nat nft_masq nft_chain_nat nft_reject_inet nft_reject_ipv4 nft_reject_ipv6 nft_limit nft_log
    nft_fib_inet nft_numgen nf_conntrack nf_nat nf_log_syslog sch_tbf sch_htb sch_ingress sch_fq_codel act_police act_mirred
    cls_u32 cls_matchall ifb dummy quota_v2 xfs""".split()

# Beside busybox, whose applets fill in for all others.
PROGRAMS = "python3.11 bash rm tar zstd mount umount ip strace mkfs.ext4 losetup cp stat setpriv bsdtar unshare nsenter".split()
OPTIONAL = "nft tc runc mkfs.xfs".split()

PYTHON = Path("/usr/lib/python3.11")
PYTHON_LEFT_OUT = shutil.ignore_patterns("test", "tests", "idlelib", "lib2to3", "tkinter", "ensurepip", "pydoc_data",
                                         "config-*", "turtledemo", "*.a")
PACKAGES = Path("/usr/lib/python3/dist-packages")
PACKAGE_NAMES = "pytest _pytest py pluggy iniconfig packaging attr attrs more_itertools yaml jsonschema pyrsistent".split()
TESTS_LEFT_OUT = shutil.ignore_patterns("bench", "fuzz", "unit", "vm", "lint")
BUILD = TOP / "build/release"
TOOLS = {"probe": ["-static"], "deny": ["-lseccomp"]}


class Tree:
    """A root file system in the making: programs with the libraries that they are linked to."""

    def __init__(self, top):
        self.top = top
        shutil.rmtree(top, ignore_errors=True)
        for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "proc", "sys", "dev", "tmp", "run", "root", "mnt",
                     "var/tmp"):
            (top / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (top / name).symlink_to(f"usr/{name}")

    def place(self, path):
        return self.top / str(path).lstrip("/")

    def add_file(self, source, path=None):
        target = self.place(path or source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy2(source, target)

    def add_libraries(self, *programs):
        listing = subprocess.run(["ldd", *programs], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                 check=False).stdout
        for library in set(re.findall(r"(/\S+) \(0x", listing)):
            self.add_file(library)

    def add_program(self, name):
        path = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
        if not path:
            return False
        self.add_file(path)
        self.add_libraries(path)
        return True

    def add_busybox(self):
        self.add_file(BUSYBOX, "/usr/bin/busybox")
        for applet in run([BUSYBOX, "--list"]).split():
            target = self.place(f"/usr/bin/{applet}")
            if not target.exists() and not self.place(f"/usr/sbin/{applet}").exists():
                target.symlink_to("busybox")


def add_python(tree):
    shutil.copytree(PYTHON, tree.place(PYTHON), symlinks=True, ignore=PYTHON_LEFT_OUT)
    for name in PACKAGE_NAMES:
        if (PACKAGES / name).is_dir():
            shutil.copytree(PACKAGES / name, tree.place(PACKAGES / name))
        elif (PACKAGES / f"{name}.py").exists():
            tree.add_file(PACKAGES / f"{name}.py")
    for info in PACKAGES.glob("*.*-info"):  # pytest asks for versions
        if info.name.lower().split("-")[0].split(".")[0] in PACKAGE_NAMES and info.is_dir():
            shutil.copytree(info, tree.place(info))
    tree.add_libraries(*PYTHON.glob("lib-dynload/*.so"))
    tree.place("/usr/bin/python3").symlink_to("python3.11")


def build_tools():
    """The programs of tests/tools: there is no compiler in the machine."""
    for name, options in TOOLS.items():
        source, target = TOP / "tests/tools" / f"{name}.c", BUILD / "tests" / name
        parts = sorted({source, *source.parent.glob(f"{name}_*.c")})
        target.parent.mkdir(parents=True, exist_ok=True)
        run(["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-o", target, *parts, *options])


def late_libraries():
    """What cloche loads when it first needs it, which no list of its libraries tells."""
    names = {name for path in TOP.glob("*/*_late.c") for name in re.findall(r'LATE_LIBRARY\("(.+?)"', path.read_text())}
    known = dict(re.findall(r"(\S+) \(.*\) => (\S+)", run(["ldconfig", "-p"])))
    return [Path(known[name]) for name in sorted(names)]


def add_cloche(tree):
    if not (BUILD / "cloche").exists():
        raise Problem(f"{BUILD / 'cloche'} is missing: run make first")
    build_tools()
    for path in (BUILD / "cloche", BUILD / "busybox-root.tar", *(BUILD / "tests" / name for name in TOOLS)):
        tree.add_file(path, Path("/cloche") / path.relative_to(TOP))
    tree.add_libraries(BUILD / "cloche", BUILD / "tests/deny", *late_libraries())
    for library in late_libraries():
        tree.add_file(library)
    shutil.copytree(TOP / "tests", tree.place("/cloche/tests"), ignore=TESTS_LEFT_OUT)
    shutil.copytree(TOP / "api-spec", tree.place("/cloche/api-spec"))
    for path in tree.place("/cloche").rglob("*.py"):  # so that Python need not compile them there
        os.utime(path, (path.stat().st_atime, int(path.stat().st_mtime)))


def make_disk(tests):
    tree = Tree(CACHE / "root")
    missing = [name for name in PROGRAMS if not tree.add_program(name)]
    if missing:
        raise Problem(f"missing programs: {' '.join(missing)}: make deps-test installs them")
    for name in OPTIONAL:
        tree.add_program(name)
    tree.add_busybox()
    add_python(tree)
    add_cloche(tree)
    tree.add_file(HERE / "guest", "/guest")
    for name in ("passwd", "group", "nsswitch.conf"):
        tree.add_file(f"/etc/{name}")
    tree.place("/etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    tree.place("/tests").write_text("".join(f"{shlex.quote(word)}\n" for word in tests))
    disk = CACHE / "disk.img"
    disk.unlink(missing_ok=True)
    run(["mkfs.ext4", "-q", "-d", tree.top, "-O", "^metadata_csum", "-E", "root_owner=0:0", disk, "1500M"])
    return disk


def module_files(release):
    """The files of MODULES and of what they need, each after what it needs."""
    directory = next((release / "lib/modules").iterdir())
    if not (directory / "modules.dep").exists():
        run([BUSYBOX, "depmod", "-b", release, directory.name])
    needs = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[Path(path).name.removesuffix(".ko").replace("-", "_")] = (path, rest.split())
    ordered = []

    def visit(name):
        if name not in needs:
            return  # built in
        path, rest = needs[name]
        for other in rest:
            visit(Path(other).name.removesuffix(".ko").replace("-", "_"))
        if path not in ordered:
            ordered.append(path)

    for name in MODULES:
        visit(name)
    return directory, ordered


def make_initramfs(release):
    top = CACHE / "initramfs"
    shutil.rmtree(top, ignore_errors=True)
    for name in ("bin", "modules", "proc", "sys", "dev", "new"):
        (top / name).mkdir(parents=True)
    shutil.copy2(BUSYBOX, top / "bin/busybox")
    (top / "bin/sh").symlink_to("busybox")
    shutil.copy2(HERE / "init", top / "init")
    directory, ordered = module_files(release)
    for number, path in enumerate(ordered):
        shutil.copy2(directory / path, top / f"modules/{number:03}-{Path(path).name}")
    names = "\n".join(str(path.relative_to(top)) for path in sorted(top.rglob("*")))
    target = CACHE / "initramfs.cpio"
    with open(target, "wb") as out:
        subprocess.run([BUSYBOX, "cpio", "-o", "-H", "newc"], input=names.encode(), stdout=out,
                       stderr=subprocess.DEVNULL, cwd=top, check=True)
    return target


def build(release, tests):
    """Kernel, initramfs and disk for these tests."""
    kernel = next((release / "boot").glob("vmlinuz-*"))
    return kernel, make_initramfs(release), make_disk(tests)
