/* SPDX-License-Identifier: Apache-2.0 */
/* Segments: what is granted, what the seals keep a peer from, what import
 * refuses, and that limits give an answer instead of a signal. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/shm.h>

#include "tests/harness.h"

#define MIB   (UINT64_C(1) << 20)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

static bool wait_closed(void *fd)
{
	return fcntl(*(int *)fd, F_GETFD) < 0;
}

/* ---- creation ----------------------------------------------------------- */

static void create_small(void)
{
	struct avp_segment s;
	struct avp_reason why;
	struct stat st;
	char line[512];
	int found = 0;
	FILE *maps;

	CU_ASSERT_EQUAL_FATAL(avp_segment_create(&s, "lane", 5000, NULL, &why),
			      AVP_OK);
	CU_ASSERT_EQUAL(why.code, AVP_OK);
	CU_ASSERT_EQUAL(why.text[0], 0);
	CU_ASSERT_EQUAL(s.bytes, 8192);
	CU_ASSERT_EQUAL(s.flags, AVP_SEGMENT_WRITABLE);
	CU_ASSERT_EQUAL((uintptr_t)s.base % (2 * MIB), 0);
	CU_ASSERT_EQUAL(fcntl(s.fd, F_GETFD), FD_CLOEXEC);
	CU_ASSERT_EQUAL(fcntl(s.fd, F_GET_SEALS) & SEALS, SEALS);
	fstat(s.fd, &st);
	CU_ASSERT_EQUAL((uint64_t)st.st_blocks * 512, s.bytes);
	for (unsigned i = 0; i < 8192; i++)
		found |= ((char *)s.base)[i];
	CU_ASSERT_EQUAL(found, 0);
	memset(s.base, 7, s.bytes);
	maps = fopen("/proc/self/maps", "re");
	while (fgets(line, sizeof(line), maps))
		found |= strstr(line, "/memfd:avp:lane") != NULL;
	fclose(maps);
	CU_ASSERT(found);
	avp_segment_close(&s);
	CU_ASSERT_EQUAL(s.base, NULL);
	avp_segment_close(&s);
}

/* The flags of the mapping at base, as smaps shows them: "rd wr ... dc dd". */
static void vm_flags(const void *base, char *flags, size_t size)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	char line[1024], want[32];
	bool here = false;

	flags[0] = 0;
	snprintf(want, sizeof(want), "%lx-", (unsigned long)(uintptr_t)base);
	while (fgets(line, sizeof(line), smaps)) {
		if (!strncmp(line, want, strlen(want)))
			here = true;
		if (here && !strncmp(line, "VmFlags:", 8)) {
			snprintf(flags, size, "%.200s", line);
			break;
		}
	}
	fclose(smaps);
}

static void neither_forked_nor_dumped(void)
{
	struct avp_segment own, peer;
	char flags[256];

	CU_ASSERT_EQUAL_FATAL(avp_segment_create(&own, NULL, 4096, NULL, NULL),
			      AVP_OK);
	CU_ASSERT_EQUAL_FATAL(
		avp_segment_import(&peer, dup(own.fd), 0, MIB, NULL), AVP_OK);
	vm_flags(own.base, flags, sizeof(flags));
	CU_ASSERT(strstr(flags, " dc") && strstr(flags, " dd"));
	vm_flags(peer.base, flags, sizeof(flags));
	CU_ASSERT(strstr(flags, " dc") && strstr(flags, " dd"));
	avp_segment_close(&peer);
	avp_segment_close(&own);
}

static void create_huge_is_tried_and_reported(void)
{
	struct avp_segment_options small = {.flags = AVP_MEMORY_SMALL_PAGES};
	struct avp_segment s;
	struct avp_reason why;
	struct stat st;

	CU_ASSERT_EQUAL_FATAL(avp_segment_create(&s, NULL, 3 * MIB, NULL, &why),
			      AVP_OK);
	CU_ASSERT_EQUAL(s.bytes, 4 * MIB);
	CU_ASSERT_EQUAL((s.flags & AVP_SEGMENT_HUGE) != 0, why.text[0] == 0);
	CU_ASSERT_EQUAL((uintptr_t)s.base % (2 * MIB), 0);
	fstat(s.fd, &st);
	CU_ASSERT((uint64_t)st.st_blocks * 512 >= s.bytes);
	avp_segment_close(&s);

	CU_ASSERT_EQUAL_FATAL(
		avp_segment_create(&s, NULL, 3 * MIB, &small, &why), AVP_OK);
	CU_ASSERT_EQUAL(s.flags, AVP_SEGMENT_WRITABLE);
	CU_ASSERT_EQUAL(why.text[0], 0);
	fstat(s.fd, &st);
	CU_ASSERT((uint64_t)st.st_blocks * 512 >= s.bytes);
	avp_segment_close(&s);
}

static void create_refuses_arguments(void)
{
	struct avp_segment_options o = {.flags = 1u << 20};
	struct {
		struct avp_segment_options known;
		uint64_t unknown;
	} longer = {.known = {.size = sizeof(longer)}, .unknown = 1};
	struct avp_segment s = {.bytes = 99};
	struct avp_reason why;

	CU_ASSERT_EQUAL(avp_segment_create(&s, NULL, 0, NULL, &why), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_segment_create(&s, NULL, AVP_SEGMENT_BYTES_MAX + 1,
					   NULL, &why),
			AVP_USAGE);
	CU_ASSERT_EQUAL(avp_segment_create(&s, NULL, 4096, &o, &why),
			AVP_USAGE);
	o = (struct avp_segment_options){.size = 4};
	CU_ASSERT_EQUAL(avp_segment_create(&s, NULL, 4096, &o, &why),
			AVP_USAGE);
	o = (struct avp_segment_options){.reserved = {0, 0, 0, 1}};
	CU_ASSERT_EQUAL(avp_segment_create(&s, NULL, 4096, &o, &why),
			AVP_USAGE);
	CU_ASSERT_EQUAL(avp_segment_create(&s, NULL, 4096, &longer.known, &why),
			AVP_USAGE);
	CU_ASSERT_EQUAL(s.bytes, 99);
	longer.unknown = 0;
	CU_ASSERT_EQUAL_FATAL(
		avp_segment_create(&s, NULL, 4096, &longer.known, &why),
		AVP_OK);
	avp_segment_close(&s);
}

/* ---- what a peer cannot do ---------------------------------------------- */

/* The number of the first thing that was possible, 0 if none was. */
static int try_everything(void *arg)
{
	int fd = *(int *)arg, again;
	char path[64];
	void *p;

	if (mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
		return 1;
	p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return 2;
	if (!mprotect(p, 4096, PROT_READ | PROT_WRITE) || errno != EACCES)
		return 3;
	if (!ftruncate(fd, 0) || errno != EPERM)
		return 4;
	if (!ftruncate(fd, 1 << 20) || errno != EPERM)
		return 5;
	if (write(fd, "x", 1) >= 0 || pwrite(fd, "x", 1, 0) >= 0)
		return 6;
	if (!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096))
		return 7;
	if (!madvise(p, 4096, MADV_REMOVE))
		return 8;
	if (!fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) || errno != EPERM)
		return 9;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDWR);
	if (again >= 0 &&
	    mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, again, 0) != MAP_FAILED)
		return 10;
	if (again >= 0 && write(again, "x", 1) >= 0)
		return 11;
	if (!open(path, O_RDWR | O_TRUNC))
		return 12;
	return 0;
}

static void seals_hold(void)
{
	struct avp_segment s;

	CU_ASSERT_EQUAL_FATAL(avp_segment_create(&s, NULL, 8192, NULL, NULL),
			      AVP_OK);
	memset(s.base, 1, s.bytes);
	CU_ASSERT_EQUAL(test_in_child(try_everything, &s.fd), 0);
	CU_ASSERT_EQUAL(((char *)s.base)[0], 1);
	CU_ASSERT_EQUAL(((char *)s.base)[8191], 1);
	avp_segment_close(&s);
}

static void owner_writes_peer_sees(void)
{
	static const char late[] = "written after the seal";
	struct avp_segment own, peer;
	struct avp_reason why;
	int fd;

	CU_ASSERT_EQUAL_FATAL(avp_segment_create(&own, NULL, 8192, NULL, NULL),
			      AVP_OK);
	fd = dup(own.fd);
	CU_ASSERT_EQUAL_FATAL(avp_segment_import(&peer, fd, 8192, 8192, &why),
			      AVP_OK);
	CU_ASSERT_EQUAL(fcntl(fd, F_GETFD), -1);
	CU_ASSERT_EQUAL(peer.fd, -1);
	CU_ASSERT_EQUAL(peer.flags, 0);
	CU_ASSERT_EQUAL((uintptr_t)peer.base % (2 * MIB), 0);
	memcpy((char *)own.base + 100, late, sizeof(late));
	CU_ASSERT_STRING_EQUAL((char *)peer.base + 100, late);
	CU_ASSERT_EQUAL(mprotect(peer.base, 4096, PROT_READ | PROT_WRITE), -1);
	avp_segment_close(&own);
	/* The memory outlives its owner's mapping. */
	CU_ASSERT_STRING_EQUAL((char *)peer.base + 100,
			       "written after the seal");
	avp_segment_close(&peer);
}

/* ---- import ------------------------------------------------------------- */

/* Imports fd, which must be refused with code, a reason with word, and be
 * closed soon. */
static void refused(int fd, uint64_t expect, uint64_t cap, int code,
		    const char *word)
{
	struct avp_segment s = {.bytes = 99};
	struct avp_reason why = {0};

	CU_ASSERT_EQUAL(avp_segment_import(&s, fd, expect, cap, &why), code);
	CU_ASSERT_EQUAL(why.code, code);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, word));
	if (!strstr(why.text, word))
		printf("  reason: %s\n", why.text);
	CU_ASSERT_EQUAL(s.bytes, 99);
	CU_ASSERT(test_wait(wait_closed, &fd, 5));
}

/* A memfd of size bytes, written when filled, with these seals. */
static int memfd(unsigned flags, off_t size, bool filled, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | flags);

	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(ftruncate(fd, size), 0);
	if (filled)
		CU_ASSERT_EQUAL(fallocate(fd, 0, 0, size), 0);
	if (seals)
		CU_ASSERT_EQUAL(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void import_refuses_unsealed(void)
{
	static const int parts[] = {F_SEAL_SHRINK, F_SEAL_GROW,
				    F_SEAL_FUTURE_WRITE, F_SEAL_SEAL};
	const unsigned s = MFD_ALLOW_SEALING;

	refused(memfd(s, 8192, true, 0), 0, MIB, AVP_POISONED, "lack");
	refused(memfd(0, 8192, true, 0), 0, MIB, AVP_POISONED, "lack");
	for (unsigned i = 0; i < 4; i++)
		refused(memfd(s, 8192, true, SEALS & ~parts[i]), 0, MIB,
			AVP_POISONED, "lack");
}

static void import_takes_further_seals(void)
{
	struct avp_segment s;
	int fd = memfd(MFD_ALLOW_SEALING, 8192, true, SEALS | F_SEAL_WRITE);

	CU_ASSERT_EQUAL_FATAL(avp_segment_import(&s, fd, 0, MIB, NULL), AVP_OK);
	CU_ASSERT_EQUAL(s.bytes, 8192);
	avp_segment_close(&s);
}

static void import_refuses_sizes(void)
{
	const unsigned s = MFD_ALLOW_SEALING;

	refused(memfd(s, 8192, true, SEALS), 4096, MIB, AVP_POISONED,
		"announced");
	refused(memfd(s, 0, false, SEALS), 0, MIB, AVP_POISONED, "0 bytes");
	refused(memfd(s, 2 * MIB, true, SEALS), 0, MIB, AVP_TOO_LARGE, "cap");
	refused(memfd(s, INT64_MAX, false, SEALS), 0, UINT64_MAX, AVP_TOO_LARGE,
		"cap");
	refused(memfd(s, 8192, false, SEALS), 0, MIB, AVP_POISONED, "holes");
}

static void import_refuses_one_hole(void)
{
	int fd = memfd(MFD_ALLOW_SEALING, MIB, true, 0);

	CU_ASSERT_EQUAL(fallocate(fd,
				  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  65536, 4096),
			0);
	CU_ASSERT_EQUAL(fcntl(fd, F_ADD_SEALS, SEALS), 0);
	refused(fd, MIB, MIB, AVP_POISONED, "holes");
}

static void import_refuses_other_files(void)
{
	char path[512];
	int p[2], fd;

	snprintf(path, sizeof(path), "%s/file", test_dir());
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CU_ASSERT_EQUAL(ftruncate(fd, 8192), 0);
	refused(fd, 0, MIB, AVP_POISONED, "sealed");
	fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		refused(fd, 0, MIB, AVP_POISONED, "");
	CU_ASSERT_EQUAL_FATAL(pipe2(p, O_CLOEXEC), 0);
	refused(p[0], 0, MIB, AVP_POISONED, "sealed");
	refused(p[1], 0, MIB, AVP_POISONED, "sealed");
	refused(eventfd(0, EFD_CLOEXEC), 0, MIB, AVP_POISONED, "sealed");
	refused(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), 0, MIB,
		AVP_POISONED, "sealed");
	refused(open("/dev/null", O_RDWR | O_CLOEXEC), 0, MIB, AVP_POISONED,
		"sealed");
	refused(open(path, O_PATH | O_CLOEXEC), 0, MIB, AVP_POISONED, "sealed");
	refused(-1, 0, MIB, AVP_POISONED, "sealed");
}

static void import_refuses_hugetlb(void)
{
	int fd = memfd_create("test",
			      MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);

	if (fd < 0) {
		printf("skip segment.hugetlb: this kernel has none\n");
		return;
	}
	CU_ASSERT_EQUAL(ftruncate(fd, 2 * MIB), 0);
	CU_ASSERT_EQUAL(fcntl(fd, F_ADD_SEALS, SEALS), 0);
	refused(fd, 0, 4 * MIB, AVP_POISONED, "file system");
}

static void import_refuses_unreadable(void)
{
	int fd = memfd(MFD_ALLOW_SEALING, 8192, true, 0), write_only;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	write_only = open(path, O_WRONLY | O_CLOEXEC);
	CU_ASSERT_EQUAL(fcntl(fd, F_ADD_SEALS, SEALS), 0);
	close(fd);
	refused(write_only, 0, MIB, AVP_POISONED, "mapping");
}

/* Kills this process when it looks at fd in any way but by its seals. */
static void forbid(int fd)
{
	static const int calls[] = {SYS_fstat,	   SYS_newfstatat, SYS_statx,
				    SYS_fstatfs,   SYS_read,	   SYS_pread64,
				    SYS_write,	   SYS_lseek,	   SYS_ioctl,
				    SYS_ftruncate, SYS_fsync};
	enum { N = sizeof(calls) / sizeof(*calls) };
	struct sock_filter f[4 + N + 3];
	struct sock_fprog program = {.len = N + 7, .filter = f};
	unsigned n = 0;

	f[n++] = (struct sock_filter)BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS,
		offsetof(struct seccomp_data, args[0]));
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
					      (unsigned)fd, 1, 0);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
					      SECCOMP_RET_ALLOW);
	f[n++] = (struct sock_filter)BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < N; i++)
		f[n++] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i],
			(unsigned char)(N - i), 0);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
					      SECCOMP_RET_ALLOW);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
					      SECCOMP_RET_KILL_PROCESS);
	program.len = (unsigned short)n;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(77);
}

static int import_forbidden(void *arg)
{
	struct avp_segment s;
	int fd = *(int *)arg;

	forbid(fd);
	return avp_segment_import(&s, fd, 0, MIB, NULL) == AVP_POISONED ? 0 : 1;
}

static int stat_forbidden(void *arg)
{
	struct stat st;

	forbid(*(int *)arg);
	return fstat(*(int *)arg, &st) ? 0 : 1;
}

static void unsealed_is_not_even_looked_at(void)
{
	int p[2], code, fd = memfd(MFD_ALLOW_SEALING, 8192, true, F_SEAL_SEAL);

	CU_ASSERT_EQUAL_FATAL(pipe2(p, O_CLOEXEC), 0);
	code = test_in_child(stat_forbidden, &fd);
	if (code == 77) {
		printf("skip segment.unsealed_is_not_even_looked_at: seccomp "
		       "filters are not allowed here\n");
	} else {
		CU_ASSERT_EQUAL(code, 1000 + SIGSYS);
		CU_ASSERT_EQUAL(test_in_child(import_forbidden, &fd), 0);
		CU_ASSERT_EQUAL(test_in_child(import_forbidden, &p[0]), 0);
	}
	close(fd);
	close(p[0]);
	close(p[1]);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(create_small),
		TEST(neither_forked_nor_dumped),
		TEST(create_huge_is_tried_and_reported),
		TEST(create_refuses_arguments),
		TEST(seals_hold),
		TEST(owner_writes_peer_sees),
		TEST(import_refuses_unsealed),
		TEST(import_takes_further_seals),
		TEST(import_refuses_sizes),
		TEST(import_refuses_one_hole),
		TEST(import_refuses_other_files),
		TEST(import_refuses_hugetlb),
		TEST(import_refuses_unreadable),
		TEST(unsealed_is_not_even_looked_at),
		{0},
	};

	return test_main("segment", tests);
}
