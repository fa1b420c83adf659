"""Each check of tests/lint/run is shown a small tree that breaks its rule, and one that keeps it."""

import pathlib
import shutil
import subprocess

import pytest

RUN = pathlib.Path(__file__).with_name("run")
ROOT = RUN.parents[2]
TYPO = "rec" "ieve"
GOOD_C = '#include "x.h"\n\nint x_answer(void)\n{\n\treturn 42;\n}\n'
GOOD_H = "/* x.h - the answer. */\n#pragma once\n\nint x_answer(void);\n"


class Tree:
    """A little repository in a directory of its own."""

    def __init__(self, path):
        self.path = path
        self.write("server/x.h", GOOD_H)
        self.write("server/x.c", GOOD_C)
        self.compile("server/x.c")
        (path / ".clang-format").write_text((ROOT / ".clang-format").read_text())

    def write(self, name, text):
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def compile(self, name, text=None, *flags):
        """The object that the Makefile would make of it."""
        if text is not None:
            self.write(name, text)
        target = self.path / "build/release" / pathlib.Path(name).with_suffix(".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["gcc", "-w", "-std=gnu17", "-D_GNU_SOURCE", "-fno-builtin", "-iquote", ".",
             "-iquote", "backend", *flags, "-c", name, "-o", target],
            cwd=self.path, check=True)

    def lint(self, *checks, env=None):
        """Exit status, findings, remarks."""
        done = subprocess.run(
            [RUN, "build/release", *checks], cwd=self.path, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr

    def assert_good(self, check):
        assert self.lint(check) == (0, "", "")

    def assert_bad(self, check, *words):
        status, findings, _ = self.lint(check)
        assert status == 1, findings
        for word in words:
            assert word in findings


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def calls(name):
    return f"void {name}(void);\nvoid x_run(void)\n{{\n\t{name}();\n}}\n"


def needs(tool):
    return pytest.mark.skipif(not shutil.which(tool), reason=f"{tool} is not installed")


# ---- the runner itself ------------------------------------------------------------------------


def test_a_good_tree_passes_every_check(tree):
    status, findings, _ = tree.lint()
    assert (status, findings) == (0, "")


def test_one_bad_file_fails_the_whole_run(tree):
    tree.compile("volumes/x.c", calls("strcpy"))
    status, findings, _ = tree.lint()
    assert status == 1
    assert findings == "volumes/x.o: may not use strcpy\n"


def test_a_directory_without_objects_is_refused(tree):
    shutil.rmtree(tree.path / "build")
    assert tree.lint()[0] == 2
    (tree.path / "build/release").mkdir(parents=True)
    assert tree.lint()[0] == 2


def test_an_unknown_check_is_refused(tree):
    assert tree.lint("colour")[0] == 2


def test_a_missing_tool_skips_its_check_and_says_so(tree):
    bin_dir = tree.path / "bin"
    bin_dir.mkdir()
    for tool in ("sh", "awk", "find", "grep", "sort", "xargs", "nm", "mktemp", "rm", "dirname",
                 "head", "wc", "cat"):
        (bin_dir / tool).symlink_to(shutil.which(tool))
    status, findings, remarks = tree.lint(env={"PATH": str(bin_dir)})
    assert (status, findings) == (0, "")
    for tool in ("pmccabe", "clang-format", "codespell", "shellcheck"):
        assert f"{tool} is not installed" in remarks


# ---- layers: who may import which symbol ------------------------------------------------------


@pytest.mark.parametrize("name, symbol", [
    ("server/x.c", "sprintf"), ("server/x.c", "__strcat_chk"), ("server/x.c", "strncpy"),
    ("server/x.c", "strtol"), ("server/x.c", "__isoc23_strtoul"), ("backend/base/buf.c", "atoi"),
    ("server/x.c", "system"), ("server/x.c", "popen"), ("backend/shim/x.c", "vfork"),
    ("backend/shim/x.c", "execvp"), ("server/x.c", "mktemp"), ("server/x.c", "select"),
    ("server/x.c", "signal"), ("server/x.c", "localtime"), ("server/x.c", "gmtime"),
    ("server/x.c", "strerror"), ("server/x.c", "realpath"), ("server/x.c", "access"),
    ("server/x.c", "basename"), ("server/x.c", "__xpg_basename"), ("server/x.c", "dup"),
    ("server/http.c", "getenv"), ("server/http.c", "exit"), ("backend/shim/child.c", "exit"),
    ("server/x.c", "fork"), ("backend/x.c", "fork"), ("backend/linux/x.c", "fork"),
    ("server/main.c", "chdir"), ("backend/x.c", "chdir"), ("backend/linux/x.c", "umask"),
    ("server/x.c", "setenv"), ("backend/x.c", "unshare"), ("server/x.c", "setns"),
    ("server/x.c", "sys_clone3"), ("backend/x.c", "sys_unshare"),
    ("backend/x.c", "posix_spawn"), ("backend/shim/x.c", "pthread_create"),
    ("backend/shim/x.c", "syscall"), ("backend/x.c", "mount"), ("volumes/x.c", "open_tree"),
    ("server/x.c", "MHD_start_daemon"), ("backend/x.c", "MHD_stop_daemon"),
    ("backend/x.c", "json_loads"), ("volumes/x.c", "jansson_version_str"),
    ("server/x.c", "sqlite3_open_v2"), ("backend/store.c", "sqlite3_step"),
    ("backend/base/log.c", "sqlite3_step"), ("backend/x.c", "seccomp_init"),
    ("backend/linux/sys.c", "seccomp_rule_add"), ("server/x.c", "archive_read_new"),
    ("backend/x.c", "archive_write_disk_new"),
])
def test_layers_refuses(tree, name, symbol):
    tree.compile(name, calls(symbol))
    tree.assert_bad("layers", name.replace(".c", ".o") + f": may not use {symbol}\n")


@pytest.mark.parametrize("name, symbol", [
    ("server/x.c", "snprintf"), ("server/x.c", "gmtime_r"), ("backend/base/parse.c", "strtol"),
    ("server/main.c", "getenv"), ("server/options.c", "getenv"), ("server/main.c", "exit"),
    ("backend/shim/main.c", "exit"), ("server/x.c", "_exit"), ("backend/shim/init.c", "fork"),
    ("volumes/unpack.c", "fork"), ("volumes/unpack.c", "chdir"), ("backend/shim/x.c", "umask"),
    ("backend/linux/sys.c", "unshare"), ("backend/shim/builder.c", "sys_unshare"),
    ("backend/linux/sys.c", "syscall"), ("backend/linux/sys.c", "move_mount"),
    ("backend/linux/spawn.c", "posix_spawn"), ("server/x.c", "pthread_create"),
    ("server/http.c", "MHD_start_daemon"), ("server/http_accept.c", "MHD_add_connection"),
    ("server/json.c", "json_loads"), ("backend/base/db.c", "sqlite3_open_v2"),
    ("backend/linux/seccomp.c", "seccomp_init"), ("backend/x.c", "seccomp_filter_build"),
    ("volumes/unpack.c", "archive_read_new"), ("server/x.c", "system_name"),
    ("server/x.c", "preselect"), ("backend/x.c", "container_mount"),
])
def test_layers_permits(tree, name, symbol):
    tree.compile(name, calls(symbol))
    tree.assert_good("layers")


def test_layers_sees_through_macros_and_fortify(tree):
    tree.compile("server/x.c", "#include <stdio.h>\n#define PUT(a, b) spr##intf(a, b)\n"
                 "void x(char *a, const char *b);\nvoid x(char *a, const char *b)\n{\n"
                 "\tPUT(a, b);\n}\n", "-O2", "-D_FORTIFY_SOURCE=2", "-fbuiltin")
    tree.assert_bad("layers", "server/x.o: may not use ")


def test_layers_sees_a_weak_import(tree):
    tree.compile("server/x.c", "int fork(void) __attribute__((weak));\n"
                 "int x(void)\n{\n\treturn fork();\n}\n")
    tree.assert_bad("layers", "may not use fork")


# ---- child: what may be called between clone and exec ------------------------------------------


@pytest.mark.parametrize("name", ["child", "child_tty", "init", "builder", "check"])
@pytest.mark.parametrize("symbol", [
    "malloc", "free", "printf", "snprintf", "fopen", "getenv", "getpwnam", "pthread_mutex_lock",
    "log_event", "err_set", "strdup", "opendir", "exit", "setlocale"])
def test_child_refuses(tree, name, symbol):
    tree.compile(f"backend/shim/{name}.c", calls(symbol))
    tree.assert_bad("child", f"backend/shim/{name}.o: may not call {symbol} ")


@pytest.mark.parametrize("name", ["linux/sys", "linux/caps", "base/msg"])
def test_child_covers_what_the_child_calls(tree, name):
    tree.compile(f"backend/{name}.c", calls("malloc"))
    tree.assert_bad("child", f"{name}.o: may not call malloc ")


@pytest.mark.parametrize("symbol", [
    "_exit", "execve", "memcpy", "__memcpy_chk", "setresuid", "sys_open_at", "msg_send",
    "caps_set", "auto_fd", "__asan_report_load4", "__ubsan_handle_add_overflow"])
def test_child_permits(tree, symbol):
    tree.compile("backend/shim/child.c", calls(symbol))
    tree.assert_good("child")


def test_child_leaves_the_rest_of_the_shim_alone(tree):
    tree.compile("backend/shim/main.c", calls("malloc"))
    tree.compile("backend/child.c", calls("malloc"))
    tree.assert_good("child")


# ---- includes: directions and header-only libraries ---------------------------------------------

HEADERS = ("api-spec/routes.def", "server/http.h", "backend/container.h", "backend/base/err.h",
           "backend/linux/sys.h", "backend/shim/protocol.h", "volumes/volumes.h",
           "volumes/driver.h")


def include_from(tree, name, include):
    for header in HEADERS:
        tree.write(header, "/* a header */\n#pragma once\n")
    tree.write(name, f"#include {include}\n")


@pytest.mark.parametrize("name, include, target", [
    ("backend/x.c", '"server/http.h"', "server/http.h"),
    ("volumes/x.c", '"server/http.h"', "server/http.h"),
    ("backend/base/x.c", '"server/http.h"', "server/http.h"),
    ("backend/x.c", '"volumes/driver.h"', "volumes/driver.h"),
    ("volumes/x.c", '"backend/container.h"', "backend/container.h"),
    ("volumes/x.c", '"container.h"', "backend/container.h"),
    ("volumes/x.c", '"shim/protocol.h"', "backend/shim/protocol.h"),
    ("server/x.c", '"shim/protocol.h"', "backend/shim/protocol.h"),
    ("server/cli/x.c", '"shim/protocol.h"', "backend/shim/protocol.h"),
    ("backend/shim/x.c", '"backend/container.h"', "backend/container.h"),
    ("backend/shim/x.c", '"volumes/volumes.h"', "volumes/volumes.h"),
    ("backend/linux/x.h", '"shim/protocol.h"', "backend/shim/protocol.h"),
    ("backend/linux/x.c", '"volumes/volumes.h"', "volumes/volumes.h"),
    ("backend/base/x.h", '"linux/sys.h"', "backend/linux/sys.h"),
    ("backend/base/x.c", '"container.h"', "backend/container.h"),
    ("server/x.c", "<sqlite3.h>", "<sqlite3.h>"),
    ("backend/base/strv.c", "<uthash.h>", "<uthash.h>"),
    ("backend/x.c", "<jansson.h>", "<jansson.h>"),
    ("server/x.c", "<microhttpd.h>", "<microhttpd.h>"),
    ("backend/linux/sys.c", "<seccomp.h>", "<seccomp.h>"),
    ("backend/x.c", "<archive_entry.h>", "<archive_entry.h>"),
    ("server/x.c", '"nowhere.h"', '"nowhere.h", which is not there'),
])
def test_includes_refuses(tree, name, include, target):
    include_from(tree, name, include)
    tree.assert_bad("includes", f"{name}:1: ", target)


@pytest.mark.parametrize("name, include", [
    ("server/x.c", '"backend/container.h"'), ("server/x.c", '"volumes/driver.h"'),
    ("server/x.c", '"base/err.h"'), ("server/x.c", '"linux/sys.h"'), ("server/x.c", '"http.h"'),
    ("server/cli/x.c", '"server/http.h"'), ("backend/x.c", '"volumes/volumes.h"'),
    ("backend/x.c", '"shim/protocol.h"'), ("backend/x.c", '"container.h"'),
    ("backend/shim/x.c", '"linux/sys.h"'), ("backend/shim/x.c", '"protocol.h"'),
    ("backend/linux/x.c", '"base/err.h"'), ("backend/base/err.h", '"api-spec/routes.def"'),
    ("volumes/x.c", '"api-spec/routes.def"'), ("volumes/x.c", '"base/err.h"'),
    ("volumes/x.c", "<archive.h>"), ("backend/base/registry.c", "<uthash.h>"),
    ("server/http_x.c", "<microhttpd.h>"), ("backend/x.c", "<linux/sched.h>"),
    ("tests/unit/test_x.c", '"shim/protocol.h"'),
])
def test_includes_permits(tree, name, include):
    include_from(tree, name, include)
    tree.assert_good("includes")


# ---- headers, size, complexity ------------------------------------------------------------------


@pytest.mark.parametrize("text, finding", [
    ("/* y.h - y. */\nint y(void);\n", "server/y.h: #pragma once stands there 0 times"),
    ("/* y.h - y. */\n#pragma once\n#pragma once\n", "server/y.h: #pragma once stands there 2"),
    ("#pragma once\nint y(void);\n", "server/y.h:1: a header opens with a comment"),
    ("\n/* y.h - y. */\n#pragma once\n", "server/y.h:1: a header opens with a comment"),
])
def test_headers_refuses(tree, text, finding):
    tree.write("server/y.h", text)
    tree.write("server/z.h", "/* z.h - good. */\n#pragma once\n")
    status, findings, _ = tree.lint("headers")
    assert (status, findings.count("\n")) == (1, 1)
    assert finding in findings


def test_headers_permits_a_comment_and_a_pragma(tree):
    tree.write("backend/y.h", "/* y.h - y.\n * More. */\n#pragma once\n")
    tree.assert_good("headers")


def test_size_refuses_more_than_800_lines(tree):
    tree.write("server/y.c", "\n" * 801)
    tree.assert_bad("size", "server/y.c: 801 lines")


def test_size_warns_above_500_lines(tree):
    tree.write("server/y.c", "\n" * 800)
    tree.write("server/z.c", "\n" * 500)
    status, findings, remarks = tree.lint("size")
    assert (status, findings) == (0, "")
    assert remarks == "warning: server/y.c: 800 lines\n"


def function(n_branches, n_lines):
    """A function of complexity n_branches + 1 that is n_lines long."""
    body = [f"\tif (x == {i})\n\t\treturn {i};\n" for i in range(n_branches)]
    body += ["\tx++;\n"] * (n_lines - 5 - 2 * n_branches)
    return "int f(int x)\n{\n" + "".join(body) + "\treturn x;\n}\n"


@needs("pmccabe")
@pytest.mark.parametrize("text, finding", [
    (function(15, 40), "complexity 16"), (function(1, 62), "lines, 60 at most")])
def test_complexity_refuses(tree, text, finding):
    tree.write("server/y.c", text)
    tree.assert_bad("complexity", "server/y.c", ": f: ", finding)


@needs("pmccabe")
def test_complexity_permits_15_branches_and_60_lines(tree):
    tree.write("server/y.c", function(14, 40) + "\n" + function(1, 59))
    tree.assert_good("complexity")


@needs("pmccabe")
def test_complexity_refuses_what_it_cannot_read(tree):
    tree.write("server/y.c", "int f(int x)\n{\n\tif (x) {\n\treturn x;\n}\n")
    assert tree.lint("complexity")[0] == 1


# ---- other people's tools -------------------------------------------------------------------------


@needs("clang-format")
def test_format_refuses(tree):
    tree.write("server/y.c", "int y( void ) {\n    return 1 ;\n}\n")
    status, findings, _ = tree.lint("format")
    assert (status, findings.count("\n")) == (1, 1)
    assert "server/y.c:1: " in findings


@needs("clang-format")
def test_format_permits(tree):
    tree.assert_good("format")


@needs("codespell")
def test_spelling_refuses(tree):
    tree.write("README.md", f"Never {TYPO} twice.\n")
    tree.assert_bad("spelling", f"README.md:1: {TYPO} ==> receive")


@needs("codespell")
def test_spelling_permits_and_leaves_recordings_alone(tree):
    tree.write("README.md", "Receive once.\n")
    tree.write("tests/conformance/a.json", f'"{TYPO}"\n')
    tree.write("tests/fuzz/corpus/x/a", f"{TYPO}\n")
    tree.assert_good("spelling")


@needs("shellcheck")
@pytest.mark.parametrize("shell", ["#!/bin/sh", "#!/usr/bin/env bash"])
def test_shell_refuses(tree, shell):
    tree.write(".ci/run", f"{shell}\nrm -rf $1\n")
    tree.assert_bad("shell", ".ci/run:2:", "SC2086")


@needs("shellcheck")
def test_shell_permits_and_leaves_others_alone(tree):
    tree.write(".ci/run", '#!/bin/sh\nrm -rf "$1"\n')
    tree.write("tests/x.py", "#!/usr/bin/python3\nrm -rf $1\n")
    tree.assert_good("shell")
