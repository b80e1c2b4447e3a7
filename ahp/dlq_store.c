/* SPDX-License-Identifier: Apache-2.0 */
/* A queue's journal, shared by processes: locking, catching up, rewriting. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ahp/dlq_internal.h"
#include "ahp/rendezvous.h"
#include "shm/options.h"

/* Holes smaller than this are not worth a rewriting. */
#define HOLES_MIN (64u << 10)

/* ---- the journal that is there ------------------------------------------- */

void avp__dlq_forget(struct ahp_dlq *q)
{
	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
	avp__index_fini(&q->index);
	q->end = sizeof(struct journal_header);
	q->damaged = 0;
}

/* What was appended and not committed is gone with the file that had it. */
static int vanished(struct ahp_dlq *q, struct avp_reason *why)
{
	q->broken = true;
	return avp__fail(why, AVP_IO,
			 "dead letter queue: another journal has taken the "
			 "place of the one that held letters not yet on the "
			 "disk; open it again");
}

static int start(struct ahp_dlq *q, const struct journal_header *header,
		 struct avp_reason *why)
{
	bool lost = q->salt && q->salt != header->salt &&
		    q->appended > atomic_load(&q->stored);

	if (lost)
		return vanished(q, why);
	q->salt = header->salt;
	q->index.next_number = header->next_number ? header->next_number : 1;
	return 0;
}

static int open_journal(struct ahp_dlq *q, struct avp_reason *why)
{
	int access = q->flags & AHP_DLQ_READ_ONLY ? O_RDONLY : O_RDWR;
	struct stat st;
	int fd = openat(q->dir, JOURNAL_NAME,
			access | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return avp__journal_fail(why, "cannot open", JOURNAL_NAME);
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) &&
	    (st.st_uid == geteuid() || !st.st_uid))
		return fd;
	close(fd);
	return avp__fail(why, AVP_PERMISSION,
			 "dead letter queue: the journal is no file of ours; "
			 "remove it or name another directory");
}

/* A new, empty journal. Another's that was cut in the making is replaced. */
static int make_journal(struct ahp_dlq *q, struct avp_reason *why)
{
	bool renamed;
	int fd = avp__journal_create(q->dir, 0, 1, why), err;

	if (fd < 0)
		return fd;
	err = avp__journal_publish(q->dir, fd, &renamed, why);
	if (err)
		unlinkat(q->dir, JOURNAL_NEW, 0);
	close(fd);
	return err;
}

/* Reads the header of what open_journal() or make_journal() gave. */
static int begin(struct ahp_dlq *q, struct avp_reason *why)
{
	struct journal_header header;
	int err;

	q->fd = open_journal(q, why);
	if (q->fd < 0)
		return q->fd;
	err = avp__journal_read_header(q->fd, &header, why);
	if (!err)
		return start(q, &header, why);
	avp__dlq_forget(q);
	return err;
}

/* Is the journal that is open still the one of that name? */
static bool is_current(const struct ahp_dlq *q, const struct stat *named)
{
	struct stat held;

	return q->fd >= 0 && !fstat(q->fd, &held) &&
	       held.st_ino == named->st_ino && held.st_dev == named->st_dev &&
	       (uint64_t)named->st_size >= q->end;
}

/* 1 a journal is open, 0 there is none and none was to be made, or an error. */
static int find_journal(struct ahp_dlq *q, enum dlq__mode mode,
			struct stat *named, struct avp_reason *why)
{
	int err = AVP_AGAIN;

	for (int tries = 0; tries < 2; tries++) {
		if (!fstatat(q->dir, JOURNAL_NAME, named,
			     AT_SYMLINK_NOFOLLOW)) {
			if (is_current(q, named))
				return 1;
			avp__dlq_forget(q);
			err = begin(q, why);
			if (!err)
				return 1;
			if (err != AVP_AGAIN)
				return err;
		} else if (errno != ENOENT) {
			return avp__journal_fail(why, "cannot look at",
						 JOURNAL_NAME);
		}
		avp__dlq_forget(q);
		if (mode == DLQ__LOOK)
			return 0;
		err = make_journal(q, why);
		if (err)
			return err;
	}
	return avp__fail(why, AVP_IO,
			 "dead letter queue: the journal that was "
			 "made is not there");
}

/* Reads what others have appended, and cuts what they had not finished. */
static int catch_up(struct ahp_dlq *q, enum dlq__mode mode,
		    struct avp_reason *why)
{
	struct stat named;
	int is = find_journal(q, mode, &named, why), err;
	uint64_t size;

	if (is <= 0)
		return is;
	size = (uint64_t)named.st_size;
	if (size == q->end)
		return 0;
	err = avp__journal_scan(q->fd, q->salt, size, &q->end, &q->damaged,
				avp__index_enter, &q->index, why);
	if (err == AVP_NO_MEMORY)
		return avp__fail(why, err,
				 "dead letter queue: no memory for its index");
	if (err || q->end == size || mode == DLQ__LOOK)
		return err;
	if (ftruncate(q->fd, (off_t)q->end))
		return avp__journal_fail(why, "cannot cut the torn end of",
					 JOURNAL_NAME);
	return 0;
}

/* ---- enter and leave ----------------------------------------------------- */

int avp__dlq_usable(const struct ahp_dlq *q, struct avp_reason *why)
{
	if (!q->broken)
		return 0;
	return avp__fail(why, AVP_IO,
			 "dead letter queue: a commit has failed; close it, "
			 "mend the disk and open it again");
}

static int take_lock(struct ahp_dlq *q, enum dlq__mode mode,
		     struct avp_reason *why)
{
	int how = mode == DLQ__CHANGE ? LOCK_EX : LOCK_SH;

	if (q->lock < 0)
		return 0;
	while (flock(q->lock, how))
		if (errno != EINTR)
			return avp__journal_fail(why, "cannot lock", ".lock");
	return 0;
}

int avp__dlq_enter(struct ahp_dlq *q, enum dlq__mode mode,
		   struct avp_reason *why)
{
	int err;

	if (avp__forked(&q->guard))
		return avp__fail(why, AVP_FORKED,
				 "dead letter queue: opened before a fork; a "
				 "child opens its own");
	if (mode == DLQ__CHANGE && q->flags & AHP_DLQ_READ_ONLY)
		return avp__fail(why, AVP_USAGE,
				 "dead letter queue: it was opened to be read");
	pthread_mutex_lock(&q->mutex);
	err = take_lock(q, mode, why);
	if (err) {
		pthread_mutex_unlock(&q->mutex);
		return err;
	}
	err = q->dir < 0 ? 0 : catch_up(q, mode, why);
	if (!err)
		return 0;
	avp__dlq_forget(q);
	return avp__dlq_leave(q, err);
}

int avp__dlq_leave(struct ahp_dlq *q, int err)
{
	if (q->lock >= 0)
		flock(q->lock, LOCK_UN);
	pthread_mutex_unlock(&q->mutex);
	return err;
}

int avp__dlq_sync(struct ahp_dlq *q, struct avp_reason *why)
{
	if (!fdatasync(q->fd)) {
		atomic_store(&q->stored, q->appended);
		return 0;
	}
	q->broken = true;
	return avp__journal_fail(why, "cannot sync", JOURNAL_NAME);
}

/* ---- rewriting ----------------------------------------------------------- */

/* A walk over letters and bodies that are wanted, in the order of the file. */
struct walk {
	const struct dlq_index *index;
	uint32_t letter, body;
};

static bool next_wanted(struct walk *w, uint64_t *off, uint64_t *bytes)
{
	const struct dlq_index *x = w->index;
	const struct index_letter *l;
	const struct index_body *b;

	while (w->letter < x->letter_count && !x->letters[w->letter].live)
		w->letter++;
	while (w->body < x->body_count && !x->bodies[w->body].refs)
		w->body++;
	l = w->letter < x->letter_count ? &x->letters[w->letter] : NULL;
	b = w->body < x->body_count ? &x->bodies[w->body] : NULL;
	if (!l && !b)
		return false;
	if (!l || (b && b->off < l->off)) {
		*off = b->off;
		*bytes = b->bytes;
		w->body++;
	} else {
		*off = l->off;
		*bytes = l->bytes;
		w->letter++;
	}
	return true;
}

/* Copies what is wanted, neighbours at once, behind the new one's header. */
static int copy_wanted(const struct ahp_dlq *q, int to, struct avp_reason *why)
{
	struct walk w = {.index = &q->index};
	uint64_t to_off = sizeof(struct journal_header);
	uint64_t from = 0, len = 0, off = 0, bytes = 0;
	bool more;
	int err = 0;

	do {
		more = next_wanted(&w, &off, &bytes);
		if (more && off == from + len) {
			len += bytes;
			continue;
		}
		if (len)
			err = avp__journal_copy(q->fd, from, len, to, to_off,
						why);
		to_off += len;
		from = off;
		len = bytes;
	} while (more && !err);
	return err;
}

/* The new file is read before it replaces anything. */
static int check_copy(struct ahp_dlq *fresh, const struct ahp_dlq *q,
		      struct avp_reason *why)
{
	struct stat st;
	int err;

	fresh->end = sizeof(struct journal_header);
	fresh->index.next_number = 1;
	if (fstat(fresh->fd, &st))
		return avp__journal_fail(why, "cannot look at", JOURNAL_NEW);
	err = avp__journal_scan(fresh->fd, q->salt, (uint64_t)st.st_size,
				&fresh->end, &fresh->damaged, avp__index_enter,
				&fresh->index, why);
	if (err)
		return err;
	if (fresh->index.live_letters != q->index.live_letters ||
	    fresh->index.live_bytes != q->index.live_bytes || fresh->damaged ||
	    fresh->end != (uint64_t)st.st_size)
		return avp__fail(why, AVP_IO,
				 "dead letter queue: the journal did not come "
				 "through its copying; the old one stays");
	fresh->index.next_number = q->index.next_number;
	return 0;
}

static void take_over(struct ahp_dlq *q, struct ahp_dlq *fresh)
{
	close(q->fd);
	avp__index_fini(&q->index);
	q->fd = fresh->fd;
	q->index = fresh->index;
	q->end = fresh->end;
	q->damaged = 0;
	atomic_store(&q->stored, q->appended);
}

int avp__dlq_rewrite(struct ahp_dlq *q, struct avp_reason *why)
{
	struct ahp_dlq fresh = {.fd = -1};
	bool renamed = false;
	int err;

	fresh.fd =
		avp__journal_create(q->dir, q->salt, q->index.next_number, why);
	if (fresh.fd < 0) {
		avp__dlq_forget(q);
		return fresh.fd;
	}
	err = copy_wanted(q, fresh.fd, why);
	if (!err)
		err = check_copy(&fresh, q, why);
	if (!err)
		err = avp__journal_publish(q->dir, fresh.fd, &renamed, why);
	if (!err) {
		take_over(q, &fresh);
		return 0;
	}
	if (renamed)
		q->broken = true; /* which of the two a crash would leave? */
	else
		unlinkat(q->dir, JOURNAL_NEW, 0);
	close(fresh.fd);
	avp__index_fini(&fresh.index);
	avp__dlq_forget(q);
	return err;
}

int avp__dlq_empty(struct ahp_dlq *q, struct avp_reason *why)
{
	bool renamed;
	int err, fd;

	/* First the room, then the new one; a torn one counts as empty too. */
	if (ftruncate(q->fd, 0))
		return avp__journal_fail(why, "cannot cut", JOURNAL_NAME);
	fd = avp__journal_create(q->dir, q->salt, q->index.next_number, why);
	if (fd >= 0) {
		err = avp__journal_publish(q->dir, fd, &renamed, why);
		close(fd);
	} else {
		err = fd;
	}
	avp__dlq_forget(q);
	return err;
}

void avp__dlq_tidy(struct ahp_dlq *q)
{
	uint64_t live = q->index.live_bytes + sizeof(struct journal_header);
	uint64_t holes = q->end - live;

	if (holes >= HOLES_MIN && holes >= live)
		(void)avp__dlq_rewrite(q, NULL);
}

/* ---- open and close ------------------------------------------------------ */

int ahp_dlq_dir(const char *dir, const char *name_space, char *path, size_t cap,
		struct avp_reason *why)
{
	const char *name = ahp__name_space(name_space, why);
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	int n;

	if (!name)
		return AVP_USAGE;
	if (dir && *dir)
		n = snprintf(path, cap, "%s/%s", dir, name);
	else if (state && *state == '/')
		n = snprintf(path, cap, "%s/avp/dlq/%s", state, name);
	else if (home && *home == '/')
		n = snprintf(path, cap, "%s/.local/state/avp/dlq/%s", home,
			     name);
	else
		return avp__fail(why, AVP_USAGE,
				 "dead letter queue: no HOME and no "
				 "XDG_STATE_HOME; name a directory");
	if (n < 0 || (size_t)n >= cap)
		return avp__fail(why, AVP_USAGE,
				 "dead letter queue: a path of %d bytes; %zu "
				 "are the limit",
				 n, cap - 1);
	return n;
}

static int check_options(const struct ahp_dlq_options *options,
			 struct ahp_dlq_options *o, struct avp_reason *why)
{
	int err =
		avp__options_copy(o, sizeof(*o), sizeof(*o), options,
				  AHP_DLQ_DROP_OLDEST | AHP_DLQ_READ_ONLY, why);

	if (!err)
		err = avp__options_reserved(o->reserved, 4, why);
	if (err)
		return err;
	if (o->max_bytes &&
	    (o->max_bytes < AHP_DLQ_MIN_BYTES || o->max_bytes >> 60))
		return avp__fail(why, AVP_USAGE,
				 "max_bytes %llu; from 64 KiB to 1 EiB",
				 (unsigned long long)o->max_bytes);
	return 0;
}

/* Opens the directory and its lock; -1 for either where that is no error. */
static int open_files(struct ahp_dlq *q, const char *path,
		      struct avp_reason *why)
{
	bool read_only = q->flags & AHP_DLQ_READ_ONLY;
	int dir;

	if (read_only && access(path, F_OK) && errno == ENOENT)
		return 0;
	dir = avp__journal_dir(path, read_only, why);
	if (dir < 0)
		return dir;
	q->dir = dir;
	q->lock = openat(dir, ".lock",
			 (read_only ? O_RDONLY : O_RDWR | O_CREAT) |
				 O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
			 0600);
	if (q->lock < 0 && !(read_only && errno == ENOENT))
		return avp__journal_fail(why, "cannot open", ".lock");
	return 0;
}

static int open_queue(struct ahp_dlq *q, const struct ahp_dlq_options *o,
		      struct avp_reason *why)
{
	char path[4096];
	int err = ahp_dlq_dir(o->dir, o->name_space, path, sizeof(path), why);
	enum dlq__mode mode;

	if (err < 0)
		return err;
	q->flags = o->flags;
	q->max_bytes = o->max_bytes ? o->max_bytes : AHP_DLQ_MAX_BYTES;
	err = avp__fork_guard_init(&q->guard, why);
	if (!err)
		err = open_files(q, path, why);
	if (err)
		return err;
	mode = o->flags & AHP_DLQ_READ_ONLY ? DLQ__LOOK : DLQ__CHANGE;
	err = avp__dlq_enter(q, mode, why);
	return err ? err : avp__dlq_leave(q, 0);
}

int ahp_dlq_open(struct ahp_dlq **dlq, const struct ahp_dlq_options *options,
		 struct avp_reason *why)
{
	struct ahp_dlq_options o;
	struct ahp_dlq *q;
	int err = check_options(options, &o, why);

	if (err)
		return err;
	q = calloc(1, sizeof(*q));
	if (!q)
		return avp__fail(why, AVP_NO_MEMORY,
				 "dead letter queue: no memory");
	q->dir = q->lock = q->fd = -1;
	q->end = sizeof(struct journal_header);
	pthread_mutex_init(&q->mutex, NULL);
	err = open_queue(q, &o, why);
	if (err)
		ahp_dlq_close(q);
	else
		*dlq = q;
	return err;
}

void ahp_dlq_close(struct ahp_dlq *q)
{
	if (!q)
		return;
	avp__dlq_forget(q);
	if (q->lock >= 0)
		close(q->lock);
	if (q->dir >= 0)
		close(q->dir);
	avp__fork_guard_fini(&q->guard);
	free(q); /* the mutex has nothing of its own, and may be held in a fork */
}
