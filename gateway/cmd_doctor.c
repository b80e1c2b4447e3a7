/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl doctor: what this host gives to agents, and what it withholds. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <avp/ahp.h>
#include <avp/ring.h>
#include <avp/shm.h>

#include "ahp/cmd_agent.h"
#include "ahp/cmd_path.h"
#include "gateway/cmd.h"
#include "ring/bell.h"

/* Newer than Debian 12's headers. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif
#define OP_FUTEX_WAIT 51 /* IORING_OP_FUTEX_WAIT, Linux 6.7 */
#define OP_FUTEX_WAKE 52

#define MIB	      (1ull << 20)
#define LOCK_WANTED   (64 * MIB) /* an arena of usual size */
#define MEMORY_WANTED (256 * MIB)
#define FDS_WANTED    4096 /* two a link */
#define SLOW_TRIP_NS  200e3

enum state { OK, DEGRADED, BROKEN };

struct finding {
	const char *name;
	enum state state;
	char text[280], mend[200];
};

static const char *const state_name[] = {"ok", "degraded", "broken"};

__attribute__((format(printf, 3, 4))) static void say(struct finding *f,
						      enum state state,
						      const char *format, ...)
{
	va_list args;

	f->state = state;
	va_start(args, format);
	vsnprintf(f->text, sizeof(f->text), format, args);
	va_end(args);
}

static void mend(struct finding *f, const char *text)
{
	snprintf(f->mend, sizeof(f->mend), "%s", text);
}

/* ---- the kernel --------------------------------------------------------- */

static void check_kernel(struct finding *f)
{
	struct utsname name;
	unsigned major = 0, minor = 0;
	enum state state = OK;

	uname(&name);
	if (sscanf(name.release, "%u.%u", &major, &minor) != 2)
		state = DEGRADED;
	else if (major < 5 || (major == 5 && minor < 1))
		state = BROKEN;
	else if (major == 5 && minor < 11)
		state = DEGRADED;
	say(f, state, "%s %s %s", name.sysname, name.release, name.machine);
	if (state != OK)
		mend(f, "Linux 5.1 is needed to seal memory, 5.11 to sleep "
			"exactly, 6.7 for all that agents can use");
}

static const struct {
	int op;
	const char *name;
} wanted_ops[] = {
	{IORING_OP_POLL_ADD, "poll"},	{IORING_OP_TIMEOUT, "timeout"},
	{IORING_OP_SENDMSG, "sendmsg"}, {IORING_OP_RECVMSG, "recvmsg"},
	{IORING_OP_ACCEPT, "accept"},	{IORING_OP_WRITE, "write"},
	{IORING_OP_FSYNC, "fsync"},	{OP_FUTEX_WAIT, "futex_wait"},
	{OP_FUTEX_WAKE, "futex_wake"},
};
#define OPS (sizeof(wanted_ops) / sizeof(*wanted_ops))

static void list_ops(struct finding *f, const struct io_uring_probe *probe)
{
	char has[120] = "", lacks[120] = "";

	for (size_t i = 0; i < OPS; i++) {
		char *to = io_uring_opcode_supported(probe, wanted_ops[i].op)
				   ? has
				   : lacks;
		size_t n = strlen(to);

		snprintf(to + n, sizeof(has) - n, " %s", wanted_ops[i].name);
	}
	say(f, lacks[0] ? DEGRADED : OK, "has%s%s%s", has,
	    lacks[0] ? "; lacks" : "", lacks);
	if (lacks[0])
		mend(f, "a newer kernel has them: futex_wait and futex_wake "
			"from Linux 6.7 on");
}

static void check_io_uring(struct finding *f)
{
	struct io_uring ring;
	struct io_uring_probe *probe;
	int err = io_uring_queue_init(8, &ring, 0);

	if (err) {
		say(f, DEGRADED, "refused (%s): agents use epoll",
		    strerror(-err));
		mend(f, "sysctl kernel.io_uring_disabled=0; in a container, a "
			"seccomp profile that allows io_uring_setup");
		return;
	}
	probe = io_uring_get_probe_ring(&ring);
	if (probe)
		list_ops(f, probe);
	else
		say(f, DEGRADED, "it does not tell its operations");
	io_uring_free_probe(probe);
	io_uring_queue_exit(&ring);
}

static void check_loop(struct finding *f)
{
	const char *forced;
	struct avp_loop *loop;
	struct avp_reason why;

	if (avp_loop_open(&loop, &why)) {
		say(f, BROKEN, "%s", why.text);
		mend(f, "raise the limit of open files (ulimit -n)");
		return;
	}
	forced = getenv("AVP_LOOP");
	say(f, OK, "agents sleep in %s%s; doorbells are %s",
	    avp_loop_backend(loop),
	    forced && *forced ? ", as AVP_LOOP says" : "",
	    avp__loop_has_bells(loop) ? "words of memory (futex)"
				      : "bytes on the links' sockets");
	avp_loop_close(loop);
}

/* How the death of a peer is told. */
static void check_death(struct finding *f)
{
	int pair[2], fd = -1;
	socklen_t length = sizeof(fd);

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		say(f, BROKEN, "no Unix socket: %s", strerror(errno));
		mend(f, "agents meet over Unix sockets: allow them");
		return;
	}
	if (!getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &fd, &length)) {
		say(f, OK, "SO_PEERPIDFD: a pidfd comes with each connection");
	} else if ((fd = (int)syscall(SYS_pidfd_open, getpid(), 0)) >= 0) {
		say(f, DEGRADED,
		    "no SO_PEERPIDFD: pidfds by number, which could be "
		    "another process's by then");
		mend(f, "Linux 6.5 gives them with the connection");
	} else {
		say(f, DEGRADED, "a peer's death shows as its hang-up only");
		mend(f, "Linux 5.3, or a seccomp profile that allows "
			"pidfd_open");
	}
	if (fd >= 0)
		close(fd);
	close(pair[0]);
	close(pair[1]);
}

/* ---- memory ------------------------------------------------------------- */

static void check_seals(struct finding *f)
{
	const int all =
		F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;
	struct avp_segment segment;
	struct avp_reason why;
	void *second;

	if (avp_segment_create(&segment, "doctor", 4096, NULL, &why)) {
		say(f, BROKEN, "%s", why.text);
		mend(f, "Linux 5.1 or newer, and memfd_create allowed");
		return;
	}
	second = mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, segment.fd, 0);
	if (second != MAP_FAILED)
		munmap(second, 4096);
	if (second == MAP_FAILED &&
	    (fcntl(segment.fd, F_GET_SEALS) & all) == all)
		say(f, OK, "peers can only read what an agent lends");
	else
		say(f, BROKEN, "sealed memory can still be mapped to write");
	if (f->state == BROKEN)
		mend(f, "this kernel does not keep F_SEAL_FUTURE_WRITE; do not "
			"run agents of different trust on it");
	avp_segment_close(&segment);
}

static void check_huge(struct finding *f)
{
	struct avp_segment segment;
	struct avp_reason why;

	if (avp_segment_create(&segment, "doctor", 4 * MIB, NULL, &why)) {
		say(f, BROKEN, "%s", why.text);
		mend(f, "give this process 4 MiB of memory");
		return;
	}
	if (segment.flags & AVP_SEGMENT_HUGE) {
		say(f, OK, "2 MiB pages for bodies, by MADV_COLLAPSE");
	} else {
		say(f, DEGRADED, "4 KiB pages: %s",
		    why.text[0] ? why.text : "no huge page was given");
		mend(f, "Linux 6.1 and free memory that is not fragmented; "
			"first touches cost tenfold otherwise");
	}
	avp_segment_close(&segment);
}

static void check_lock(struct finding *f)
{
	struct avp_limits limits;

	avp_limits_read(&limits);
	if (limits.locked_bytes == UINT64_MAX) {
		say(f, OK, "any amount of memory can be locked");
		return;
	}
	say(f, limits.locked_bytes >= LOCK_WANTED ? OK : DEGRADED,
	    "%llu KiB can be locked, %llu are",
	    (unsigned long long)limits.locked_bytes / 1024,
	    (unsigned long long)limits.locked_used / 1024);
	if (f->state != OK)
		mend(f,
		     "only for agents that ask to lock memory: ulimit -l, or "
		     "LimitMEMLOCK= in systemd");
}

static void check_memory(struct finding *f)
{
	struct avp_limits limits;
	uint64_t room;

	avp_limits_read(&limits);
	room = limits.available_bytes < limits.cgroup_room
		       ? limits.available_bytes
		       : limits.cgroup_room;
	if (room == UINT64_MAX) {
		say(f, OK, "no limit is known");
		return;
	}
	say(f, room >= MEMORY_WANTED ? OK : DEGRADED, "%llu MiB to be had%s%s",
	    (unsigned long long)(room / MIB),
	    room == limits.cgroup_room ? ", by " : "",
	    room == limits.cgroup_room ? limits.cgroup_file : "");
	if (f->state != OK)
		mend(f, "a KV-cache of some thousand tokens needs more; loans "
			"that do not fit are refused");
}

/* ---- the process -------------------------------------------------------- */

static void check_fds(struct finding *f)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= FDS_WANTED) {
		say(f, OK, "agents may open %lld files, two for each link",
		    (long long)limit.rlim_max);
		return;
	}
	say(f, DEGRADED, "agents may open %lld files, two for each link",
	    (long long)limit.rlim_max);
	mend(f, "ulimit -Hn, or LimitNOFILE= in systemd");
}

static void check_directory(struct finding *f)
{
	struct avp_reason why = {0};
	struct stat st;
	char path[200];

	if (ahp_runtime_dir(path, sizeof(path), &why) >= 0 && stat(path, &st))
		cmd_io_fail(path, "look at", &why);
	if (why.code) {
		say(f, BROKEN, "%s", why.text);
		mend(f,
		     "name one in AVP_RUNTIME_DIR that is yours and has mode "
		     "0700");
		return;
	}
	say(f, OK, "%s, of uid %u, mode %04o", path, (unsigned)st.st_uid,
	    st.st_mode & 07777u);
}

static void check_path(struct finding *f)
{
	struct cmd_path path;
	struct avp_reason why;

	if (cmd_path_measure(&path, &why)) {
		say(f, BROKEN, "%s: %s", avp_error_name(why.code), why.text);
		mend(f, "the findings above may say why");
		return;
	}
	say(f, path.round_trip_ns < SLOW_TRIP_NS ? OK : DEGRADED,
	    "shared memory: 64 bytes there and back in %.2f us (median), "
	    "bodies of 1 MiB at %.1f GB/s, written and read",
	    path.round_trip_ns * 1e-3, path.bytes_per_s * 1e-9);
	if (f->state != OK)
		mend(f, "the machine is busy, or has one processor: agents "
			"wait for it, not for each other");
}

/* ---- the page ----------------------------------------------------------- */

static const struct {
	const char *name;
	void (*check)(struct finding *f);
} checks[] = {
	{"kernel", check_kernel},   {"io_uring", check_io_uring},
	{"event_loop", check_loop}, {"peer_death", check_death},
	{"seals", check_seals},	    {"huge_pages", check_huge},
	{"memlock", check_lock},    {"memory", check_memory},
	{"open_files", check_fds},  {"runtime_dir", check_directory},
	{"path", check_path},
};
#define CHECKS (sizeof(checks) / sizeof(*checks))

static int print_json(const struct finding *f, struct avp_reason *why)
{
	struct cmd_answer answer;
	struct avp_json_writer *w = cmd_answer_begin(&answer);

	avp_json_key(w, "findings");
	avp_json_open_array(w);
	for (size_t i = 0; i < CHECKS; i++) {
		avp_json_open_object(w);
		avp_json_key(w, "name");
		avp_json_put_text(w, f[i].name);
		avp_json_key(w, "state");
		avp_json_put_text(w, state_name[f[i].state]);
		/* Both may name a directory, whose name may be no text. */
		cmd_member_foreign(w, "text", avp_str_of(f[i].text));
		cmd_member_foreign(w, "mend", avp_str_of(f[i].mend));
		avp_json_close_object(w);
	}
	avp_json_close_array(w);
	return cmd_answer_end(&answer, 0, why);
}

static int print_page(const struct finding *f)
{
	for (size_t i = 0; i < CHECKS; i++) {
		printf("%-9s %-12s %s\n", state_name[f[i].state], f[i].name,
		       f[i].text);
		if (f[i].mend[0])
			printf("%-9s %-12s -> %s\n", "", "", f[i].mend);
	}
	return 0;
}

static int judge(const struct finding *f, struct avp_reason *why)
{
	int broken = 0;

	for (size_t i = 0; i < CHECKS; i++)
		broken += f[i].state == BROKEN;
	if (!broken)
		return 0;
	return avp__fail(why, AVP_IO,
			 "%d of %zu findings are broken; each says its mend",
			 broken, CHECKS);
}

int cmd_doctor(int argc, char **argv)
{
	static const struct cmd_page page = {
		"doctor", "", 0, 0,
		"Looks at what agents need of this host, and measures the way "
		"between two of\n"
		"them. Each finding is ok: as it should be; degraded: it "
		"works, with what is\n"
		"said; or broken: agents cannot work, and the command "
		"fails.\n"};
	struct finding found[CHECKS] = {0};
	bool json = false;
	const struct cmd_option options[] = {
		{"json", CMD_FLAG, &json, NULL,
		 "print {\"findings\":[{\"name\",\"state\",\"text\",\n"
		 "\"mend\"},..]}"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv), err;
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	for (size_t i = 0; i < CHECKS; i++) {
		found[i].name = checks[i].name;
		checks[i].check(&found[i]);
	}
	err = json ? print_json(found, &why) : print_page(found);
	if (!err)
		err = judge(found, &why);
	return err ? cmd_fail("doctor", &why) : CMD_DONE;
}
