# cloche - build, check, run, install.                     `make help` lists the targets.
MODE    ?= release
B       := build/$(MODE)
PREFIX  ?= /usr/local
CC      := gcc
PKGS    := jansson sqlite3 libseccomp zlib libzstd
LATE    := libmicrohttpd libarchive libcurl libnftables # loaded when first used, see base/late.h
VENV    := .venv

PACKAGES := gcc make pkg-config libc6-dev libmicrohttpd-dev libjansson-dev libsqlite3-dev libseccomp-dev libcap-dev \
            libarchive-dev libcurl4-openssl-dev zlib1g-dev libzstd-dev libnftables-dev uthash-dev busybox-static scdoc openssh-client
TEST_PACKAGES := libcmocka-dev pmccabe clang-format clang-tidy gcovr golang-go python3-pytest python3-jsonschema \
            python3-yaml python3-venv runc libarchive-tools mmdebstrap codespell shellcheck strace git iputils-ping netcat-openbsd zstd \
            btrfs-progs xfsprogs iproute2 nftables iptables qemu-system-x86 e2fsprogs util-linux procps openssh-server

# What cloche is measured beside, and what draws the plot; the benchmark says which of them are missing.
BENCH_PACKAGES := runc crun bubblewrap podman python3-matplotlib

# Those who are not root get it where it is needed: installing packages, serving, tests that make containers.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

WARN    := -Wall -Wextra -Wshadow -Wvla -Walloca -Wformat=2 -Wundef -Wpointer-arith -Wwrite-strings \
           -Wstrict-prototypes -Wmissing-prototypes -Werror
COMMON  := -std=gnu17 -g -fno-common $(WARN)
release  := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
# what tests can have fail, see base/fault.h
FAULTS   := -DHAS_FAULTS=1
comma    := ,
WRAP     := $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc strdup strndup asprintf vasprintf)
asan     := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -Wno-format-truncation $(FAULTS)
tsan     := -O1 -fsanitize=thread -Wno-format-truncation
coverage := -O0 --coverage -fprofile-update=atomic
analyze  := -O1 -fanalyzer -Wno-error
# tests/mutation: MODE=break BREAK=FILTER leaves out one guard of base/guard.h, to see its test fail
break        := $(release) -DBREAK_$(BREAK)=1
static_break := $(break)
ifeq ($(MODE),break)
B        := build/break/$(BREAK)
endif
CFLAGS   += $(COMMON) $($(MODE))
CPPFLAGS += -D_GNU_SOURCE -iquote . -iquote backend -I $(B) $(shell pkg-config --cflags $(PKGS) $(LATE) 2>/dev/null)
LDLIBS   += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -pthread -lm
LDFLAGS_release := -pie -Wl,-z,relro,-z,now
LDFLAGS_asan    := $(WRAP)

# Static programs cannot carry the address and thread sanitizers: the shim gets the undefined one.
static_release  := $(release)
static_asan     := -O1 -fsanitize=undefined -fno-sanitize-recover=all -fPIE $(FAULTS)
static_tsan     := -O1 -fPIE
static_coverage := -O1 -fPIE
static_analyze  := $(analyze) -fPIE
STATIC   := $(COMMON) $(static_$(MODE))

SRC      := $(wildcard server/*.c server/worker/*.c backend/*.c backend/base/*.c backend/linux/*.c volumes/*.c)
SHIM_SRC := $(wildcard backend/shim/*.c) $(addprefix backend/,base/auto.c base/clock.c base/memfd.c base/msg.c base/size_text.c linux/caps.c linux/nl.c linux/ring.c linux/rtnl.c linux/sys.c linux/tcp.c $(if $(filter asan,$(MODE)),base/err.c base/fault.c))
TEST     := $(wildcard tests/unit/test_*.c)
FUZZ     := $(filter-out %/replay_main.c,$(wildcard tests/fuzz/*.c))
object    = $(patsubst %.c,$(B)/%.o,$(1))
shim_obj  = $(patsubst %.c,$(B)/static/%.o,$(1))
LIBOBJ   := $(call object,$(filter-out server/%,$(SRC))) $(B)/backend/shim/check.o
SERVEROBJ := $(call object,$(filter-out server/main.c,$(filter server/%,$(SRC))))

all: $(B)/cloche $(B)/busybox-root.tar ## build the programs (MODE=release, asan, tsan, coverage or analyze)

$(B)/cloche: $(call object,$(SRC)) $(B)/backend/shim/check.o $(B)/backend/shim_image.o
	@echo "  LD    $@"; $(CC) $(CFLAGS) $(LDFLAGS) $(LDFLAGS_$(MODE)) -o $@ $^ $(LDLIBS)
$(B)/cloche-shim: $(call shim_obj,$(SHIM_SRC))
	@echo "  LD    $@"; $(CC) $(STATIC) $(LDFLAGS) $(if $(filter asan,$(MODE)),$(WRAP)) -static-pie -Wl,-z,relro,-z,now -o $@ $^
$(B)/backend/shim_image.o: backend/shim_image.S $(B)/cloche-shim
	@mkdir -p $(@D)
	@strip -o $(B)/cloche-shim.stripped $(B)/cloche-shim
	@$(CC) -c -DSHIM_PROGRAM='"$(B)/cloche-shim.stripped"' -o $@ $<
# for tests/torture: this server with the shim of another commit, OTHER_SHIM
$(B)/cloche-other-shim: $(call object,$(SRC)) $(B)/backend/shim/check.o $(OTHER_SHIM)
	@$(CC) -c -DSHIM_PROGRAM='"$(OTHER_SHIM)"' -o $(B)/other_shim_image.o backend/shim_image.S
	@$(CC) $(CFLAGS) $(LDFLAGS) $(LDFLAGS_$(MODE)) -o $@ $(filter %.o,$^) $(B)/other_shim_image.o $(LDLIBS)
# the filters of system calls
$(B)/seccomp-make: $(wildcard backend/linux/seccomp/*.c) backend/linux/seccomp_allow.def backend/linux/seccomp.h \
		backend/linux/seccomp/squeeze.h
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(COMMON) -O1 -o $@ $(filter %.c,$^) $(shell pkg-config --libs libseccomp)
$(B)/seccomp_programs.h: $(B)/seccomp-make
	@echo "  MAKE  $@"; $< >$@.new && mv $@.new $@
$(B)/backend/linux/seccomp.o: $(B)/seccomp_programs.h
$(B)/static/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $@"; $(CC) $(CPPFLAGS) $(STATIC) -MMD -MP -c -o $@ $<
$(B)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $@"; $(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
$(B)/tests/unit/test_server_%: $(B)/tests/unit/test_server_%.o $(SERVEROBJ) $(LIBOBJ) $(B)/backend/shim_image.o
	@echo "  LD    $@"; $(CC) $(CFLAGS) $(LDFLAGS) $(LDFLAGS_$(MODE)) -o $@ $^ $(LDLIBS) -lcmocka
$(B)/tests/unit/%: $(B)/tests/unit/%.o $(LIBOBJ) $(B)/backend/shim_image.o
	@echo "  LD    $@"; $(CC) $(CFLAGS) $(LDFLAGS) $(LDFLAGS_$(MODE)) -o $@ $^ $(LDLIBS) -lcmocka
$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(B)/tests/fuzz/replay_main.o $(SERVEROBJ) $(LIBOBJ) $(B)/backend/shim_image.o
	@echo "  LD    $@"; $(CC) $(CFLAGS) $(LDFLAGS) $(LDFLAGS_$(MODE)) -o $@ $^ $(LDLIBS)

# The whole default root: Debian's static busybox and a link for each of its applets.
$(B)/busybox-root.tar: backend/busybox-root.sh
	@mkdir -p $(@D)
	@echo "  ROOT  $@"; sh backend/busybox-root.sh $@

# install PACKAGES: only if one is missing, and only then with sudo
define install
	@dpkg -s $(1) >/dev/null 2>&1 || { echo "installing packages$(if $(SUDO), with sudo)"; $(SUDO) apt-get update && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(1); }
endef

deps: ## install what building and running need (Debian packages)
	$(call install,$(PACKAGES))
deps-test: deps ## install what the tests need as well
	$(call install,$(TEST_PACKAGES))
	@test -x $(VENV)/bin/schemathesis || { python3 -m venv $(VENV) && $(VENV)/bin/pip install -q schemathesis; }
run: deps ## install what is missing, build, serve on 127.0.0.1:7777
	@$(MAKE) all
	$(if $(SUDO),@echo "containers need root: starting cloche with sudo")
	$(SUDO) $(B)/cloche

test: deps-test ## everything: lint, unit tests, API tests; the last line counts
	$(if $(SUDO),@echo "tests make containers: running them with sudo")
	@$(SUDO) tests/run; status=$$?; \
		$(if $(SUDO),$(SUDO) chown -R "$$(id -u):$$(id -g)" build;) exit $$status
check: $(patsubst %.c,$(B)/%,$(TEST) $(FUZZ)) ## unit tests and fuzz corpora; MODE=asan, tsan or coverage to instrument
	@tests/check $(B)
check-api: all ## API, conformance and contract tests against the real server (root); ARGS for pytest
	MODE=$(MODE) /usr/bin/python3 -m pytest -q tests/api tests/conformance tests/spec $(ARGS)
check-crash: all ## the short form of tests/crash (root); ARGS for pytest
	MODE=$(MODE) /usr/bin/python3 -m pytest -q tests/crash $(ARGS)
crash: all ## kill -9 at every system call, ten minutes of random operations and kills: long, never timed whole (root)
	CLOCHE_CRASH=all MODE=$(MODE) /usr/bin/python3 -m pytest -q tests/crash $(ARGS)
lint: $(call object,$(SRC)) $(call shim_obj,$(SHIM_SRC)) ## forbidden functions and directions, complexity, format
	@tests/lint/run $(B)
format: ## let clang-format lay out the sources
	clang-format -i $$(git ls-files '*.c' '*.h')
coverage: ## line and branch coverage of the unit tests
	$(MAKE) MODE=coverage check
	gcovr -r . --object-directory build/coverage -e tests/ --print-summary
fuzz: ## fuzz each target for FUZZ_SECONDS (default 60) with clang
	tests/fuzz/run
deps-bench: deps ## install what cloche is measured beside
	$(call install,$(BENCH_PACKAGES))
bench: all ## figures beside runc, podman, tar, cp and the kernel floor, in build/bench (minutes; ARGS for bench.py)
	$(SUDO) /usr/bin/python3 tests/bench/bench.py --out build/bench $(ARGS)
$(B)/cloche.8: $(B)/cloche man/cloche.8.scd.in
	{ sed '/@OPTIONS@/,$$d' man/cloche.8.scd.in; $(B)/cloche manual; sed '1,/@OPTIONS@/d' man/cloche.8.scd.in; } | scdoc > $@
man: $(B)/cloche.8 ## the manual page, build/$(MODE)/cloche.8
install: all man ## honours DESTDIR and PREFIX
	install -D -m 755 $(B)/cloche $(DESTDIR)$(PREFIX)/sbin/cloche
	install -D -m 644 $(B)/busybox-root.tar $(DESTDIR)$(PREFIX)/lib/cloche/busybox-root.tar
	sed 's,/usr/local/,$(PREFIX)/,' packaging/cloche.service >$(B)/cloche.service
	install -D -m 644 $(B)/cloche.service $(DESTDIR)$(PREFIX)/lib/systemd/system/cloche.service
	install -D -m 644 $(B)/cloche.8 $(DESTDIR)$(PREFIX)/share/man/man8/cloche.8
clean: ## remove every build
	rm -rf build
help: ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: all deps deps-test deps-bench run test check check-api check-crash crash lint format coverage fuzz bench man install clean help
.SECONDARY:
-include $(patsubst %.o,%.d,$(call object,$(SRC) $(TEST) $(wildcard tests/fuzz/*.c) backend/shim/check.c) $(call shim_obj,$(SHIM_SRC)))
