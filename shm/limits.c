/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limits that a growing memfd meets. At RLIMIT_FSIZE the kernel sends
 * SIGXFSZ, at a cgroup's memory limit and at the end of the machine's memory it
 * kills: an answer can only be had by looking first.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "shm/shm_internal.h"

/* Where the memory controller of one cgroup version shows itself. */
struct version {
	const char *fstype;   /* in mountinfo */
	const char *limit;    /* the file with the limit ... */
	const char *usage;    /* ... with what is charged ... */
	const char *active;   /* ... and, in memory.stat, the file pages, */
	const char *inactive; /* which are given up before anyone is killed */
};

static const struct version v1 = {
	"cgroup",
	"memory.limit_in_bytes",
	"memory.usage_in_bytes",
	"total_active_file ",
	"total_inactive_file ",
};
static const struct version v2 = {
	"cgroup2",	"memory.max",	  "memory.current",
	"active_file ", "inactive_file ",
};

/* ---- small files of the kernel ------------------------------------------ */

/* The number in a one-line file; "max" and what cannot be read: UINT64_MAX. */
static uint64_t read_number(const char *dir, const char *name)
{
	char path[PATH_MAX], text[64], *end;
	uint64_t value = UINT64_MAX;
	FILE *file;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >=
	    (int)sizeof(path))
		return value;
	file = fopen(path, "re");
	if (!file)
		return value;
	if (fgets(text, sizeof(text), file)) {
		unsigned long long v = strtoull(text, &end, 10);

		if (end != text)
			value = v;
	}
	fclose(file);
	return value;
}

/* The number behind key at the start of a line; missing if there is none. */
static uint64_t read_key(const char *path, const char *key, uint64_t missing)
{
	size_t length = strlen(key), room = 0;
	uint64_t value = missing;
	FILE *file = fopen(path, "re");
	char *line = NULL;

	if (!file)
		return missing;
	while (value == missing && getline(&line, &room, file) > 0)
		if (!strncmp(line, key, length))
			value = strtoull(line + length, NULL, 10);
	free(line);
	fclose(file);
	return value;
}

/* ---- cgroups ------------------------------------------------------------ */

/* Whether list, "a,b,c", has word in it. */
static bool has_word(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p += length)
		if ((p == list || p[-1] == ',') &&
		    (!p[length] || p[length] == ',' || p[length] == '\n'))
			return true;
	return false;
}

/*
 * The cgroup of this process whose memory is counted: a line of
 * /proc/self/cgroup, "4:memory:/path" (version 1) or "0::/path". A memory
 * controller of version 1 takes memory away from version 2.
 */
static const struct version *own_cgroup(char *path, size_t size)
{
	const struct version *version = NULL;
	FILE *file = fopen("/proc/self/cgroup", "re");
	char *line = NULL;
	size_t room = 0;

	if (!file)
		return NULL;
	while (version != &v1 && getline(&line, &room, file) > 0) {
		char *list = strchr(line, ':');
		char *where = list ? strchr(list + 1, ':') : NULL;

		if (!where)
			continue;
		*where++ = 0;
		where[strcspn(where, "\n")] = 0;
		if (has_word(list + 1, "memory"))
			version = &v1;
		else if (!list[1])
			version = &v2;
		else
			continue;
		if (snprintf(path, size, "%s", where) >= (int)size)
			version = NULL;
	}
	free(line);
	fclose(file);
	return version;
}

/*
 * One line of mountinfo, "id parent dev ROOT MOUNTPOINT options... - TYPE
 * source SUPEROPTIONS": if it is the mount that shows our cgroup, makes path
 * the cgroup's directory and top the length of its mount point.
 */
static bool is_mount(char *line, const struct version *version, char *path,
		     size_t size, size_t *top)
{
	char root[PATH_MAX], point[PATH_MAX], type[32], super[1024] = "";
	char *tail = strstr(line, " - "), *below = path;
	char whole[PATH_MAX];
	int length;

	if (!tail ||
	    sscanf(line, "%*s %*s %*s %4095s %4095s", root, point) != 2)
		return false;
	if (sscanf(tail + 3, "%31s %*s %1023s", type, super) < 1 ||
	    strcmp(type, version->fstype) ||
	    (version == &v1 && !has_word(super, "memory")))
		return false;
	/* In a container the mount's root is our cgroup or above it. */
	if (strcmp(root, "/")) {
		size_t n = strlen(root);

		below = !strncmp(path, root, n) && (path[n] == '/' || !path[n])
				? path + n
				: path + strlen(path);
	}
	/* "/.." shows a cgroup outside our namespace: only the root is seen. */
	if (strstr(below, "/.."))
		below = path + strlen(path);
	length = snprintf(whole, sizeof(whole), "%s%s", point,
			  strcmp(below, "/") ? below : "");
	if (length < 0 || (size_t)length >= sizeof(whole) ||
	    (size_t)length >= size)
		return false;
	memcpy(path, whole, (size_t)length + 1);
	*top = strlen(point);
	return true;
}

static bool find_directory(const struct version *version, char *path,
			   size_t size, size_t *top)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	if (!file)
		return false;
	while (!found && getline(&line, &room, file) > 0)
		found = is_mount(line, version, path, size, top);
	free(line);
	fclose(file);
	return found;
}

/* What dir, one cgroup, leaves; keeps it in limits if it is the least. */
static void look_at(const char *dir, const struct version *version,
		    struct avp_limits *limits)
{
	uint64_t limit = read_number(dir, version->limit);
	uint64_t usage = read_number(dir, version->usage);
	uint64_t files, room;
	char stat[PATH_MAX];

	/* Version 1 writes "none" as the largest number of pages. */
	if (limit > INT64_MAX / 2 || usage == UINT64_MAX ||
	    snprintf(stat, sizeof(stat), "%s/memory.stat", dir) >=
		    (int)sizeof(stat))
		return;
	/* tmpfs pages are on the anonymous lists: these are real files'. */
	files = read_key(stat, version->active, 0) +
		read_key(stat, version->inactive, 0);
	usage = usage > files ? usage - files : 0;
	room = limit > usage ? limit - usage : 0;
	if (room >= limits->cgroup_room)
		return;
	limits->cgroup_room = room;
	limits->cgroup_bytes = limit;
	snprintf(limits->cgroup_file, sizeof(limits->cgroup_file), "%.200s/%s",
		 dir, version->limit);
}

static void read_cgroup(struct avp_limits *limits)
{
	char path[PATH_MAX];
	const struct version *version = own_cgroup(path, sizeof(path));
	size_t top;

	if (!version || !find_directory(version, path, sizeof(path), &top))
		return;
	for (;;) {
		char *slash;

		look_at(path, version, limits);
		slash = strrchr(path, '/');
		if (!slash || (size_t)(slash - path) < top)
			return;
		*slash = 0;
	}
}

/* ---- all of them -------------------------------------------------------- */

static uint64_t limit_of(int resource)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	return limit.rlim_cur;
}

static uint64_t kib(uint64_t value)
{
	return value > UINT64_MAX / 1024 ? UINT64_MAX : value * 1024;
}

void avp_limits_read(struct avp_limits *limits)
{
	memset(limits, 0, sizeof(*limits));
	limits->file_bytes = limit_of(RLIMIT_FSIZE);
	limits->address_bytes = limit_of(RLIMIT_AS);
	limits->address_used = kib(read_key("/proc/self/status", "VmSize:", 0));
	limits->locked_bytes = limit_of(RLIMIT_MEMLOCK);
	limits->locked_used = kib(read_key("/proc/self/status", "VmLck:", 0));
	limits->available_bytes =
		kib(read_key("/proc/meminfo", "MemAvailable:", UINT64_MAX));
	limits->cgroup_bytes = limits->cgroup_room = UINT64_MAX;
	read_cgroup(limits);
}

/*
 * What a segment takes beside its pages: page tables and the file's index,
 * charges that the kernel makes in batches for each CPU, and the small pages
 * that exist until they are collapsed into a huge one.
 */
static uint64_t with_margin(uint64_t bytes)
{
	return bytes + bytes / 128 + AVP__HUGE_BYTES;
}

/* The last characters of a path, which tell more than the first. */
static const char *end_of(const char *path, size_t most)
{
	size_t length = strlen(path);

	return length > most ? path + length - most : path;
}

int avp__limits_check(uint64_t bytes, struct avp_reason *why)
{
	struct avp_limits l;
	uint64_t mapped = bytes + AVP__HUGE_BYTES; /* to align it */

	avp_limits_read(&l);
	if (bytes > l.file_bytes)
		return avp__fail(why, AVP_NO_MEMORY,
				 "a segment of %" PRIu64 " bytes is over "
				 "RLIMIT_FSIZE %" PRIu64 "; raise ulimit -f",
				 bytes, l.file_bytes);
	if (l.address_bytes != UINT64_MAX &&
	    (l.address_used > l.address_bytes ||
	     mapped > l.address_bytes - l.address_used))
		return avp__fail(why, AVP_NO_MEMORY,
				 "a segment of %" PRIu64 " bytes is over "
				 "RLIMIT_AS %" PRIu64 ", of which %" PRIu64
				 " are used; raise ulimit -v",
				 bytes, l.address_bytes, l.address_used);
	if (with_margin(bytes) > l.cgroup_room)
		return avp__fail(why, AVP_NO_MEMORY,
				 "a segment of %" PRIu64 " bytes does not fit "
				 "the %" PRIu64 " left of %" PRIu64 " in %s; "
				 "raise it or lower the quota",
				 bytes, l.cgroup_room, l.cgroup_bytes,
				 end_of(l.cgroup_file, 96));
	if (with_margin(bytes) > l.available_bytes)
		return avp__fail(why, AVP_NO_MEMORY,
				 "a segment of %" PRIu64 " bytes does not fit "
				 "the %" PRIu64
				 " available (MemAvailable); free "
				 "memory or lower the quota",
				 bytes, l.available_bytes);
	return AVP_OK;
}

int avp__limits_check_lock(uint64_t bytes, struct avp_reason *why)
{
	struct avp_limits l;

	avp_limits_read(&l);
	if (l.locked_bytes == UINT64_MAX ||
	    (l.locked_used <= l.locked_bytes &&
	     bytes <= l.locked_bytes - l.locked_used))
		return AVP_OK;
	return avp__fail(why, AVP_NO_MEMORY,
			 "locking %" PRIu64 " bytes is over RLIMIT_MEMLOCK "
			 "%" PRIu64 ", of which %" PRIu64 " are used; raise "
			 "ulimit -l",
			 bytes, l.locked_bytes, l.locked_used);
}
