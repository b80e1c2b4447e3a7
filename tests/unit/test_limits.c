/* SPDX-License-Identifier: Apache-2.0 */
/* At a limit the kernel signals or kills; the library has to answer first. Each
 * test sets its limit in a child process. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/shm.h>

#include "tests/harness.h"

#define MIB (UINT64_C(1) << 20)

#ifdef __SANITIZE_ADDRESS__
#define MLOCK_IS_A_NOOP 1
#else
#define MLOCK_IS_A_NOOP 0
#endif

/* 0 if a block of bytes is refused for want of memory with word as the reason,
 * and a small one can still be had. */
static int refused_but_alive(uint64_t bytes, const char *word)
{
	struct avp_arena_options o = {.quota_bytes = UINT64_C(1) << 39,
				      .first_segment_bytes = 65536};
	struct avp_arena *arena;
	struct avp_block block;
	struct avp_reason why = {0};
	int code = 0;

	if (avp_arena_open(&arena, &o, &why))
		return 1;
	if (avp_arena_alloc(arena, bytes, 0, &block, &why) != AVP_NO_MEMORY)
		code = 2;
	else if (!strstr(why.text, word))
		code = 3;
	else if (avp_arena_alloc(arena, 4096, 0, &block, &why))
		code = 4;
	if (code)
		fprintf(stderr, "%d: %s\n", code, why.text);
	avp_arena_close(arena);
	return code;
}

static int file_size(void *arg)
{
	struct rlimit limit = {MIB, MIB};

	(void)arg;
	if (setrlimit(RLIMIT_FSIZE, &limit))
		return 9;
	return refused_but_alive(2 * MIB, "RLIMIT_FSIZE");
}

static void file_size_limit(void)
{
	CU_ASSERT_EQUAL(test_in_child(file_size, NULL), 0);
}

static int address_space(void *arg)
{
	struct avp_limits now;
	struct rlimit limit;

	(void)arg;
	avp_limits_read(&now);
	limit.rlim_cur = limit.rlim_max = now.address_used + 32 * MIB;
	if (setrlimit(RLIMIT_AS, &limit))
		return 9;
	return refused_but_alive(64 * MIB, "RLIMIT_AS");
}

static void address_space_limit(void)
{
	CU_ASSERT_EQUAL(test_in_child(address_space, NULL), 0);
}

static int locked(void *arg)
{
	struct avp_segment_options o = {.flags = AVP_MEMORY_LOCK};
	struct rlimit limit = {65536, 65536};
	struct avp_segment s;
	struct avp_reason why;

	(void)arg;
	if (avp_segment_create(&s, NULL, 65536, &o, &why) ||
	    !(s.flags & AVP_SEGMENT_LOCKED))
		return 1;
	avp_segment_close(&s);
	/* Without the capability that lifts the limit. */
	if (setrlimit(RLIMIT_MEMLOCK, &limit) ||
	    (!geteuid() && setresuid(65534, 65534, 65534)))
		return 9;
	if (avp_segment_create(&s, NULL, MIB, &o, &why))
		return 2;
	if (s.flags & AVP_SEGMENT_LOCKED || !strstr(why.text, "RLIMIT_MEMLOCK"))
		return 3;
	avp_segment_close(&s);
	o.flags |= AVP_MEMORY_STRICT;
	if (avp_segment_create(&s, NULL, MIB, &o, &why) != AVP_NO_MEMORY)
		return 4;
	return 0;
}

static void lock_is_tried_and_reported(void)
{
	if (MLOCK_IS_A_NOOP) {
		printf("skip limits.lock_is_tried_and_reported: ASan makes "
		       "mlock do nothing\n");
		return;
	}
	CU_ASSERT_EQUAL(test_in_child(locked, NULL), 0);
}

static void machine_memory(void)
{
	struct avp_limits now;
	struct avp_segment s;
	struct avp_reason why;

	avp_limits_read(&now);
	CU_ASSERT_FATAL(now.available_bytes != UINT64_MAX);
	CU_ASSERT_EQUAL(avp_segment_create(&s, NULL, now.available_bytes + MIB,
					   NULL, &why),
			AVP_NO_MEMORY);
	CU_ASSERT(strstr(why.text, "MemAvailable") ||
		  strstr(why.text, "memory."));
}

/* ---- cgroups ------------------------------------------------------------ */

struct cgroup {
	char dir[512];
	const char *limit; /* the file's name */
};

static bool put(const char *dir, const char *name, const char *text)
{
	char path[600];
	bool done;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return done;
}

/* A cgroup of our own below the one we are in; false if there can be none. */
static bool make_cgroup(struct cgroup *g)
{
	char line[512], own[256] = "";
	FILE *file = fopen("/proc/self/cgroup", "re");
	const char *mount = "/sys/fs/cgroup";

	while (file && fgets(line, sizeof(line), file)) {
		char *memory = strstr(line, ":memory:");

		line[strcspn(line, "\n")] = 0;
		if (memory) {
			snprintf(own, sizeof(own), "%.255s", memory + 8);
			mount = "/sys/fs/cgroup/memory";
			break;
		}
		if (!strncmp(line, "0::", 3))
			snprintf(own, sizeof(own), "%.255s", line + 3);
	}
	if (file)
		fclose(file);
	g->limit = strstr(mount, "memory") ? "memory.limit_in_bytes"
					   : "memory.max";
	snprintf(g->dir, sizeof(g->dir), "%s%s/avp-test-%d", mount, own,
		 getpid());
	return !mkdir(g->dir, 0700);
}

/* 77: no limit can be set there. */
static int limited(void *arg)
{
	const struct cgroup *g = arg;
	char number[32];
	struct avp_limits l;

	snprintf(number, sizeof(number), "%" PRIu64, 24 * MIB);
	if (!put(g->dir, g->limit, number))
		return 77;
	snprintf(number, sizeof(number), "%d", getpid());
	if (!put(g->dir, "cgroup.procs", number))
		return 77;
	avp_limits_read(&l);
	if (l.cgroup_bytes != 24 * MIB || l.cgroup_room > l.cgroup_bytes ||
	    !strstr(l.cgroup_file, "avp-test-"))
		return 10;
	return refused_but_alive(64 * MIB, g->limit);
}

static void cgroup_limit(void)
{
	struct cgroup g;
	int code = 77;

	if (make_cgroup(&g)) {
		code = test_in_child(limited, &g);
		CU_ASSERT_EQUAL(rmdir(g.dir), 0);
	}
	if (code == 77)
		printf("skip limits.cgroup_limit: no memory cgroup can be "
		       "made in %s\n",
		       g.dir);
	else
		CU_ASSERT_EQUAL(code, 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(file_size_limit),
		TEST(address_space_limit),
		TEST(lock_is_tried_and_reported),
		TEST(machine_memory),
		TEST(cgroup_limit),
		{0},
	};

	return test_main("limits", tests);
}
