/* SPDX-License-Identifier: Apache-2.0 */
/* What one does with a dead letter queue: append, commit, look, remove. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "ahp/dlq_internal.h"

#define HEAD sizeof(struct journal_record)

/* ---- appending ----------------------------------------------------------- */

/* A letter on its way into the journal: what will be written of it. */
struct writing {
	const struct ahp_dlq_letter *letter;
	struct avp_buf text;
	struct journal_ref ref;
	uint64_t letter_bytes, body_bytes; /* of the records; 0: no body */
};

static int prepare(struct writing *w, const struct ahp_dlq_letter *letter,
		   struct avp_reason *why)
{
	int err;

	*w = (struct writing){.letter = letter};
	err = avp__dlq_entry_write(&w->text, letter, why);
	if (err)
		return err;
	if (w->text.len > AHP_DLQ_ENTRY_BYTES)
		return avp__fail(why, AVP_TOO_LARGE,
				 "a letter of %zu bytes without its body; %u "
				 "are the limit: keep the payload as the body",
				 w->text.len, AHP_DLQ_ENTRY_BYTES);
	w->letter_bytes = HEAD + sizeof(w->ref) + w->text.len;
	if (!letter->body_bytes)
		return 0;
	if (!SHA256(letter->body, letter->body_bytes, w->ref.sha256))
		return avp__fail(why, AVP_NO_MEMORY,
				 "dead letter queue: no memory for a body's "
				 "SHA-256");
	w->ref.bytes = letter->body_bytes;
	w->body_bytes = HEAD + JOURNAL_SHA_LEN + letter->body_bytes;
	return 0;
}

/* What the bound has to have room for: a body that is wanted costs nothing. */
static uint64_t needed(const struct ahp_dlq *q, const struct writing *w)
{
	const struct index_body *b =
		w->body_bytes ? avp__index_body(&q->index, w->ref.sha256)
			      : NULL;

	return w->letter_bytes + (b && b->refs ? 0 : w->body_bytes);
}

static void drop_oldest(struct ahp_dlq *q, const struct writing *w,
			uint64_t room)
{
	struct index_letter *l;

	/* needed() grows when the last letter with the same body goes. */
	while ((l = avp__index_after(&q->index, 0)) &&
	       q->index.live_bytes + needed(q, w) > room) {
		avp__index_drop(&q->index, l);
		q->dropped++;
	}
}

static int make_room(struct ahp_dlq *q, const struct writing *w,
		     struct avp_reason *why)
{
	uint64_t max = q->max_bytes - sizeof(struct journal_header);
	uint64_t dropped = q->dropped;
	int err;

	if (w->body_bytes > max || w->letter_bytes > max - w->body_bytes)
		return avp__fail(
			why, AVP_TOO_LARGE,
			"a letter of %llu bytes; the queue's bound is "
			"max_bytes %llu: raise it, or leave the body",
			(unsigned long long)(w->letter_bytes + w->body_bytes),
			(unsigned long long)q->max_bytes);
	if (q->index.live_bytes + needed(q, w) > max) {
		if (!(q->flags & AHP_DLQ_DROP_OLDEST))
			return avp__fail(
				why, AVP_QUEUE_FULL,
				"%llu dead letters take %llu of max_bytes "
				"%llu: replay or clear some, or raise it",
				(unsigned long long)q->index.live_letters,
				(unsigned long long)q->index.live_bytes,
				(unsigned long long)q->max_bytes);
		drop_oldest(q, w, max - max / 4);
	} else if (q->end + needed(q, w) <= q->max_bytes + q->max_bytes / 4) {
		return 0;
	}
	err = avp__dlq_rewrite(q, why);
	if (err)
		q->dropped = dropped;
	return err;
}

static int add_body(struct ahp_dlq *q, const struct writing *w,
		    struct journal_seen *seen, struct iovec *piece)
{
	const struct ahp_dlq_letter *l = w->letter;
	struct journal_record *head = &seen->head;

	if (!w->body_bytes || avp__index_body(&q->index, w->ref.sha256))
		return 0;
	head->kind = JOURNAL_BODY;
	head->bytes = w->body_bytes - HEAD;
	head->crc = avp__journal_crc(0, w->ref.sha256, JOURNAL_SHA_LEN);
	head->crc = avp__journal_crc(head->crc, l->body, l->body_bytes);
	avp__journal_seal(head, q->salt);
	memcpy(seen->first, w->ref.sha256, JOURNAL_SHA_LEN);
	piece[0] = (struct iovec){head, HEAD};
	piece[1] = (struct iovec){seen->first, JOURNAL_SHA_LEN};
	piece[2] = (struct iovec){(void *)l->body, l->body_bytes};
	return 3;
}

static void add_letter(struct ahp_dlq *q, const struct writing *w,
		       struct journal_seen *seen, struct iovec *piece)
{
	struct journal_record *head = &seen->head;

	head->kind = JOURNAL_LETTER;
	head->number = q->index.next_number;
	head->bytes = w->letter_bytes - HEAD;
	head->crc = avp__journal_crc(0, &w->ref, sizeof(w->ref));
	head->crc = avp__journal_crc(head->crc, w->text.data, w->text.len);
	avp__journal_seal(head, q->salt);
	memcpy(seen->first, &w->ref, sizeof(w->ref));
	piece[0] = (struct iovec){head, HEAD};
	piece[1] = (struct iovec){seen->first, sizeof(w->ref)};
	piece[2] = (struct iovec){w->text.data, w->text.len};
}

/* Both records with one call, and into the index once they are there. */
static int write_letter(struct ahp_dlq *q, const struct writing *w,
			struct avp_reason *why)
{
	struct journal_seen body = {.off = q->end}, letter = {.off = q->end};
	struct iovec pieces[6];
	int n = add_body(q, w, &body, pieces), err;

	if (avp__index_reserve(&q->index))
		return avp__fail(why, AVP_NO_MEMORY,
				 "dead letter queue: no memory for its index");
	add_letter(q, w, &letter, pieces + n);
	err = avp__journal_write(q->fd, q->end, pieces, n + 3, why);
	if (err)
		return err;
	if (n)
		letter.off += w->body_bytes;
	q->end = letter.off + w->letter_bytes;
	/* What the index has no memory for is read again from the journal. */
	if ((n && avp__index_enter(&q->index, &body)) ||
	    avp__index_enter(&q->index, &letter))
		avp__dlq_forget(q);
	return 0;
}

static int append(struct ahp_dlq *q, const struct writing *w, uint64_t *ticket,
		  struct avp_reason *why)
{
	int err = avp__dlq_enter(q, DLQ__CHANGE, why);

	if (err)
		return err;
	err = avp__dlq_usable(q, why);
	if (!err)
		err = make_room(q, w, why);
	if (!err)
		err = write_letter(q, w, why);
	if (!err) {
		q->appended++;
		if (ticket)
			*ticket = q->appended;
	}
	return avp__dlq_leave(q, err);
}

int ahp_dlq_append(struct ahp_dlq *q, const struct ahp_dlq_letter *letter,
		   uint64_t *ticket, struct avp_reason *why)
{
	struct writing w;
	int err = prepare(&w, letter, why);

	if (!err)
		err = append(q, &w, ticket, why);
	avp_buf_fini(&w.text);
	return err;
}

/* ---- committing ---------------------------------------------------------- */

/*
 * The file that was synced has no name any more: rewritten by another process,
 * which has synced what was in it, or removed. Entering tells which.
 */
static int check_name(struct ahp_dlq *q, struct avp_reason *why)
{
	int err = avp__dlq_enter(q, DLQ__CHANGE, why);

	return err ? err : avp__dlq_leave(q, avp__dlq_usable(q, why));
}

/* The tickets up to `upto` are on the disk, or nothing is known any more. */
static int note_commit(struct ahp_dlq *q, uint64_t upto, int error,
		       struct avp_reason *why)
{
	int err = 0;

	pthread_mutex_lock(&q->mutex);
	if (error)
		q->broken = true;
	if (q->broken)
		err = avp__dlq_usable(q, why);
	else if (atomic_load(&q->stored) < upto)
		atomic_store(&q->stored, upto);
	pthread_mutex_unlock(&q->mutex);
	if (!error)
		return err;
	errno = error;
	return avp__journal_fail(why, "cannot sync", JOURNAL_NAME);
}

/* An fd of the journal's own, so that it may be rewritten meanwhile. */
static int take_fd(struct ahp_dlq *q, uint64_t *upto, struct avp_reason *why)
{
	int err = 0, fd = -1;

	pthread_mutex_lock(&q->mutex);
	*upto = q->appended;
	if (q->fd >= 0)
		fd = dup(q->fd);
	if (q->fd >= 0 && fd < 0)
		err = avp__journal_fail(why, "cannot open again", JOURNAL_NAME);
	pthread_mutex_unlock(&q->mutex);
	return err ? err : fd;
}

int avp__dlq_commit_begin(struct ahp_dlq *q, uint64_t *upto,
			  struct avp_reason *why)
{
	int err, fd;

	if (avp__forked(&q->guard))
		return avp__fail(why, AVP_FORKED,
				 "dead letter queue: opened before a fork; a "
				 "child opens its own");
	pthread_mutex_lock(&q->mutex);
	err = avp__dlq_usable(q, why);
	if (!err && q->appended == atomic_load(&q->stored))
		err = AVP_AGAIN;
	pthread_mutex_unlock(&q->mutex);
	if (err)
		return err;
	fd = take_fd(q, upto, why);
	if (fd == -1) { /* forgotten after an error */
		err = check_name(q, why);
		fd = err ? err : take_fd(q, upto, why);
	}
	return fd == -1
		       ? avp__fail(why, AVP_IO, "dead letter queue: no journal")
		       : fd;
}

int avp__dlq_commit_end(struct ahp_dlq *q, int fd, uint64_t upto, int error,
			struct avp_reason *why)
{
	struct stat st = {0};
	int err;

	if (!error && fstat(fd, &st))
		error = errno;
	close(fd);
	if (!error && !st.st_nlink) {
		err = check_name(q, why);
		if (err)
			return err;
	}
	return note_commit(q, upto, error, why);
}

int ahp_dlq_commit(struct ahp_dlq *q, struct avp_reason *why)
{
	uint64_t upto;
	int fd = avp__dlq_commit_begin(q, &upto, why);

	if (fd < 0)
		return fd == AVP_AGAIN ? 0 : fd;
	return avp__dlq_commit_end(q, fd, upto, fdatasync(fd) ? errno : 0, why);
}

int ahp_dlq_stored(const struct ahp_dlq *q, uint64_t ticket)
{
	return ticket && ticket <= atomic_load(&q->stored);
}

/* ---- looking ------------------------------------------------------------- */

static void hex_of(const uint8_t sha256[JOURNAL_SHA_LEN], char hex[65])
{
	for (size_t i = 0; i < JOURNAL_SHA_LEN; i++)
		snprintf(hex + 2 * i, 3, "%02x", sha256[i]);
}

static void tell_body(const struct ahp_dlq *q, const struct index_letter *l,
		      struct ahp_dlq_entry *entry)
{
	const struct index_body *b;

	entry->body_lost = l->body == INDEX_BODY_LOST;
	if (l->body >= INDEX_BODY_LOST)
		return;
	b = &q->index.bodies[l->body];
	entry->body_bytes = b->bytes - HEAD - JOURNAL_SHA_LEN;
	hex_of(b->sha256, entry->body_sha256);
}

/* Reads a live letter; within enter and leave. */
static int read_letter(struct ahp_dlq *q, const struct index_letter *l,
		       struct ahp_dlq_entry *entry, struct avp_reason *why)
{
	const uint64_t front = HEAD + sizeof(struct journal_ref);
	uint64_t len = l->bytes - front;
	struct ahp_dlq_entry e;
	char *text;
	int err;

	if (len > AHP_DLQ_ENTRY_BYTES)
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "letter %llu has %llu bytes; %u are the limit",
				 (unsigned long long)l->number,
				 (unsigned long long)len, AHP_DLQ_ENTRY_BYTES);
	text = malloc(len + 1);
	if (!text)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory for a letter of %llu bytes",
				 (unsigned long long)len);
	err = avp__journal_pread(q->fd, text, len, l->off + front, why);
	if (!err)
		err = avp__dlq_entry_read(&e, text, len, why);
	free(text);
	if (err)
		return err;
	e.number = l->number;
	tell_body(q, l, &e);
	*entry = e;
	return 0;
}

/* A letter that holds no entry was not written by us: it is passed over. */
static int read_after(struct ahp_dlq *q, uint64_t after,
		      struct ahp_dlq_entry *entry, struct avp_reason *why)
{
	const struct index_letter *l;
	int err;

	while ((l = avp__index_after(&q->index, after))) {
		err = read_letter(q, l, entry, why);
		if (!err)
			return 1;
		if (err == AVP_IO || err == AVP_NO_MEMORY)
			return err;
		after = l->number;
	}
	return 0;
}

int ahp_dlq_next(struct ahp_dlq *q, uint64_t after, struct ahp_dlq_entry *entry,
		 struct avp_reason *why)
{
	int err;

	/* The file that was read stays open: what it holds stays readable. */
	if (after && !avp__forked(&q->guard)) {
		pthread_mutex_lock(&q->mutex);
		if (q->fd >= 0) {
			err = read_after(q, after, entry, why);
			pthread_mutex_unlock(&q->mutex);
			return err;
		}
		pthread_mutex_unlock(&q->mutex);
	}
	err = avp__dlq_enter(q, DLQ__LOOK, why);
	if (err)
		return err;
	return avp__dlq_leave(q, read_after(q, after, entry, why));
}

int ahp_dlq_get(struct ahp_dlq *q, uint64_t number, struct ahp_dlq_entry *entry,
		struct avp_reason *why)
{
	const struct index_letter *l;
	int err = avp__dlq_enter(q, DLQ__LOOK, why);

	if (err)
		return err;
	l = avp__index_find(&q->index, number);
	if (l && l->live) {
		err = read_letter(q, l, entry, why);
		err = err ? err : 1;
	}
	return avp__dlq_leave(q, err);
}

int avp__dlq_body_part(struct ahp_dlq *q, const struct ahp_dlq_entry *entry,
		       uint64_t off, void *to, uint64_t len,
		       struct avp_reason *why)
{
	const struct index_letter *l =
		avp__index_find(&q->index, entry->number);
	const struct index_body *b = l && l->live && l->body < INDEX_BODY_LOST
					     ? &q->index.bodies[l->body]
					     : NULL;

	if (!b || b->bytes - HEAD - JOURNAL_SHA_LEN != entry->body_bytes)
		return avp__fail(why, AVP_UNKNOWN,
				 "letter %llu has no body here",
				 (unsigned long long)entry->number);
	return avp__journal_pread(q->fd, to, len,
				  b->off + HEAD + JOURNAL_SHA_LEN + off, why);
}

int avp__dlq_body_check(const struct ahp_dlq_entry *entry, const void *head,
			uint64_t head_bytes, const void *rest,
			struct avp_reason *why)
{
	uint8_t sha256[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	char hex[65] = "";

	if (md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
	    EVP_DigestUpdate(md, head, head_bytes) &&
	    EVP_DigestUpdate(md, rest, entry->body_bytes - head_bytes) &&
	    EVP_DigestFinal_ex(md, sha256, NULL))
		hex_of(sha256, hex);
	EVP_MD_CTX_free(md);
	if (!strcmp(hex, entry->body_sha256))
		return 0;
	return avp__fail(why, hex[0] ? AVP_CHECKSUM : AVP_NO_MEMORY,
			 "the body of letter %llu is not what its SHA-256 says",
			 (unsigned long long)entry->number);
}

int ahp_dlq_body(struct ahp_dlq *q, const struct ahp_dlq_entry *entry, void *to,
		 struct avp_reason *why)
{
	int err = avp__dlq_enter(q, DLQ__LOOK, why);

	if (err)
		return err;
	err = avp__dlq_body_part(q, entry, 0, to, entry->body_bytes, why);
	avp__dlq_leave(q, err);
	return err ? err : avp__dlq_body_check(entry, to, 0, to, why);
}

int ahp_dlq_info(struct ahp_dlq *q, struct ahp_dlq_info *info,
		 struct avp_reason *why)
{
	int err = avp__dlq_enter(q, DLQ__LOOK, why);

	if (err)
		return err;
	*info = (struct ahp_dlq_info){
		.entries = q->index.live_letters,
		.bytes = q->index.live_bytes,
		.file_bytes = q->fd < 0 ? 0 : q->end,
		.max_bytes = q->max_bytes,
		.damaged = q->damaged + q->index.strange,
		.dropped = q->dropped,
	};
	return avp__dlq_leave(q, 0);
}

/* ---- removing ------------------------------------------------------------ */

static int remove_letter(struct ahp_dlq *q, struct index_letter *l,
			 struct avp_reason *why)
{
	struct journal_seen seen = {
		.head = {.number = l->number, .kind = JOURNAL_REMOVED},
		.off = q->end,
	};
	struct iovec piece = {&seen.head, HEAD};
	int err;

	avp__journal_seal(&seen.head, q->salt);
	err = avp__journal_write(q->fd, q->end, &piece, 1, why);
	if (err)
		return err;
	q->end += HEAD;
	avp__index_drop(&q->index, l);
	err = avp__dlq_sync(q, why);
	if (err)
		return err;
	avp__dlq_tidy(q);
	return 1;
}

int ahp_dlq_remove(struct ahp_dlq *q, uint64_t number, struct avp_reason *why)
{
	struct index_letter *l;
	int err = avp__dlq_enter(q, DLQ__CHANGE, why);

	if (err)
		return err;
	err = avp__dlq_usable(q, why);
	l = avp__index_find(&q->index, number);
	if (!err && l && l->live)
		err = remove_letter(q, l, why);
	return avp__dlq_leave(q, err);
}

/* Drops the letters of an agent from the index; how many, or an error. */
static int drop_letters(struct ahp_dlq *q, struct avp_str agent,
			uint64_t *count, struct avp_reason *why)
{
	struct ahp_dlq_entry entry;
	struct index_letter *l;
	int err;

	*count = 0;
	for (uint64_t n = 0; (l = avp__index_after(&q->index, n));
	     n = l->number) {
		bool is = true;

		if (agent.len) {
			err = read_letter(q, l, &entry, why);
			if (err == AVP_IO || err == AVP_NO_MEMORY)
				return err;
			is = !err && avp_str_equal(entry.agent, agent);
			if (!err)
				ahp_dlq_entry_fini(&entry);
		}
		if (is) {
			avp__index_drop(&q->index, l);
			++*count;
		}
	}
	return 0;
}

static int clear(struct ahp_dlq *q, struct avp_str agent, uint64_t *count,
		 struct avp_reason *why)
{
	int err = drop_letters(q, agent, count, why);
	bool all = !q->index.live_letters;

	if (err)
		avp__dlq_forget(q);
	if (err || !*count)
		return err;
	/* A full disk has no room for a second journal, but needs this most. */
	return all ? avp__dlq_empty(q, why) : avp__dlq_rewrite(q, why);
}

int ahp_dlq_clear(struct ahp_dlq *q, struct avp_str agent, uint64_t *count,
		  struct avp_reason *why)
{
	uint64_t n = 0;
	int err = avp__dlq_enter(q, DLQ__CHANGE, why);

	if (err)
		return err;
	err = avp__dlq_usable(q, why);
	if (!err)
		err = clear(q, agent, &n, why);
	if (!err && count)
		*count = n;
	return avp__dlq_leave(q, err);
}

int ahp_dlq_compact(struct ahp_dlq *q, struct avp_reason *why)
{
	int err = avp__dlq_enter(q, DLQ__CHANGE, why);

	if (err)
		return err;
	err = avp__dlq_usable(q, why);
	if (!err)
		err = avp__dlq_rewrite(q, why);
	return avp__dlq_leave(q, err);
}
