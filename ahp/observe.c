/* SPDX-License-Identifier: Apache-2.0 */
/* What can be seen of a namespace's agents from outside. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ahp/agent_internal.h"
#include "ahp/rendezvous.h"

/* An agent beats whenever it is called; after this without, it is "stuck". */
#define STUCK_NS 60000000000ll

#define OBSERVED_MAX 65536 /* names: a directory can hold any number */

struct names {
	char (*id)[AHP_ID_BYTES + 1];
	size_t count, room;
};

static int add_name(struct names *names, const char *file)
{
	size_t n = strlen(file), suffix = strlen(".lock");
	char id[AHP_ID_BYTES + 1];

	if (n <= suffix || n - suffix > AHP_ID_BYTES ||
	    strcmp(file + n - suffix, ".lock"))
		return 0;
	memcpy(id, file, n - suffix);
	id[n - suffix] = 0;
	if (!ahp__id_ok(id) || names->count == OBSERVED_MAX)
		return 0;
	if (names->count == names->room) {
		size_t room = names->room ? 2 * names->room : 64;
		void *more = realloc(names->id, room * sizeof(*names->id));

		if (!more)
			return AVP_NO_MEMORY;
		names->id = more;
		names->room = room;
	}
	memcpy(names->id[names->count++], id, sizeof(id));
	return 0;
}

static int by_id(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int list_names(int dir, struct names *names, struct avp_reason *why)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int error = 0;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return avp__fail(why, AVP_IO, "cannot list the namespace: %s",
				 strerror(errno));
	}
	while (!error && (entry = readdir(d)))
		error = add_name(names, entry->d_name);
	closedir(d);
	if (error)
		return avp__fail(why, error, "no memory for %zu names",
				 names->count);
	if (names->count)
		qsort(names->id, names->count, sizeof(*names->id), by_id);
	return 0;
}

/* The file is another's: read once, every string ended here. */
static bool read_record(int dir, const char *id, struct page_record *r)
{
	char name[AHP__NAME_BYTES];
	ssize_t got;
	int fd;

	snprintf(name, sizeof(name), "%s.page", id);
	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = pread(fd, r, sizeof(*r), 0);
	close(fd);
	if (got != sizeof(*r) || r->magic != RECORD_MAGIC)
		return false;
	r->model_id[sizeof(r->model_id) - 1] = 0;
	r->model_hash[64] = 0;
	return true;
}

static void fill_seen(struct ahp_observation *seen, const struct page_record *r)
{
	seen->pid = r->pid;
	seen->uid = r->uid;
	memcpy(seen->model_id, r->model_id, sizeof(seen->model_id));
	memcpy(seen->model_hash, r->model_hash, sizeof(seen->model_hash));
	memcpy(&seen->stats, r->stats, sizeof(seen->stats));
	if (ahp__now_ns() - r->beat_ns > STUCK_NS)
		seen->state = "stuck";
}

/*
 * A forked child of a killed agent holds its lock. Its process is asked for
 * first: only who is not there by that, as in another pid namespace, is
 * connected to.
 */
static bool gone(int dir, const struct ahp_observation *seen)
{
	return seen->pid > 0 && seen->pid <= INT32_MAX &&
	       kill((pid_t)seen->pid, 0) && errno == ESRCH &&
	       ahp__names_holder_dead(dir, seen->id);
}

/* The caller holds the namespace's lock. False: it is gone meanwhile. */
static bool observe_one(int dir, const char *id, struct ahp_observation *seen)
{
	int lock = ahp__names_hold(dir, id, false, NULL);
	struct page_record r;

	*seen = (struct ahp_observation){.state = "alive"};
	snprintf(seen->id, sizeof(seen->id), "%s", id);
	if (read_record(dir, id, &r))
		fill_seen(seen, &r);
	if (lock >= 0 || (lock == AVP_NAME_TAKEN && gone(dir, seen))) {
		seen->state = "dead";
		ahp__names_remove(dir, id);
	}
	if (lock >= 0)
		close(lock);
	return lock >= 0 || lock == AVP_NAME_TAKEN || lock == AVP_PERMISSION;
}

int ahp_observe(const char *runtime_dir, const char *name_space,
		ahp_visit *visit, void *arg, struct avp_reason *why)
{
	int dir = ahp__names_dir(runtime_dir, name_space, why);
	struct names names = {0};
	struct ahp_observation seen;
	int error, lock;
	bool there;

	if (dir < 0)
		return dir;
	error = list_names(dir, &names, why);
	/* Without agents there may still be the lock of one that was killed. */
	if (!error && !names.count)
		ahp__names_unlock(dir, ahp__names_lock(dir, NULL));
	for (size_t i = 0; !error && i < names.count; i++) {
		lock = ahp__names_lock(dir, why);
		if (lock < 0) {
			error = lock;
			break;
		}
		there = observe_one(dir, names.id[i], &seen);
		ahp__names_unlock(dir, lock);
		if (there)
			visit(arg, &seen);
	}
	free(names.id);
	close(dir);
	return error;
}
