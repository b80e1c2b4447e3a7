# libavp. `make help` lists the targets; README.md says what the folders are.
#
# CC, CFLAGS, LDFLAGS, PREFIX, DESTDIR and V=1 belong to the user. A variant
# builds into its own directory: VARIANT=asan|ubsan|tsan|fuzz.

VERSION   := 0.1.0
SOVERSION := 0
PREFIX    ?= /usr/local
LIBDIR    ?= $(PREFIX)/lib
INCDIR    ?= $(PREFIX)/include
BINDIR    ?= $(PREFIX)/bin
DOCDIR    ?= $(PREFIX)/share/doc/avp
HELPERDIR  = $(BINDIR)/../libexec/avp
CFLAGS    ?= -O2 -g
VARIANT   ?=
B         := build$(if $(VARIANT),/$(VARIANT))
Q         := $(if $(V),,@)
say        = $(if $(V),,@printf '  %-6s %s\n' '$(1)' '$(patsubst $(CURDIR)/%,%,$@)')

SAN_asan := -fsanitize=address,undefined -fno-sanitize-recover=undefined \
            -fno-omit-frame-pointer
SAN_ubsan := -fsanitize=undefined -fno-sanitize-recover=undefined
SAN_tsan := -fsanitize=thread
SAN_fuzz := -fsanitize=fuzzer-no-link,address,undefined \
            -fno-sanitize-recover=undefined
SAN      := $(SAN_$(VARIANT))

WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
            -Wvla $(if $(CI),-Werror)
CPPFLAGS_ = -D_GNU_SOURCE -DAVP_BUILD -DAVP_VERSION='"$(VERSION)"' \
            -I$(B)/include -I$(B)/gen -I. $(CPPFLAGS)
CFLAGS_   = -std=c17 $(WARN) -fPIC -fvisibility=hidden \
            -fno-semantic-interposition -pthread $(SAN) $(CFLAGS)
LDLIBS_   = -lprotobuf-c -lzstd -lz -lcrypto -luring -lyaml -lm -pthread
BLASLIBS_ = -lopenblas
GWLIBS_   = -lnghttp2 -lhttp_parser -lcurl -lssl

# What stands where. cmd_*.c are parts of avpctl, whichever folder they are in;
# the files of latent/ that need BLAS make a library of their own, and the
# command that needs it a program, which avpctl starts.
HEADERS  := shm/error.h shm/shm.h ring/ring.h codec/str.h codec/json.h \
            codec/hello.h codec/codec.h latent/latent.h ahp/message.h ahp/dlq.h \
            ahp/config.h ahp/ahp.h ahp/leader.h
HEADERS  := $(wildcard $(HEADERS))
REAL_SRC := gateway/avpctl_realign.c latent/cmd_realign.c
BASE_SRC := $(addprefix gateway/cmd_,io.c main.c options.c)
CMD_SRC  := $(filter-out $(REAL_SRC),$(wildcard */cmd_*.c)) gateway/avpctl.c
BLAS_SRC := $(wildcard latent/realign*.c latent/project*.c)
GW_MAIN  := gateway/avp-gateway.c
GW_SRC   := $(filter-out $(CMD_SRC) $(REAL_SRC) $(GW_MAIN), \
            $(wildcard gateway/*.c))
LIB_SRC  := $(filter-out $(CMD_SRC) $(REAL_SRC) $(BLAS_SRC), \
            $(wildcard shm/*.c ring/*.c codec/*.c latent/*.c ahp/*.c))
PROTO    := $(wildcard codec/*.proto)
PB_SRC   := $(PROTO:codec/%.proto=$(B)/gen/%.pb-c.c)

LIB_OBJ  := $(LIB_SRC:%.c=$(B)/obj/%.o) $(PROTO:codec/%.proto=$(B)/obj/gen/%.pb-c.o)
BLAS_OBJ := $(BLAS_SRC:%.c=$(B)/obj/%.o)
CMD_OBJ  := $(CMD_SRC:%.c=$(B)/obj/%.o)
REAL_OBJ := $(REAL_SRC:%.c=$(B)/obj/%.o) $(BASE_SRC:%.c=$(B)/obj/%.o)
GW_OBJ   := $(GW_SRC:%.c=$(B)/obj/%.o)
INC      := $(addprefix $(B)/include/avp/,$(notdir $(HEADERS)))

# Tests: one program a file.
TEST_SRC  := $(wildcard tests/unit/*.c tests/integration/*.c tests/crash/*.c \
                        tests/fuzz/*.c)
RING_SRC  := $(wildcard tests/stress/*.c)
TESTS     := $(TEST_SRC:tests/%.c=$(B)/tests/%)
STRESS    := $(RING_SRC:tests/%.c=$(B)/tests/%)

.PHONY: all demo check bench bench-gateway soak asan ubsan tsan fuzz interop install uninstall \
        clean help setup tests run-tests run-stress run-fuzz FORCE
.SECONDARY:

.DELETE_ON_ERROR:

all: $(B)/libavp.a $(B)/libavp.so $(if $(BLAS_SRC),$(B)/libavp-latent.a \
     $(B)/libavp-latent.so $(B)/avp-latent.pc) $(B)/avpctl \
     $(B)/avpctl-realign $(B)/avp-gateway $(B)/avp.pc

help:
	@echo 'make all        libraries and programs into build/'
	@echo 'make demo       set up, build, and show agents at work on this host'
	@echo 'make check      set up, build, and run every test (CI=1: -Werror)'
	@echo 'make interop    the tests that need a package registry'
	@echo 'make soak       sleep and wake at length: SOAK_MESSAGES, SOAK_WAKES'
	@echo 'make bench      measure, into build/bench.json'
	@echo 'make bench-gateway   a part of it, into build/bench-gateway.json'
	@echo 'make asan|ubsan|tsan   the tests under a sanitizer'
	@echo 'make fuzz       the fuzz harnesses, FUZZ_SECONDS each (default 60)'
	@echo 'make install|uninstall [PREFIX=/usr/local] [DESTDIR=]'
	@echo 'make clean      remove build/'

setup:
	@.ci/setup

# Public headers are seen as <avp/...> in the tree as they are installed.
$(INC):
	@mkdir -p $(@D)
	@ln -sf $(CURDIR)/$(filter %/$(@F),$(HEADERS)) $@

$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h: codec/%.proto
	@mkdir -p $(B)/gen
	$(call say,PROTO)
	$(Q)protoc-c --c_out=$(B)/gen --proto_path=codec $<

# protoc-c initialises a oneof of bytes without its inner braces.
$(B)/obj/gen/%.o: $(B)/gen/%.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS_) $(CFLAGS_) -Wno-missing-braces -MMD -MP -c -o $@ $<

$(B)/obj/%.o: %.c | $(INC) $(PB_SRC:.c=.h)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS_) $(CFLAGS_) -MMD -MP -c -o $@ $<

$(B)/libavp.a: $(LIB_OBJ)
	$(call say,AR)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(B)/libavp-latent.a: $(BLAS_OBJ)
	$(call say,AR)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

# The maps are written here so that a library's name and version have one home.
$(B)/%.map: Makefile
	@mkdir -p $(@D)
	@printf 'AVP_%s {\n\tglobal: avp_[a-z]*; ahp_[a-z]*;\n\tlocal: *;\n};\n' \
	        $(basename $(VERSION)) >$@

$(B)/libavp.so: $(LIB_OBJ) $(B)/libavp.map
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS_) $(LDFLAGS) -shared -Wl,-soname,libavp.so.$(SOVERSION) \
	        -Wl,--version-script=$(B)/libavp.map -Wl,-z,defs -Wl,-Bsymbolic-functions -o $@ \
	        $(LIB_OBJ) $(LDLIBS_)
	@ln -sf libavp.so $@.$(SOVERSION)

# What is private in libavp.so (avp__fail) comes from the static library.
$(B)/libavp-latent.so: $(BLAS_OBJ) $(B)/libavp.so $(B)/libavp.a \
                       $(B)/libavp-latent.map
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS_) $(LDFLAGS) -shared \
	        -Wl,-soname,libavp-latent.so.$(SOVERSION) \
	        -Wl,--version-script=$(B)/libavp-latent.map -Wl,-z,defs -o $@ \
	        -Wl,--exclude-libs,libavp.a $(BLAS_OBJ) -L$(B) -lavp \
	        $(B)/libavp.a $(BLASLIBS_) $(LDLIBS_)
	@ln -sf libavp-latent.so $@.$(SOVERSION)

$(B)/avpctl: $(CMD_OBJ) $(B)/libavp.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS_) $(LDFLAGS) -o $@ $^ $(LDLIBS_)

$(B)/avpctl-realign: $(REAL_OBJ) $(B)/libavp-latent.a $(B)/libavp.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS_) $(LDFLAGS) -o $@ $^ $(BLASLIBS_) $(LDLIBS_)

# The gateway's parts without its main(), which their tests link as well.
$(B)/gateway.a: $(GW_OBJ)
	$(call say,AR)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(B)/avp-gateway: $(GW_MAIN:%.c=$(B)/obj/%.o) $(B)/gateway.a $(B)/libavp.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS_) $(LDFLAGS) -o $@ $^ $(GWLIBS_) $(LDLIBS_)

# Written anew each time: it holds the PREFIX of this call, blanks escaped.
blank     := $(subst ,, )
pc_path    = '$(subst $(blank),\$(blank),$(1))'
pc_paths   = $(call pc_path,$(PREFIX)) $(call pc_path,$(LIBDIR)) \
             $(call pc_path,$(INCDIR))
$(B)/avp.pc: FORCE
	@mkdir -p $(@D)
	@printf 'prefix=%s\nlibdir=%s\nincludedir=%s\n\nName: avp\n' \
	        $(pc_paths) >$@
	@printf 'Description: shared-memory transport for LLM agents\n' >>$@
	@printf 'Version: %s\nLibs: -L$${libdir} -lavp\n' '$(VERSION)' >>$@
	@printf 'Libs.private: %s\nCflags: -I$${includedir}\n' \
	        '$(LDLIBS_)' >>$@

$(B)/avp-latent.pc: FORCE
	@mkdir -p $(@D)
	@printf 'prefix=%s\nlibdir=%s\nincludedir=%s\n\nName: avp-latent\n' \
	        $(pc_paths) >$@
	@printf 'Description: realignment and projection, on OpenBLAS\n' >>$@
	@printf 'Version: %s\nRequires: avp\nCflags: -I$${includedir}\n' \
	        '$(VERSION)' >>$@
	@printf 'Libs: -L$${libdir} -lavp-latent\nLibs.private: %s\n' \
	        '$(BLASLIBS_)' >>$@

# ---- tests ---------------------------------------------------------------

HARNESS := $(patsubst %.c,$(B)/obj/%.o,$(wildcard tests/*.c))
$(B)/tests/%: tests/%.c $(HARNESS) $(if $(BLAS_SRC),$(B)/libavp-latent.a) \
              $(B)/libavp.a
	@mkdir -p $(@D)
	$(call say,TEST)
	$(Q)$(CC) $(CPPFLAGS_) $(CFLAGS_) -MMD -MP -o $@ $< $(HARNESS) \
	        $(if $(BLAS_SRC),$(B)/libavp-latent.a $(BLASLIBS_)) \
	        $(B)/libavp.a -lcunit $(LDLIBS_)

# Of the gateway's parts: what a test does not use it does not link.
$(B)/tests/unit/test_gateway_%: tests/unit/test_gateway_%.c $(HARNESS) \
                                $(B)/gateway.a $(B)/libavp.a
	@mkdir -p $(@D)
	$(call say,TEST)
	$(Q)$(CC) $(CPPFLAGS_) $(CFLAGS_) -MMD -MP -o $@ $< $(HARNESS) \
	        -Wl,--as-needed $(B)/gateway.a $(B)/libavp.a -lcunit \
	        $(GWLIBS_) $(LDLIBS_)

# A program such as users write: it sees what is installed and no more.
$(B)/demo/%: tests/demo/%.c $(B)/libavp.a
	@mkdir -p $(@D)
	$(call say,DEMO)
	$(Q)$(CC) -I$(B)/include $(CPPFLAGS) $(CFLAGS_) -D_GNU_SOURCE -MMD -MP \
	        -o $@ $< $(LDFLAGS) $(B)/libavp.a $(LDLIBS_)

tests: all $(TESTS) $(STRESS)
run-tests: all $(TESTS)
	@tests/run $(B) $(TESTS)
run-stress: $(STRESS)
	@tests/run $(B) $(STRESS)

# ubsan without ASan, whose allocator aligns memory better than malloc() does.
asan ubsan:
	@$(MAKE) --no-print-directory VARIANT=$@ CFLAGS='-O1 -g' run-tests
tsan:
	@$(MAKE) --no-print-directory VARIANT=tsan CFLAGS='-O1 -g' run-stress

# libFuzzer on each harness, beginning with the files in its .corpus; what it
# finds is kept in build/fuzz. As tests the harnesses replay fixed examples.
FUZZ_SECONDS ?= 60
FUZZERS      := $(patsubst tests/%.c,$(B)/%,$(wildcard tests/fuzz/*.c))
ifeq ($(VARIANT),fuzz)
$(FUZZERS): $(B)/%: tests/%.c $(HARNESS) \
                $(if $(BLAS_SRC),$(B)/libavp-latent.a) $(B)/libavp.a
	@mkdir -p $(@D)/$(*F).corpus
	$(call say,FUZZ)
	$(Q)$(CC) $(CPPFLAGS_) $(CFLAGS_) -DAVP_FUZZING -fsanitize=fuzzer \
	        -MMD -MP -o $@ $(filter %.c %.o %.a,$^) -lcunit $(LDLIBS_)
run-fuzz: $(FUZZERS)
	@set -e; for f in $(FUZZERS); do echo "== $$f"; \
	    $$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
	        -artifact_prefix=$$f- $$f.corpus \
	        $$(ls -d tests/fuzz/$$(basename $$f).corpus/ 2>/dev/null); done
endif
fuzz:
	@$(MAKE) --no-print-directory VARIANT=fuzz CC=clang CFLAGS='-O1 -g' \
	        run-fuzz

check: setup
	@tests/check '$(MAKE) --no-print-directory'

interop: setup
	@$(MAKE) --no-print-directory all
	@tests/interop/run

# Some ten minutes: each loop and doorbell has that many messages and wakes.
SOAK_MESSAGES ?= 40000000
SOAK_WAKES    ?= 1000000
soak: $(B)/tests/integration/test_soak
	@SOAK_MESSAGES=$(SOAK_MESSAGES) SOAK_WAKES=$(SOAK_WAKES) $<

DEMOS := $(B)/demo/planner_solver $(B)/demo/leader_team $(B)/demo/remote
demo: setup
	@$(MAKE) --no-print-directory all $(DEMOS)
	@tests/demo/run $(DEMOS)

bench: setup
	@$(MAKE) --no-print-directory all
	@tests/bench/run
	@$(MAKE) --no-print-directory bench-gateway

# Beside nghttpd, by h2load: says so if they are missing.
bench-gateway: all $(B)/tests/bench/bench_gateway
	@tests/bench/gateway

# ---- installation --------------------------------------------------------

# What is installed, a folder a list, so that uninstall removes this and no more.
# Recipes quote each path: DESTDIR and PREFIX may have blanks.
LIBS      := libavp $(if $(BLAS_SRC),libavp-latent)
IN_INC    := $(notdir $(HEADERS))
IN_LIB    := $(foreach l,$(LIBS),$l.a $l.so $l.so.$(SOVERSION) \
             $l.so.$(VERSION))
IN_PC     := avp.pc $(if $(BLAS_SRC),avp-latent.pc)
IN_BIN    := avpctl avp-gateway
IN_HELPER := avpctl-realign
DOCS      := ahp/avp.example.yaml gateway/avp-gateway.service
IN_DOC    := $(notdir $(DOCS))
D_INC      = "$(DESTDIR)$(INCDIR)/avp"
D_LIB      = "$(DESTDIR)$(LIBDIR)"
D_PC       = "$(DESTDIR)$(LIBDIR)/pkgconfig"
D_BIN      = "$(DESTDIR)$(BINDIR)"
D_HELPER   = "$(DESTDIR)$(HELPERDIR)"
D_DOC      = "$(DESTDIR)$(DOCDIR)"

FORCE:
install: all
	install -d $(D_INC) $(D_LIB) $(D_PC) $(D_BIN) $(D_HELPER) $(D_DOC)
	install -m 644 $(HEADERS) $(D_INC)
	for l in $(LIBS); do \
	    install -m 644 $(B)/$$l.a $(D_LIB) && \
	    install -m 755 $(B)/$$l.so $(D_LIB)/$$l.so.$(VERSION) && \
	    ln -sf $$l.so.$(VERSION) $(D_LIB)/$$l.so.$(SOVERSION) && \
	    ln -sf $$l.so.$(SOVERSION) $(D_LIB)/$$l.so || exit 1; \
	done
	install -m 644 $(addprefix $(B)/,$(IN_PC)) $(D_PC)
	install -m 755 $(addprefix $(B)/,$(IN_BIN)) $(D_BIN)
	install -m 755 $(addprefix $(B)/,$(IN_HELPER)) $(D_HELPER)
	install -m 644 $(DOCS) $(D_DOC)

uninstall:
	for f in $(IN_INC); do rm -f $(D_INC)/$$f; done
	for f in $(IN_LIB); do rm -f $(D_LIB)/$$f; done
	for f in $(IN_PC); do rm -f $(D_PC)/$$f; done
	for f in $(IN_BIN); do rm -f $(D_BIN)/$$f; done
	for f in $(IN_HELPER); do rm -f $(D_HELPER)/$$f; done
	for f in $(IN_DOC); do rm -f $(D_DOC)/$$f; done
	-rmdir $(D_INC) $(D_HELPER) $(D_DOC)

clean:
	rm -rf build

-include $(LIB_OBJ:.o=.d) $(CMD_OBJ:.o=.d) $(REAL_OBJ:.o=.d) $(BLAS_OBJ:.o=.d) \
         $(GW_OBJ:.o=.d) $(B)/obj/gateway/avp-gateway.d \
         $(HARNESS:.o=.d) $(TESTS:=.d) $(STRESS:=.d)
