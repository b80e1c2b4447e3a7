/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers that lie on the socket: in what they say and in what fds they pass.
 * After each lie the agent has noted it, keeps no fd, and serves an honest
 * peer.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/harness.h"
#include "tests/raw.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

static struct ahp_agent *v, *honest; /* v for victim */
static struct agent_log seen;

static void begin(void)
{
	const struct ahp_agent_options options = {.log = agent_log,
						  .log_arg = &seen};

	memset(&seen, 0, sizeof(seen));
	v = agent_open("v", &options);
	honest = agent_open("honest", NULL);
	agents_link(honest, v);
}

static void end(void)
{
	CU_ASSERT(agents_talk(honest, v));
	ahp_agent_close(honest);
	ahp_agent_close(v);
}

/* The agent has refused or hung up, and said why in its log. */
static bool refused(struct raw *raw)
{
	union wire_message m;
	int kind;

	for (int i = 0; i < 4; i++)
		ahp_agent_run(v, 0);
	while ((kind = raw_hear(raw, &m)) > 0)
		continue;
	return kind == 0;
}

/* ---- a listener --------------------------------------------------------- */

/* Listens under a name, without the lock that an agent would hold. */
static int listener(const char *id)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s/default/%s.sock",
		 getenv("AVP_RUNTIME_DIR"), id);
	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(fd, 8), 0);
	return fd;
}

/* Answers the next Hello with "there is a link already", which is not so. */
static void says_again(int listening)
{
	struct wire_refuse say = {.head = {WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR,
					   WIRE_REFUSE, sizeof(say)},
				  .code = AVP_AGAIN};
	struct raw raw = {.sock = accept4(listening, NULL, NULL,
					  SOCK_CLOEXEC | SOCK_NONBLOCK)};

	CU_ASSERT_FATAL(raw.sock >= 0);
	CU_ASSERT(raw_say(&raw, &say, sizeof(say), NULL, 0));
	close(raw.sock);
}

static int64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

/* Who does not wait for a link is not made to: once at least in ten times. */
static void puts_off(void)
{
	int64_t best = LONG_NS, begin_ns, took;
	char path[200];
	int fd;

	begin();
	fd = listener("evil");
	for (int i = 0; i < 10; i++) {
		CU_ASSERT_EQUAL(ahp_connect(v, "evil", 0, NULL, NULL),
				AVP_TIMEOUT);
		says_again(fd);
		begin_ns = clock_ns();
		CU_ASSERT_EQUAL(ahp_connect(v, "evil", 0, NULL, NULL),
				AVP_TIMEOUT);
		took = clock_ns() - begin_ns;
		best = took < best ? took : best;
	}
	CU_ASSERT(best < SECOND_NS / 200);
	close(fd);
	snprintf(path, sizeof(path), "%s/default/evil.sock",
		 getenv("AVP_RUNTIME_DIR"));
	CU_ASSERT_EQUAL(unlink(path), 0);
	end();
}

/* ---- before the Hello --------------------------------------------------- */

static void silent_strangers(void)
{
	enum { MANY = 200 };
	static struct raw raw[MANY];
	struct ahp_agent *late;
	union wire_message m;
	unsigned dropped = 0;

	begin();
	for (int i = 0; i < MANY; i++) {
		raw_connect(&raw[i], "v");
		if (i % 10 == 0)
			CU_ASSERT(agents_talk(honest, v));
		ahp_agent_run(v, 0);
	}
	/* Who has something to say gets in all the same. */
	late = agent_open("late", NULL);
	agents_link(late, v);
	CU_ASSERT_EQUAL(agent_say(late, "v", "hello", NULL), 0);
	CU_ASSERT(agent_hears(v, "hello"));
	ahp_agent_close(late);
	for (int i = 0; i < MANY; i++) {
		if (raw_hear(&raw[i], &m) == WIRE_REFUSE) {
			CU_ASSERT_EQUAL(m.refuse.code, AVP_TIMEOUT);
			CU_ASSERT_EQUAL(raw_hear(&raw[i], &m), 0);
			dropped++;
		}
		raw_close(&raw[i]);
	}
	CU_ASSERT(dropped >= MANY - 64);
	ahp_agent_run(v, 0);
	end();
}

static void garbage(void)
{
	uint8_t bytes[2000];
	struct raw raw;
	int fds;

	begin();
	fds = fd_count();
	srand(7);
	for (unsigned i = 0; i < 400; i++) {
		size_t n = 1 + (size_t)rand() % (sizeof(bytes) - 1);

		for (size_t at = 0; at < n; at++)
			bytes[at] = (uint8_t)rand();
		if (i % 2) { /* a right beginning gets it further */
			struct wire_head head = {WIRE_MAGIC, WIRE_MAJOR,
						 WIRE_MINOR, i / 2 % 8,
						 (uint32_t)n};

			memcpy(bytes, &head, n < 16 ? n : 16);
		}
		raw_connect(&raw, "v");
		CU_ASSERT(raw_say(&raw, bytes, n, NULL, 0));
		/* A refusal or a lone bell is not answered. */
		if (i % 2 && (i / 2 % 8 == WIRE_REFUSE))
			ahp_agent_run(v, 0);
		else if (n > 1 || bytes[0] != WIRE_BELL)
			CU_ASSERT(refused(&raw));
		raw_close(&raw);
		ahp_agent_run(v, 0);
	}
	CU_ASSERT_EQUAL(fd_count(), fds);
	CU_ASSERT(agent_stats(v).poisoned > 100);
	end();
}

static void fds_before_hello(void)
{
	struct wire_hello hello = raw_hello("evil", "v");
	int many[AVP_FD_MAX], fds;
	struct raw raw;

	begin();
	fds = fd_count();
	for (unsigned n = 1; n <= AVP_FD_MAX; n += 5) {
		raw_connect(&raw, "v");
		for (unsigned i = 0; i < n; i++)
			many[i] = 0;
		CU_ASSERT(raw_say(&raw, &hello, sizeof(hello), many, n));
		CU_ASSERT(refused(&raw));
		CU_ASSERT_EQUAL(seen.last, AVP_POISONED);
		raw_close(&raw);
		CU_ASSERT_EQUAL(fd_count(), fds);
	}
	end();
}

/* ---- Hellos that lie ---------------------------------------------------- */

enum lie {
	MAGIC,
	MAJOR,
	KIND,
	BYTES,
	SHORT,
	NO_ID,
	LONG_ID,
	ENDLESS_ID,
	DOT_ID,
	SLASH_ID,
	UP_ID,
	OUR_ID,
	OTHER_TO,
	ENDLESS_TO,
	NO_FDS,
	THREE_FDS,
	DEMANDS,
	WAIT,
	FAMILY,
	MODEL,
	HASH,
	LIES
};

static size_t lie_in(struct wire_hello *h, enum lie lie)
{
	switch (lie) {
	case MAGIC: h->head.magic++; break;
	case MAJOR: h->head.major++; break;
	case KIND: h->head.kind = 77; break;
	case BYTES: h->head.bytes = 16; break;
	case SHORT: h->head.bytes = sizeof(*h) - 1; return sizeof(*h) - 1;
	case NO_ID: h->id[0] = 0; break;
	case LONG_ID: memset(h->id, 'x', 65); break;
	case ENDLESS_ID: memset(h->id, 'x', sizeof(h->id)); break;
	case DOT_ID: h->id[0] = '.'; break;
	case SLASH_ID: h->id[1] = '/'; break;
	case UP_ID: memcpy(h->id, "..", 3); break;
	case OUR_ID: memcpy(h->id, "v", 2); break;
	case OTHER_TO: h->to[0] = 'w'; break;
	case ENDLESS_TO: memset(h->to, 'v', sizeof(h->to)); break;
	case NO_FDS: h->fds = 0; break;
	case THREE_FDS: h->fds = 3; break;
	case DEMANDS: h->features = 0x10000; break;
	case WAIT: h->wait = 3; break;
	case FAMILY: memset(h->identity.family, 1, 64); break;
	case MODEL: memset(h->identity.id, 1, 256); break;
	case HASH: memset(h->identity.hash, 1, 72); break;
	case LIES: break;
	}
	return sizeof(*h);
}

static void hellos_that_lie(void)
{
	struct raw raw;
	int fds;

	begin();
	fds = fd_count();
	for (int lie = 0; lie < LIES; lie++) {
		struct wire_hello hello = raw_hello("evil", "v");
		size_t bytes = lie_in(&hello, (enum lie)lie);

		seen.last = 0;
		raw_connect(&raw, "v");
		CU_ASSERT(raw_say(&raw, &hello, bytes, NULL, 0));
		CU_ASSERT(refused(&raw));
		CU_ASSERT_EQUAL(seen.last,
				lie == MAJOR || lie == DEMANDS ? AVP_UNSUPPORTED
				: lie == OUR_ID		       ? AVP_NAME_TAKEN
				: lie == OTHER_TO ? AVP_AGENT_NOT_FOUND
						  : AVP_POISONED);
		raw_close(&raw);
		CU_ASSERT_EQUAL(fd_count(), fds);
		CU_ASSERT_EQUAL(agent_stats(v).links, 1);
		CU_ASSERT(agents_talk(honest, v));
	}
	end();
}

/* A second Hello under a linked name, from a process that lives. */
static void take_a_name(void *arg)
{
	struct raw raw;
	struct wire_hello hello = raw_hello("honest", "v");
	union wire_message m;
	int kind;

	(void)arg;
	raw_connect(&raw, "v");
	CHECK(raw_say(&raw, &hello, sizeof(hello), NULL, 0));
	while ((kind = raw_hear(&raw, &m)) < 0)
		continue;
	CHECK(kind == WIRE_REFUSE && m.refuse.code == AVP_NAME_TAKEN);
}

static void impersonation(void)
{
	int status;
	pid_t pid;

	begin();
	pid = child_start(take_a_name, NULL);
	while (!waitpid(pid, &status, WNOHANG))
		CU_ASSERT(agents_talk(honest, v));
	CU_ASSERT_EQUAL(status, 0);
	CU_ASSERT_EQUAL(agent_stats(honest).links, 1);
	end();
}

/* ---- fds that lie ------------------------------------------------------- */

static int good_lane(void)
{
	struct avp_lane_tx tx;
	int fd;

	CHECK(!avp_lane_init(&tx, NULL, NULL));
	fd = dup(tx.segment.fd);
	avp_lane_fini(&tx);
	return fd;
}

static int good_page(void)
{
	struct avp_segment s;
	struct page_map *page;
	int fd;

	CHECK(!avp_segment_create(&s, "raw", sizeof(*page), NULL, NULL));
	page = s.base;
	page->magic = PAGE_MAGIC;
	page->major = WIRE_MAJOR;
	atomic_store(&page->ready, PAGE_READY);
	fd = dup(s.fd);
	avp_segment_close(&s);
	return fd;
}

static int any_file(int which)
{
	char path[512];
	int fd, both[2];

	switch (which) {
	case 0: return raw_memfd(4096, 4096, 0);
	case 1: return raw_memfd(4096, 4096, SEALS & ~F_SEAL_SHRINK);
	case 2: return raw_memfd(4096, 4096, SEALS & ~F_SEAL_GROW);
	case 3: return raw_memfd(4096, 4096, SEALS & ~F_SEAL_FUTURE_WRITE);
	case 4: return raw_memfd(4096, 4096, SEALS & ~F_SEAL_SEAL);
	case 5: return raw_memfd(4096, 0, SEALS); /* sparse */
	case 6: return raw_memfd(0, 0, SEALS);
	case 7: return raw_memfd(100, 100, SEALS);
	case 8: return raw_memfd(64 * MIB, 4096, SEALS);
	case 9: return open("/dev/null", O_RDWR | O_CLOEXEC);
	case 10: return dup(0);
	case 11: return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	case 12: return open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	case 13:
		CHECK(!pipe2(both, O_CLOEXEC));
		close(both[1]);
		return both[0];
	default:
		snprintf(path, sizeof(path), "%s/file", test_dir());
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		CHECK(fd >= 0 && !ftruncate(fd, 1 << 20));
		unlink(path);
		return fd;
	}
}

static void files_that_are_no_segments(void)
{
	struct raw raw;
	int fds;

	begin();
	fds = fd_count();
	for (int which = 0; which <= 14; which++)
		for (int lane = 0; lane < 2; lane++) {
			raw_greet(&raw, v, "evil");
			raw_share(&raw, v, lane ? good_page() : any_file(which),
				  lane ? any_file(which) : good_lane());
			CU_ASSERT(refused(&raw));
			raw_close(&raw);
			CU_ASSERT(fds_are(fds));
			CU_ASSERT_EQUAL(agent_stats(v).links, 1);
			CU_ASSERT(agents_talk(honest, v));
		}
	CU_ASSERT(agent_stats(v).poisoned >= 28);
	end();
}

static void too_many_and_too_few_fds(void)
{
	struct wire_head say = {WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, WIRE_SHARE,
				sizeof(say)};
	struct raw raw;
	int fd[AVP_FD_MAX], fds;

	begin();
	fds = fd_count();
	for (unsigned n = 0; n <= AVP_FD_MAX; n++) {
		if (n == 2)
			continue;
		raw_greet(&raw, v, "evil");
		for (unsigned i = 0; i < n; i++)
			fd[i] = i % 2 ? good_lane() : good_page();
		CU_ASSERT(raw_say(&raw, &say, sizeof(say), fd, n));
		for (unsigned i = 0; i < n; i++)
			close(fd[i]);
		CU_ASSERT(refused(&raw));
		raw_close(&raw);
		CU_ASSERT_EQUAL(fd_count(), fds);
	}
	end();
}

/* Page and lane that are sealed memory, with contents that lie. */
static void contents_that_lie(void)
{
	static const struct {
		unsigned off, bytes;
		uint64_t value;
	} lies[] = {
		{offsetof(struct lane_header, magic), 8, 1},
		{offsetof(struct lane_header, major), 2, 2},
		{offsetof(struct lane_header, header_bytes), 4, 8},
		{offsetof(struct lane_header, slots), 4, 0},
		{offsetof(struct lane_header, slots), 4, 1000},
		{offsetof(struct lane_header, slots), 4, 65536},
		{offsetof(struct lane_header, slots), 4, 1u << 31},
		{offsetof(struct lane_header, slot_bytes), 4, 64},
		{offsetof(struct lane_header, acks), 4, 1024},
		{offsetof(struct lane_header, window), 4, 0},
		{offsetof(struct lane_header, window), 4, 2048},
		{offsetof(struct lane_header, slots_off), 8, 0},
		{offsetof(struct lane_header, slots_off), 8, 24577},
		{offsetof(struct lane_header, slots_off), 8, -64ull},
		{offsetof(struct lane_header, slots_off), 8, -(256ull << 10)},
		{offsetof(struct lane_header, slots_off), 8, 1 << 20},
		{offsetof(struct lane_header, first_sequence), 8, 0},
		{offsetof(struct lane_header, first_sequence), 8, -1ull},
		{offsetof(struct lane_header, ready), 4, 0},
	};
	struct avp_lane_tx tx;
	struct raw raw;
	int fds;

	begin();
	fds = fd_count();
	for (unsigned i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		raw_greet(&raw, v, "evil");
		CHECK(!avp_lane_init(&tx, NULL, NULL));
		memcpy((char *)tx.segment.base + lies[i].off, &lies[i].value,
		       lies[i].bytes);
		raw_share(&raw, v, good_page(), dup(tx.segment.fd));
		avp_lane_fini(&tx);
		CU_ASSERT(refused(&raw));
		raw_close(&raw);
		CU_ASSERT(agents_talk(honest, v));
	}
	/* A page of noughts, and one that is too large. */
	for (uint64_t bytes = 4096; bytes <= 8192; bytes += 4096) {
		raw_greet(&raw, v, "evil");
		raw_share(&raw, v, raw_memfd(bytes, bytes, SEALS), good_lane());
		CU_ASSERT(refused(&raw));
		raw_close(&raw);
	}
	CU_ASSERT_EQUAL(fd_count(), fds);
	end();
}

/* ---- a link that is up -------------------------------------------------- */

static void say_segment(struct raw *raw, uint32_t number, uint64_t bytes,
			const int *fds, unsigned n)
{
	struct wire_segment say = {
		.head = {WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, WIRE_SEGMENT,
			 sizeof(say)},
		.number = number,
		.bytes = bytes,
	};

	CU_ASSERT(raw_say(raw, &say, sizeof(say), fds, n));
	for (int i = 0; i < 3; i++)
		ahp_agent_run(v, 0);
}

static void segments_that_lie(void)
{
	uint64_t poisoned;
	struct raw raw;
	int fds, fd[2];

	begin();
	fds = fd_count();
	for (int lie = 0; lie < 7; lie++) {
		fd[0] = raw_memfd(8192, lie == 4 ? 0 : 8192,
				  lie == 3 ? 0 : SEALS);
		fd[1] = dup(0);
		poisoned = agent_stats(v).poisoned;
		raw_up(&raw, v, "evil");
		if (lie == 0) { /* numbers that do not grow */
			say_segment(&raw, 5, 8192, fd, 1);
			say_segment(&raw, 5, 8192, fd, 1);
		} else if (lie == 1) {
			say_segment(&raw, 5, 8192, fd, 1);
			say_segment(&raw, 4, 8192, fd, 1);
		} else if (lie == 2) { /* another size than it says */
			say_segment(&raw, 1, 4096, fd, 1);
		} else if (lie == 5) {
			say_segment(&raw, 1, 8192, fd, 0);
		} else if (lie == 6) {
			say_segment(&raw, 1, 8192, fd, 2);
		} else {
			say_segment(&raw, 1, 8192, fd, 1);
		}
		CU_ASSERT_EQUAL(agent_stats(v).poisoned, poisoned + 1);
		CU_ASSERT_EQUAL(agent_stats(v).links, 1);
		CU_ASSERT_EQUAL(agent_say(v, "evil", "x", NULL), AVP_POISONED);
		CU_ASSERT(refused(&raw));
		raw_close(&raw);
		close(fd[0]);
		close(fd[1]);
		ahp_agent_run(v, 0);
		CU_ASSERT(fds_are(fds));
	}
	end();
}

static void more_segments_than_there_can_be(void)
{
	struct raw raw;
	int fd, fds;

	begin();
	fds = fd_count();
	raw_up(&raw, v, "evil");
	fd = raw_memfd(4096, 4096, SEALS);
	for (uint32_t i = 1; i <= 64; i++)
		say_segment(&raw, i, 4096, &fd, 1);
	CU_ASSERT_EQUAL(agent_stats(v).poisoned, 0);
	say_segment(&raw, 65, 4096, &fd, 1);
	CU_ASSERT_EQUAL(agent_stats(v).poisoned, 1);
	close(fd);
	raw_close(&raw);
	ahp_agent_run(v, 0);
	CU_ASSERT_EQUAL(fd_count(), fds);
	end();
}

/* Things that are not due on a link that is up. */
static void said_too_late(void)
{
	struct wire_hello hello = raw_hello("evil", "v");
	struct wire_head share = {WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR,
				  WIRE_SHARE, sizeof(share)};
	static const uint8_t wrong_bell = 8;
	struct raw raw;

	begin();
	for (int lie = 0; lie < 4; lie++) {
		raw_up(&raw, v, "evil");
		if (lie == 0)
			raw_say(&raw, &hello, sizeof(hello), NULL, 0);
		else if (lie == 1)
			raw_say(&raw, &share, sizeof(share), NULL, 0);
		else if (lie == 2)
			raw_say(&raw, &wrong_bell, 1, NULL, 0);
		else
			raw_say(&raw, &hello, 400, NULL, 0);
		CU_ASSERT(refused(&raw));
		CU_ASSERT_EQUAL(agent_stats(v).poisoned, (uint64_t)lie + 1);
		raw_close(&raw);
		ahp_agent_run(v, 0);
	}
	end();
}

/* ---- floods ------------------------------------------------------------- */

static void open_flooder(void *arg)
{
	struct raw raw;
	struct wire_hello hello = raw_hello("evil", "v");
	union wire_message m;
	static const uint8_t bell = WIRE_BELL;

	(void)arg;
	raw_connect(&raw, "v");
	CHECK(raw_say(&raw, &hello, sizeof(hello), NULL, 0));
	while (raw_hear(&raw, &m) != WIRE_SHARE)
		continue;
	for (;;)
		if (raw_say(&raw, &bell, 1, NULL, 0))
			continue;
}

static void flood_of_bells(void)
{
	pid_t pid[3];

	begin();
	for (int i = 0; i < 3; i++)
		pid[i] = child_start(open_flooder, NULL);
	for (int i = 0; i < 1000; i++) {
		ahp_agent_run(v, 100000);
		CU_ASSERT(agents_talk(honest, v));
	}
	for (int i = 0; i < 3; i++)
		child_kill(pid[i]);
	ahp_agent_run(v, 0);
	end();
}

/* It sleeps, never reads its socket, and never takes a message. */
static void socket_never_read(void)
{
	struct page_map *page;
	struct wire_hello hello = raw_hello("evil", "v");
	union wire_message m;
	struct raw raw;
	unsigned sent = 0;
	int error = 0;

	begin();
	hello.wait = AHP_WAIT_BLOCK;
	raw_connect(&raw, "v");
	CU_ASSERT(raw_say(&raw, &hello, sizeof(hello), NULL, 0));
	ahp_agent_run(v, 0);
	while (raw_hear(&raw, &m) != WIRE_SHARE)
		ahp_agent_run(v, 0);
	CHECK(!avp_segment_create(&raw.page, "raw", sizeof(*page), NULL, NULL));
	page = raw.page.base;
	page->magic = PAGE_MAGIC;
	page->major = WIRE_MAJOR;
	atomic_store(&page->ready, PAGE_READY);
	raw_share(&raw, v, dup(raw.page.fd), good_lane());
	CU_ASSERT_EQUAL(agent_stats(v).links, 2);
	/* A new odd value each time: a bell is due for every message. */
	while (!(error = agent_say(v, "evil", "x", NULL))) {
		atomic_store(&page->messages, 2 * ++sent + 1);
		if (sent > 2000)
			break;
	}
	CU_ASSERT_EQUAL(error, AVP_QUEUE_FULL);
	CU_ASSERT_EQUAL(sent, 1024);
	CU_ASSERT(agent_stats(v).wakes >= 1000);
	CU_ASSERT(agents_talk(honest, v));
	raw_close(&raw);
	ahp_agent_run(v, 0);
	CU_ASSERT_EQUAL(agent_stats(v).links, 1);
	CU_ASSERT(agent_stats(v).in_flight <= 1);
	end();
}

/* ---- other users -------------------------------------------------------- */

#define NOBODY 65534

/* As another user: what ahp_connect() answers is the exit status. */
static void connect_as_nobody(void *arg)
{
	struct ahp_agent *agent;
	struct ahp_agent_options options = {0};
	struct ahp_message m;
	int *expect = arg, error;

	CHECK(!setgroups(0, NULL) && !setgid(NOBODY) && !setuid(NOBODY));
	agent = agent_open("other", &options);
	error = ahp_connect(agent, "v", LONG_NS, NULL, NULL);
	CHECK(error == *expect);
	if (error)
		_exit(0);
	CHECK(!agent_say(agent, "v", "from another user", NULL));
	CHECK(!ahp_receive(agent, &m, LONG_NS));
	CHECK(m.in_place && pattern_is(m.body, 50000, 3));
	ahp_release(agent, &m);
	ahp_agent_close(agent);
}

static void meet_nobody(const struct ahp_agent_options *options, int expect)
{
	struct ahp_message m;
	pid_t pid;
	int status;

	v = agent_open("v", options);
	honest = agent_open("honest", NULL);
	agents_link(honest, v);
	pid = child_start(connect_as_nobody, &expect);
	while (!waitpid(pid, &status, WNOHANG)) {
		CU_ASSERT(agents_talk(honest, v));
		if (expect || ahp_receive(v, &m, 1000000))
			continue;
		CU_ASSERT_STRING_EQUAL(m.source, "other");
		ahp_release(v, &m);
		CU_ASSERT_EQUAL(agent_lend(v, "other", 50000, 3, NULL), 0);
		CU_ASSERT_EQUAL(agent_lend(v, "honest", 50000, 4, NULL), 0);
		CU_ASSERT_EQUAL_FATAL(ahp_receive(honest, &m, 0), 0);
		CU_ASSERT(pattern_is(m.body, 50000, 4));
		ahp_release(honest, &m);
	}
	CU_ASSERT_EQUAL(status, 0);
	end();
}

static void other_users(void)
{
	static const uint32_t listed[] = {77, NOBODY};
	const struct ahp_agent_options open_to = {.allowed_uid_count = 2,
						  .allowed_uids = listed};
	const struct ahp_agent_options closed = {.allowed_uid_count = 1,
						 .allowed_uids = listed};

	char dir[] = "/tmp/avp-users-XXXXXX", path[64];

	if (geteuid()) {
		printf("skip hostile.other_users: needs root\n");
		return;
	}
	/* A directory that both can reach, and whose group makes names in
	 * it. */
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	CU_ASSERT_EQUAL(chown(dir, 0, NOBODY), 0);
	CU_ASSERT_EQUAL(chmod(dir, 02770), 0);
	setenv("AVP_RUNTIME_DIR", dir, 1);
	meet_nobody(&closed, AVP_PERMISSION);
	meet_nobody(&open_to, 0);
	agents_begin();
	snprintf(path, sizeof(path), "%s/default", dir);
	CU_ASSERT_EQUAL(rmdir(path), 0); /* they were empty */
	CU_ASSERT_EQUAL(rmdir(dir), 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(other_users),
		TEST(puts_off),
		TEST(silent_strangers),
		TEST(garbage),
		TEST(fds_before_hello),
		TEST(hellos_that_lie),
		TEST(impersonation),
		TEST(files_that_are_no_segments),
		TEST(too_many_and_too_few_fds),
		TEST(contents_that_lie),
		TEST(segments_that_lie),
		TEST(more_segments_than_there_can_be),
		TEST(said_too_late),
		TEST(flood_of_bells),
		TEST(socket_never_read),
		{0},
	};

	agents_begin();
	return test_main("hostile", tests);
}
