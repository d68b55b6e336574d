# The build of Chronik, for GNU make. Read from top to bottom; nothing is hidden in included makefiles, but for
# build/config.mk, which ./configure writes.
#
#   make                  the library, the programs, the manual, in build/release/
#   make run ARGS='…'     installs what is missing, builds, starts a broker
#   make check            installs what is missing, builds, runs the tests (five minutes at most)
#   make check-asan, check-tsan, sim, fuzz, bench, check-long, lint
#   make install, uninstall, dist, clean      with prefix= and DESTDIR=
#
# VARIANT=release|debug|test|asan|tsan|fuzz chooses the flags; each variant has a directory of its own under build/.
# WERROR=1 turns warnings into errors. `make` alone touches neither the network nor anything outside this directory.

.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

VARIANT ?= release
B       ?= build/$(VARIANT)

all:

# ---- goals that come before the configuration -----------------------------------------------------------------------

WRAPPERS := deps run check check-asan check-tsan check-long sim fuzz bench ci clean distclean help dist
GOALS    := $(or $(MAKECMDGOALS),all)
.PHONY: $(WRAPPERS)

help:
	@sed -n '4,/^$$/s/^# \{0,1\}//p' Makefile

deps:
	@tools/deps install build check

run:
	@tools/deps install build
	@$(MAKE) --no-print-directory VARIANT=release programs
	@exec build/release/bin/chronikd $(ARGS)

check:
	@tools/deps install build check
	@$(MAKE) --no-print-directory VARIANT=release all test-programs
	@$(MAKE) --no-print-directory VARIANT=test tests
	@tests/run --build build --variant test --suite check

check-asan check-tsan: check-%:
	@tools/deps install build check
	@$(MAKE) --no-print-directory VARIANT=$* tests programs
	@tests/run --build build --variant $* --suite unit

# New seeds each time; SIM_ARGS go to every simulation, e.g. SIM_ARGS='--seeds 1000 --from 7'. With SEED=7 that one alone,
# of sim_raft or of SIM=sim_wal, and what happens in it.
sim:
	@tools/deps install build check
ifdef SEED
	@$(MAKE) --no-print-directory VARIANT=test build/test/sim/$(or $(SIM),sim_raft)
	@build/test/sim/$(or $(SIM),sim_raft) --seeds 1 --from $(SEED) --trace $(SIM_ARGS)
else
	@$(MAKE) --no-print-directory VARIANT=test tests
	@tests/run --build build --variant test --suite sim -- $(SIM_ARGS)
endif

check-long:
	@tools/deps install build check
	@$(MAKE) --no-print-directory VARIANT=release all test-programs
	@$(MAKE) --no-print-directory VARIANT=test tests
	@tests/run --build build --variant test --suite long

# FUZZ_TIME: seconds for each fuzzer.
fuzz:
	@tools/deps install build check clang
	@$(MAKE) --no-print-directory VARIANT=fuzz CC=clang fuzzers
	@tests/fuzz/run build/fuzz/fuzz $(or $(FUZZ_TIME),60)

bench:
	@tools/deps install build check
	@$(MAKE) --no-print-directory VARIANT=release all bench-programs
	@if [ -x tests/bench/run ]; then tests/bench/run build/release $(ARGS); \
	 else echo 'tests/bench/run is missing: there is no benchmark to run'; exit 1; fi

clean:
	rm -rf build compile_commands.json autom4te.cache config.log config.status configure configure~
distclean: clean

# ---- configuration --------------------------------------------------------------------------------------------------

ifneq ($(filter-out $(WRAPPERS),$(GOALS)),)
include build/config.mk

# Without this run's CC: what it finds holds for later runs too.
build/config.mk: configure config.mk.in
	@env -u CC ./configure --quiet

configure: configure.ac
	@if command -v autoconf >/dev/null 2>&1; then autoconf; \
	 else echo 'autoconf is missing. Install it, or everything that is needed: make deps' >&2; exit 2; fi
endif

ifeq ($(origin CC),default)
CC := $(or $(CONFIG_CC),cc)
endif
prefix     ?= /usr/local
exec_prefix ?= $(prefix)
bindir     ?= $(exec_prefix)/bin
libdir     ?= $(exec_prefix)/lib
includedir ?= $(prefix)/include
mandir     ?= $(prefix)/share/man
DESTDIR    ?=

# V=1 shows the commands as they are.
say = $(if $(V),,@printf '  %-5s %s\n' $(1) '$@';)

# Before 1.0 the soname carries the minor version, since the interface may change with it.
VERSION_MAJOR := $(word 1,$(subst ., ,$(VERSION)))
VERSION_MINOR := $(word 2,$(subst ., ,$(VERSION)))
SONAME := libchronik.so.$(if $(filter 0,$(VERSION_MAJOR)),0.$(VERSION_MINOR),$(VERSION_MAJOR))

# ---- flags ----------------------------------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(if $(WERROR),-Werror)

FLAGS_release := -O2 -g -fstack-protector-strong -D_FORTIFY_SOURCE=2
FLAGS_debug   := -O0 -g3
FLAGS_test    := -O1 -g -DCNK_TEST_HOOKS
FLAGS_asan    := -O1 -g -DCNK_TEST_HOOKS -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
FLAGS_tsan    := -O1 -g -DCNK_TEST_HOOKS -fno-omit-frame-pointer -fsanitize=thread
# FUZZ_SANITIZE=undefined tries up to ten times as many inputs in the same time: for long searches, whose finds the usual
# build then replays.
FUZZ_SANITIZE ?= address,undefined
FLAGS_fuzz    := -O2 -g -DCNK_TEST_HOOKS -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,$(FUZZ_SANITIZE) -fno-sanitize-recover=undefined
ifeq ($(VARIANT)$(FLAGS_$(VARIANT)),$(VARIANT))
$(error VARIANT=$(VARIANT) is unknown; it is one of release, debug, test, asan, tsan, fuzz)
endif

CFLAGS  := $(FLAGS_$(VARIANT)) $(CONFIG_CFLAGS)
LDFLAGS := $(filter -fsanitize=%,$(FLAGS_$(VARIANT))) $(CONFIG_LDFLAGS) -Wl,--as-needed
COMPILE  = $(CC) -std=c11 -D_GNU_SOURCE -Iinclude -Ilib -I$(B)/gen $(WARNINGS) $(CFLAGS)

# Objects are made anew when the compiler or a flag has changed.
$(shell mkdir -p $(B); printf '%s\n' '$(COMPILE) $(LDFLAGS) $(VERSION)' >$(B)/flags.new; \
        cmp -s $(B)/flags.new $(B)/flags && rm $(B)/flags.new || mv $(B)/flags.new $(B)/flags)

# ---- sources --------------------------------------------------------------------------------------------------------

LIB_SOURCES     := $(sort $(wildcard lib/*/*.c))
LIB_OBJECTS     := $(LIB_SOURCES:%.c=$(B)/obj/%.o)
# server/chronik*.c are programs; bench_*.c are parts of chronik-bench, which uses librdkafka and not the library.
PROGRAM_SOURCES := $(sort $(wildcard server/chronik*.c))
PROGRAMS        := $(filter-out %/chronik-bench,$(PROGRAM_SOURCES:server/%.c=$(B)/bin/%))
BENCH           := $(if $(filter yes,$(HAVE_RDKAFKA)),$(B)/bin/chronik-bench)
BENCH_OBJECTS   := $(patsubst %.c,$(B)/obj/%.o,$(sort $(wildcard server/*bench*.c)))
EXAMPLE_SOURCES := $(sort $(wildcard examples/*.c))
EXAMPLES        := $(EXAMPLE_SOURCES:examples/%.c=$(B)/examples/%)
# tests/sim/sim_*.c are programs; the other files there are the simulated world, which every test may link.
SIM_SOURCES     := $(sort $(filter-out tests/sim/sim_%.c,$(wildcard tests/sim/*.c)))
SIM_OBJECTS     := $(SIM_SOURCES:%.c=$(B)/obj/%.o)
UNIT_TESTS      := $(patsubst tests/unit/%.c,$(B)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))
SIM_TESTS       := $(patsubst tests/sim/%.c,$(B)/sim/%,$(sort $(wildcard tests/sim/sim_*.c)))
FUZZ_NAMES      := $(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
# Other test programs in C (clients, oracles, tools of tests): tests/<suite>/prog_*.c.
TEST_PROGRAMS   := $(patsubst tests/%.c,$(B)/%,$(sort $(wildcard tests/*/prog_*.c)))
BENCH_PROGRAMS  := $(patsubst tests/%.c,$(B)/%,$(sort $(wildcard tests/bench/bench_*.c)))

# Public headers; those of lib/ that are not for installation stay where they are.
HEADERS := $(sort $(wildcard include/chronik/*.h))

.PHONY: all lib programs tests test-programs fuzzers examples manual bench-programs lint install uninstall
all: lib programs manual $(B)/chronik.pc
lib: $(B)/libchronik.a $(B)/libchronik.so
programs: $(PROGRAMS) $(BENCH)
examples: $(EXAMPLES)
tests: $(UNIT_TESTS) $(SIM_TESTS) $(FUZZ_NAMES:%=$(B)/fuzz/replay_%) $(TEST_PROGRAMS) $(EXAMPLES) $(B)/libchronik.so
test-programs: $(TEST_PROGRAMS) $(EXAMPLES) $(B)/libchronik.so
fuzzers: $(FUZZ_NAMES:%=$(B)/fuzz/%)
bench-programs: $(BENCH_PROGRAMS)

# ---- generated code -------------------------------------------------------------------------------------------------
# lib/<module>/gen/<name>.c are programs that run on the machine that builds. Their results go to $(B)/gen/<module>/.

SCHEMAS     := $(sort $(wildcard lib/kafka/schema/*.schema))
GEN_SOURCES := $(if $(SCHEMAS),$(B)/gen/kafka/messages.c)
GEN_HEADERS := $(if $(SCHEMAS),$(B)/gen/kafka/messages.h)
GEN_OBJECTS := $(GEN_SOURCES:$(B)/gen/%.c=$(B)/obj/gen/%.o)

$(B)/gen/kafka/messages.c $(B)/gen/kafka/messages.h &: $(B)/host/kafka/gen/schemagen $(SCHEMAS)
	@mkdir -p $(B)/gen/kafka
	$(call say,GEN)$(B)/host/kafka/gen/schemagen $(B)/gen $(SCHEMAS)
	@touch $(B)/gen/kafka/messages.c $(B)/gen/kafka/messages.h

$(B)/host/%: lib/%.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,LINK)$(CONFIG_CC) -std=c11 -D_GNU_SOURCE -O1 -g -Wall -Wextra -Iinclude -Ilib -MMD -MP -MF $@.d -o $@ $<

# ---- the library ----------------------------------------------------------------------------------------------------

$(B)/obj/lib/%.o: lib/%.c $(B)/flags | $(GEN_HEADERS)
	@mkdir -p $(@D)
	$(call say,CC)$(COMPILE) -DCNK_VERSION='"$(VERSION)"' -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<
$(B)/obj/gen/%.o: $(B)/gen/%.c $(B)/flags | $(GEN_HEADERS)
	@mkdir -p $(@D)
	$(call say,CC)$(COMPILE) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<
$(B)/obj/tests/%.o: tests/%.c $(B)/flags | $(GEN_HEADERS)
	@mkdir -p $(@D)
	$(call say,CC)$(COMPILE) -Itests -MMD -MP -c -o $@ $<
$(B)/obj/server/%.o: server/%.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) -std=c11 -D_GNU_SOURCE -Iinclude -DCNK_VERSION='"$(VERSION)"' $(WARNINGS) $(CFLAGS) -MMD -MP -c -o $@ $<
$(B)/obj/examples/%.o: examples/%.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) -std=c11 -D_GNU_SOURCE -Iinclude $(WARNINGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/libchronik.a: $(LIB_OBJECTS) $(GEN_OBJECTS)
	@rm -f $@
	$(call say,AR)$(AR) rcs $@ $^

# The map lists what is exported: chronik_*, and nothing else.
$(B)/$(SONAME): $(LIB_OBJECTS) $(GEN_OBJECTS) lib/chronik.map
	$(call say,LINK)$(CC) -shared -Wl,-soname,$(SONAME) -Wl,--version-script=lib/chronik.map $(if $(findstring -fsanitize,$(LDFLAGS)),,-Wl,-z,defs) \
	    -o $@ $(LIB_OBJECTS) $(GEN_OBJECTS) $(LDFLAGS) $(LIBS_NEEDED)
$(B)/libchronik.so: $(B)/$(SONAME)
	$(call say,LN)ln -sf $(SONAME) $@

# ---- programs and tests ---------------------------------------------------------------------------------------------

$(PROGRAMS): $(B)/bin/%: $(B)/obj/server/%.o $(B)/libchronik.a
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -o $@ $< $(B)/libchronik.a $(LDFLAGS) $(LIBS_NEEDED)

$(B)/bin/chronik-bench: $(BENCH_OBJECTS)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -o $@ $(BENCH_OBJECTS) $(LDFLAGS) -lrdkafka -lpthread
ifneq ($(filter all programs install,$(GOALS)),)
ifeq ($(BENCH),)
$(info chronik-bench is left out: librdkafka is missing (Debian: librdkafka-dev; or: make deps))
endif
endif

# The examples use the shared library, as a host would.
$(EXAMPLES): $(B)/examples/%: $(B)/obj/examples/%.o $(B)/libchronik.so
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -o $@ $< -L$(B) -lchronik -Wl,-rpath,'$$ORIGIN/..' $(LDFLAGS) -lpthread

$(B)/libsim.a: $(SIM_OBJECTS)
	@rm -f $@
	$(call say,AR)$(AR) rcs $@ $^

TEST_LIBS = $(B)/libsim.a $(B)/libchronik.a $(LDFLAGS) $(LIBS_NEEDED)
$(UNIT_TESTS): $(B)/unit/%: $(B)/obj/tests/unit/%.o $(B)/libsim.a $(B)/libchronik.a
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -o $@ $< $(TEST_LIBS) $(CHECK_LIBS)
$(SIM_TESTS): $(B)/sim/%: $(B)/obj/tests/sim/%.o $(B)/libsim.a $(B)/libchronik.a
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -o $@ $< $(TEST_LIBS) $(CHECK_LIBS)
$(FUZZ_NAMES:%=$(B)/fuzz/replay_%): $(B)/fuzz/replay_%: $(B)/obj/tests/fuzz/%.o $(B)/obj/tests/fuzz/replay_main.o $(B)/libsim.a $(B)/libchronik.a
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -o $@ $< $(B)/obj/tests/fuzz/replay_main.o $(TEST_LIBS)
$(FUZZ_NAMES:%=$(B)/fuzz/%): $(B)/fuzz/%: $(B)/obj/tests/fuzz/%.o $(B)/libsim.a $(B)/libchronik.a
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -fsanitize=fuzzer -o $@ $< $(TEST_LIBS)
$(TEST_PROGRAMS) $(BENCH_PROGRAMS): $(B)/%: $(B)/obj/tests/%.o $(B)/libsim.a $(B)/libchronik.a
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -o $@ $< $(TEST_LIBS) $(if $(filter yes,$(HAVE_RDKAFKA)),-lrdkafka)

lint:
	@$(MAKE) --no-print-directory VARIANT=release all
	@tests/run --build build --variant release --suite lint

# ---- manual, pkg-config ---------------------------------------------------------------------------------------------

MANUAL := $(patsubst man/%.in,$(B)/man/%,$(filter-out $(if $(BENCH),,man/chronik-bench.%),$(wildcard man/*.in)))
manual: $(MANUAL)
# The options in the manual come from the table in lib/conf.
$(B)/optman: $(B)/obj/lib/conf/gen/optman.o $(B)/libchronik.a
	$(call say,LINK)$(CC) -o $@ $< $(B)/libchronik.a $(LDFLAGS) $(LIBS_NEEDED)
$(B)/man/options.roff: $(B)/optman
	@mkdir -p $(@D)
	$(call say,GEN)$(B)/optman >$@
# chronik-bench has a table of its own.
$(B)/man/bench.roff: $(B)/bin/chronik-bench
	@mkdir -p $(@D)
	$(call say,GEN)$(B)/bin/chronik-bench options-roff >$@
$(B)/man/chronik-bench.1: man/chronik-bench.1.in $(B)/man/bench.roff $(B)/flags
	$(call say,GEN)sed -e '/^@OPTIONS@$$/{r $(B)/man/bench.roff' -e 'd;}' -e 's/@VERSION@/$(VERSION)/g' $< >$@
$(B)/man/%: man/%.in $(B)/man/options.roff $(B)/flags
	$(call say,GEN)sed -e '/^@OPTIONS@$$/{r $(B)/man/options.roff' -e 'd;}' -e 's/@VERSION@/$(VERSION)/g' $< >$@

$(B)/chronik.pc: pkgconfig/chronik.pc.in $(B)/flags
	$(call say,GEN)sed -e 's|@prefix@|$(prefix)|; s|@libdir@|$(libdir)|; s|@includedir@|$(includedir)|; s|@VERSION@|$(VERSION)|; s|@LIBS@|$(LIBS_NEEDED)|' $< >$@

# ---- install, dist --------------------------------------------------------------------------------------------------

install: all
	install -d $(DESTDIR)$(bindir) $(DESTDIR)$(libdir)/pkgconfig $(DESTDIR)$(includedir)/chronik
	install -m 755 $(PROGRAMS) $(BENCH) $(DESTDIR)$(bindir)
	install -m 644 $(B)/libchronik.a $(DESTDIR)$(libdir)
	install -m 755 $(B)/$(SONAME) $(DESTDIR)$(libdir)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(libdir)/libchronik.so
	install -m 644 $(HEADERS) $(DESTDIR)$(includedir)/chronik
	$(call say,GEN)sed -e 's|@prefix@|$(prefix)|; s|@libdir@|$(libdir)|; s|@includedir@|$(includedir)|; s|@VERSION@|$(VERSION)|; s|@LIBS@|$(LIBS_NEEDED)|' \
	    pkgconfig/chronik.pc.in >$(DESTDIR)$(libdir)/pkgconfig/chronik.pc
	for m in $(MANUAL); do s=$${m##*.}; install -d $(DESTDIR)$(mandir)/man$$s && install -m 644 $$m $(DESTDIR)$(mandir)/man$$s || exit 1; done

uninstall:
	rm -f $(patsubst $(B)/bin/%,$(DESTDIR)$(bindir)/%,$(PROGRAMS) $(BENCH)) $(DESTDIR)$(libdir)/libchronik.a $(DESTDIR)$(libdir)/$(SONAME) \
	    $(DESTDIR)$(libdir)/libchronik.so $(DESTDIR)$(libdir)/pkgconfig/chronik.pc \
	    $(HEADERS:include/%=$(DESTDIR)$(includedir)/%) $(foreach m,$(notdir $(MANUAL)),$(DESTDIR)$(mandir)/man$(lastword $(subst ., ,$m))/$m)
	-rmdir $(DESTDIR)$(includedir)/chronik

# What git knows, and a ready-made configure.
dist:
	@tools/dist

# ---- for editors ----------------------------------------------------------------------------------------------------

ALL_SOURCES := $(LIB_SOURCES) $(wildcard server/*.c) $(EXAMPLE_SOURCES) $(wildcard tests/*/*.c)
compile_commands.json: $(B)/flags $(ALL_SOURCES)
	@{ echo '['; sep=''; for f in $(ALL_SOURCES); do \
	    printf '%s{"directory":"%s","file":"%s","command":"%s"}' "$$sep" '$(CURDIR)' "$$f" '$(COMPILE) -Itests -c '"$$f"; sep=',\
	'; done; echo; echo ']'; } >$@

-include $(LIB_OBJECTS:.o=.d) $(GEN_OBJECTS:.o=.d) $(wildcard $(B)/obj/*/*.d $(B)/obj/*/*/*.d $(B)/host/*/*/*.d)
