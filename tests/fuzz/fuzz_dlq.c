/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the journal of a dead letter queue: opened, walked, its bodies
 * read, replayed, rewritten. Since checksums would keep most inputs out, they
 * are also mended where a record's head can be seen. As a test: a journal with
 * all kinds of records, its beginnings, and each byte changed.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <avp/ahp.h>
#include <avp/dlq.h>

#include "ahp/dlq_index.h"
#include "ahp/dlq_internal.h"
#include "tests/fuzz.h"

/* Every record lies behind the one before, within the file. */
struct walk {
	struct dlq_index index;
	uint64_t last, size;
};

static int visit(void *arg, const struct journal_seen *seen)
{
	struct walk *w = arg;

	MUST(seen->off >= w->last && seen->off + 32 <= w->size);
	MUST(seen->head.bytes <= w->size - seen->off - 32);
	w->last = seen->off + 32 + seen->head.bytes;
	return avp__index_enter(&w->index, seen);
}

static void check_index(const struct dlq_index *x)
{
	uint64_t live = 0, count = 0;

	for (uint32_t i = 0; i < x->letter_count; i++) {
		const struct index_letter *l = &x->letters[i];

		MUST(!i || l[-1].number < l->number);
		MUST(l->body >= INDEX_BODY_LOST || l->body < x->body_count);
		count += l->live;
		live += l->live ? l->bytes : 0;
	}
	for (uint32_t i = 0; i < x->body_count; i++)
		live += x->bodies[i].refs ? x->bodies[i].bytes : 0;
	MUST(count == x->live_letters && live == x->live_bytes);
}

/* Each letter's text as an entry, whatever it says. */
static void read_entries(int fd, const struct dlq_index *x)
{
	for (uint32_t i = 0; i < x->letter_count; i++) {
		const struct index_letter *l = &x->letters[i];
		size_t len = (size_t)l->bytes - 72;
		struct ahp_dlq_entry e;
		struct avp_reason why;
		char *text = malloc(len + 1);

		MUST(text &&
		     !avp__journal_pread(fd, text, len, l->off + 72, &why));
		if (!avp__dlq_entry_read(&e, text, len, &why)) {
			struct avp_buf out = {0};
			struct avp_json_writer w;

			avp_json_begin(&w, &out, AVP_JSON_HTTP);
			ahp_dlq_entry_put(&w, &e);
			MUST(!avp_json_finish(&w));
			avp_buf_fini(&out);
			ahp_dlq_entry_fini(&e);
		}
		free(text);
	}
}

static void scan(int fd, uint64_t size)
{
	struct walk w = {.last = sizeof(struct journal_header), .size = size};
	struct journal_header header;
	struct avp_reason why;
	uint64_t end = sizeof(header), damaged = 0;

	if (avp__journal_read_header(fd, &header, &why)) {
		MUST(why.text[0]);
		return;
	}
	MUST(!avp__journal_scan(fd, header.salt, size, &end, &damaged, visit,
				&w, &why));
	MUST(end <= size && damaged <= size && (end == w.last));
	check_index(&w.index);
	read_entries(fd, &w.index);
	avp__index_fini(&w.index);
}

static void check_bytes(const void *data, size_t len)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	MUST(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	scan(fd, len);
	close(fd);
}

/* Makes the checksums of what looks like records right. */
static void mend(uint8_t *data, size_t len)
{
	struct journal_header h;
	struct journal_record r;
	size_t at = sizeof(h);

	if (len < sizeof(h))
		return;
	memcpy(&h, data, sizeof(h));
	h.magic = JOURNAL_MAGIC;
	h.major = JOURNAL_MAJOR;
	h.crc = 0;
	h.crc = avp__journal_crc(0, &h, sizeof(h));
	memcpy(data, &h, sizeof(h));
	while (len - at >= sizeof(r)) {
		memcpy(&r, data + at, sizeof(r));
		if (r.bytes > len - at - sizeof(r))
			r.bytes %= len - at - sizeof(r) + 1;
		r.crc = avp__journal_crc(0, data + at + sizeof(r), r.bytes);
		avp__journal_seal(&r, h.salt);
		memcpy(data + at, &r, sizeof(r));
		at += sizeof(r) + (size_t)r.bytes;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t *copy = calloc(1, len + 1);

	MUST(copy);
	if (len)
		memcpy(copy, data, len);
	check_bytes(copy, len);
	mend(copy, len);
	check_bytes(copy, len);
	free(copy);
	return 0;
}

#ifndef AVP_FUZZING
static struct bytes make_journal(void)
{
	struct ahp_dlq_options o = {
		.size = sizeof(o), .dir = test_dir(), .name_space = "fuzz"};
	struct ahp_envelope m = {.method = {"TASK", 4},
				 .target_agent = {"a", 1},
				 .message_id = {"id", 2}};
	struct ahp_dlq_letter l = {.message = &m, .body = "AVbody"};
	struct bytes b = {0};
	struct ahp_dlq *q;
	struct stat st;
	char path[400];
	int fd;

	CU_ASSERT_EQUAL_FATAL(ahp_dlq_open(&q, &o, NULL), 0);
	for (int i = 0; i < 4; i++) {
		l.kind = i & 1;
		l.body_bytes = i < 2 ? 6 : 0;
		CU_ASSERT_EQUAL(ahp_dlq_append(q, &l, NULL, NULL), 0);
	}
	CU_ASSERT_EQUAL(ahp_dlq_remove(q, 3, NULL), 1);
	ahp_dlq_close(q);
	snprintf(path, sizeof(path), "%s/fuzz/journal", test_dir());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CU_ASSERT_FATAL(fd >= 0 && !fstat(fd, &st));
	b.len = (size_t)st.st_size;
	b.data = malloc(b.len);
	CU_ASSERT_EQUAL(read(fd, b.data, b.len), st.st_size);
	close(fd);
	return b;
}

static void neighbours_of_a_journal(void)
{
	struct bytes b = make_journal();

	for (size_t n = 0; n <= b.len; n++)
		LLVMFuzzerTestOneInput(b.data, n);
	for (size_t i = 0; i < b.len; i++)
		for (int x = 1; x < 256; x += 50) {
			b.data[i] ^= (uint8_t)x;
			LLVMFuzzerTestOneInput(b.data, b.len);
			b.data[i] ^= (uint8_t)x;
		}
	bytes_free(&b);
}

/* Nothing but beginnings of records: looking for one stays linear. */
static void many_magics(void)
{
	size_t len = 8u << 20;
	uint8_t *data = malloc(len);
	const uint32_t magic = RECORD_DLQ;

	CU_ASSERT_FATAL(data != NULL);
	for (size_t i = 0; i < len; i += 4)
		memcpy(data + i, &magic, 4);
	mend(data, 64);
	check_bytes(data, len);
	free(data);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(neighbours_of_a_journal),
		TEST(many_magics),
		{0},
	};

	return test_main("fuzz_dlq", tests);
}
#endif
