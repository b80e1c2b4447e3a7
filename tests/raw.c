/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/harness.h"
#include "tests/raw.h"

static struct wire_head head_of(uint32_t kind, uint32_t bytes)
{
	return (struct wire_head){WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, kind,
				  bytes};
}

void raw_connect(struct raw *raw, const char *to)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	memset(raw, 0, sizeof(*raw));
	snprintf(address.sun_path, sizeof(address.sun_path),
		 "%s/default/%s.sock", test_dir(), to);
	raw->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	CHECK(!connect(raw->sock, (void *)&address, sizeof(address)));
}

struct wire_hello raw_hello(const char *id, const char *to)
{
	struct wire_hello hello = {
		.head = head_of(WIRE_HELLO, sizeof(hello)),
		.epoch = {1, 2, 3},
		.wait = AHP_WAIT_BUSY,
		.bell = WIRE_BELL_SOCKET,
		.fds = 2,
	};

	snprintf(hello.id, sizeof(hello.id), "%s", id);
	snprintf(hello.to, sizeof(hello.to), "%s", to);
	return hello;
}

bool raw_say(struct raw *raw, const void *msg, size_t bytes, const int *fds,
	     unsigned n)
{
	return !avp_fd_send(raw->sock, msg, bytes, fds, n, NULL);
}

int raw_hear(struct raw *raw, union wire_message *m)
{
	int fds[AVP_FD_MAX];
	unsigned n = 0;
	size_t bytes = 0;
	int error = avp_fd_receive(raw->sock, m, sizeof(*m), &bytes, fds, 4, &n,
				   NULL);

	if (n == 2 && !raw->lane) /* the page, the lane */
		raw->lane = dup(fds[1]);
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
	if (error)
		return error == AVP_AGAIN ? -1 : 0;
	return bytes == 1 ? WIRE_BELL : (int)m->head.kind;
}

void raw_greet(struct raw *raw, struct ahp_agent *victim, const char *id)
{
	struct wire_hello hello = raw_hello(id, ahp_agent_id(victim));
	union wire_message m;

	raw_connect(raw, ahp_agent_id(victim));
	CHECK(raw_say(raw, &hello, sizeof(hello), NULL, 0));
	ahp_agent_run(victim, 0);
	ahp_agent_run(victim, 0);
	CHECK(raw_hear(raw, &m) == WIRE_HELLO);
	CHECK(raw_hear(raw, &m) == WIRE_SHARE);
}

void raw_share(struct raw *raw, struct ahp_agent *victim, int page, int lane)
{
	struct wire_head say = head_of(WIRE_SHARE, sizeof(say));
	int fds[2] = {page, lane};

	CHECK(raw_say(raw, &say, sizeof(say), fds, 2));
	close(page);
	close(lane);
	ahp_agent_run(victim, 0);
}

static void make_page(struct avp_segment *segment)
{
	struct page_map *page;

	CHECK(!avp_segment_create(segment, "raw", sizeof(*page), NULL, NULL));
	page = segment->base;
	page->magic = PAGE_MAGIC;
	page->major = WIRE_MAJOR;
	/* relaxed: nobody has it yet */
	atomic_store_explicit(&page->ready, PAGE_READY, memory_order_relaxed);
}

void raw_up(struct raw *raw, struct ahp_agent *victim, const char *id)
{
	raw_up_with(raw, victim, id, NULL);
}

void raw_up_with(struct raw *raw, struct ahp_agent *victim, const char *id,
		 const struct avp_lane_options *options)
{
	struct ahp_stats stats = agent_stats(victim);

	raw_greet(raw, victim, id);
	make_page(&raw->page);
	CHECK(!avp_lane_init(&raw->tx, options, NULL));
	avp_lane_ack_below(&raw->tx, 1, 1, 1);
	avp_lane_ack_flush(&raw->tx);
	raw->next = raw->tx.next;
	raw_share(raw, victim, dup(raw->page.fd), dup(raw->tx.segment.fd));
	CHECK(agent_stats(victim).links == stats.links + 1);
}

void raw_segment(struct raw *raw, uint32_t number, uint64_t bytes)
{
	struct wire_segment say = {
		.head = head_of(WIRE_SEGMENT, sizeof(say)),
		.number = number,
	};

	avp_segment_close(&raw->segment);
	CHECK(!avp_segment_create(&raw->segment, "raw", bytes, NULL, NULL));
	say.bytes = raw->segment.bytes;
	CHECK(raw_say(raw, &say, sizeof(say), &raw->segment.fd, 1));
}

struct slot *raw_slot(struct raw *raw)
{
	struct slot *slot =
		(void *)(raw->tx.slots +
			 (raw->next & raw->tx.slot_mask) * SLOT_BYTES);

	memset((char *)slot + 8, 0, sizeof(*slot) - 8);
	slot->accepted = slot->released = 1;
	slot->method = AHP_TASK;
	return slot;
}

void raw_commit(struct raw *raw, struct slot *slot)
{
	/* release: as the library commits */
	atomic_store_explicit(&slot->sequence, raw->next++,
			      memory_order_release);
}

struct slot *raw_task(struct raw *raw, const void *body, uint8_t bytes)
{
	struct slot *slot = raw_slot(raw);

	slot->inline_bytes = bytes;
	memcpy((uint8_t *)slot + SLOT_SMALL_BYTES + 2, body, bytes);
	return slot;
}

struct slot *raw_lent(struct raw *raw, uint32_t number, uint64_t off,
		      uint64_t bytes)
{
	struct slot *slot = raw_slot(raw);

	slot->flags = SLOT_LONG | SLOT_ARENA;
	slot->where = (uint64_t)number << 40 | off;
	slot->body_bytes = bytes;
	return slot;
}

struct lane_map *raw_lane(struct raw *raw)
{
	return raw->tx.segment.base;
}

void raw_close(struct raw *raw)
{
	if (raw->sock >= 0)
		close(raw->sock);
	if (raw->lane)
		close(raw->lane);
	raw->lane = 0;
	raw->sock = -1;
	avp_segment_close(&raw->page);
	avp_segment_close(&raw->segment);
	if (raw->tx.slots)
		avp_lane_fini(&raw->tx);
	raw->tx.slots = NULL;
}

int raw_memfd(uint64_t bytes, uint64_t filled, int seals)
{
	int fd = memfd_create("raw", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0 && !ftruncate(fd, (off_t)bytes));
	CHECK(!filled || !fallocate(fd, 0, 0, (off_t)filled));
	CHECK(!seals || !fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}

int fd_count(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

static bool are_there(void *count)
{
	return fd_count() == *(int *)count;
}

bool fds_are(int count)
{
	return test_wait(are_there, &count, 10);
}
