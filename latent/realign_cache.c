/* SPDX-License-Identifier: Apache-2.0 */
/* The realignment cache: one matrix a file, as torch.save() writes it. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "latent/realign_pickle.h"
#include "latent/realign_zip.h"

#define HASH_DIGITS 64
#define SUFFIX	    ".tmp"
#define OPEN_TRIES  16

/* What torch writes today; its reader takes 1 to 10. */
#define ARCHIVE_VERSION "3\n"

static int failed(const char *path, struct avp_reason *why)
{
	const int e = errno;
	char text[64];

	return avp__fail(why,
			 e == EACCES || e == EPERM ? AVP_PERMISSION : AVP_IO,
			 "%s: %s", path, strerror_r(e, text, sizeof(text)));
}

static int is_hash(struct avp_str s)
{
	if (s.len != HASH_DIGITS)
		return 0;
	for (size_t i = 0; i < s.len; i++)
		if (!isxdigit((unsigned char)s.data[i]))
			return 0;
	return 1;
}

int avp_realign_cache_path(char *path, size_t capacity, const char *dir,
			   struct avp_str model_hash, struct avp_reason *why)
{
	const char *home = dir ? NULL : getenv("HOME");
	int n;

	if (!is_hash(model_hash))
		return avp__fail(why, AVP_USAGE,
				 "a model_hash of %zu characters; 64 "
				 "hexadecimal digits name a cache file",
				 model_hash.len);
	if (dir)
		n = snprintf(path, capacity, "%s%s%.*s.pt", dir,
			     *dir ? "/" : "", HASH_DIGITS, model_hash.data);
	else if (home && *home)
		n = snprintf(path, capacity, "%s/.avp/realign/%.*s.pt", home,
			     HASH_DIGITS, model_hash.data);
	else
		return avp__fail(why, AVP_USAGE,
				 "HOME is not set; name the cache directory");
	if (n < 0 || (size_t)n >= capacity)
		return avp__fail(why, AVP_TOO_LARGE,
				 "the path has %d bytes, there is room for %zu",
				 n, capacity);
	return 0;
}

/* ---- writing ------------------------------------------------------------ */

/* Makes every directory that path goes through. */
static int make_parents(const char *path, struct avp_reason *why)
{
	char *copy = strdup(path);
	int err = 0;

	if (!copy)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	for (char *slash = strchr(copy + 1, '/'); slash && !err;
	     slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(copy, 0700) && errno != EEXIST)
			err = failed(copy, why);
		*slash = '/';
	}
	free(copy);
	return err;
}

static int write_archive(int fd, const float *w, uint32_t dim,
			 float target_norm)
{
	struct avp__zip_writer z = {.fd = fd};
	uint8_t pickle[AVP__PICKLE_BYTES];
	const size_t len = avp__pickle_write(pickle, dim);
	int err;

	if ((err = avp__zip_add(&z, "archive/data.pkl", pickle,
				(uint32_t)len)) ||
	    (err = avp__zip_add(&z, "archive/byteorder", "little", 6)) ||
	    (err = avp__zip_add(&z, "archive/data/0", w,
				dim * dim * (uint32_t)sizeof(*w))) ||
	    (err = avp__zip_add(&z, "archive/data/1", &target_norm,
				sizeof(target_norm))) ||
	    (err = avp__zip_add(&z, "archive/version", ARCHIVE_VERSION, 2)) ||
	    (err = avp__zip_finish(&z)))
		return err;
	return fsync(fd) ? AVP_IO : 0;
}

/* The rename is on disk only when its directory is. */
static int sync_parent(const char *path, struct avp_reason *why)
{
	const char *slash = strrchr(path, '/');
	char *dir = strndup(path, slash ? (size_t)(slash - path) + 1 : 0);
	int fd, err = 0;

	if (!dir)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	fd = open(*dir ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(dir);
	if (fd < 0 || fsync(fd))
		err = failed(path, why);
	if (fd >= 0)
		close(fd);
	return err;
}

/*
 * The file beside `path` that is being written is held by a flock, so whoever
 * gets the lock of one knows that its writer was killed: there is no guess by
 * process numbers, which other pid namespaces count for themselves.
 */
static void remove_left(int dir, const char *name)
{
	int fd = openat(dir, name,
			O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
	    !flock(fd, LOCK_EX | LOCK_NB))
		unlinkat(dir, name, 0);
	close(fd);
}

/* Removes what killed writers of this file have left beside it. */
static void sweep(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	const size_t n = strlen(base), suffix = sizeof(SUFFIX) - 1;
	char *parent = strndup(path, (size_t)(base - path));
	DIR *dir = parent ? opendir(*parent ? parent : ".") : NULL;
	const struct dirent *entry;

	free(parent);
	while (dir && (entry = readdir(dir))) {
		const char *name = entry->d_name;
		const size_t len = strlen(name);

		if (len > n + 1 + suffix && !strncmp(name, base, n) &&
		    name[n] == '.' && !strcmp(name + len - suffix, SUFFIX))
			remove_left(dirfd(dir), name);
	}
	if (dir)
		closedir(dir);
}

/*
 * Makes and locks it, under a name of its own: threads and processes that write
 * one model's file do not meet. Negative, with errno, if there is none.
 */
static int open_beside(const char *path, char **temporary)
{
	struct stat st;
	int fd;

	for (int i = 0; i < OPEN_TRIES; i++) {
		if (asprintf(temporary, "%s.XXXXXX" SUFFIX, path) < 0) {
			*temporary = NULL;
			return -1;
		}
		fd = mkostemps(*temporary, sizeof(SUFFIX) - 1, O_CLOEXEC);
		/* A file system without locks has no sweepers either. */
		if (fd < 0 ||
		    ((!flock(fd, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK) &&
		     !fstat(fd, &st) && st.st_nlink))
			return fd;
		/* Swept before it was locked. */
		close(fd);
		free(*temporary);
		*temporary = NULL;
	}
	errno = EBUSY;
	return -1;
}

int avp_realign_cache_write(const char *path, const float *w, uint32_t dim,
			    float target_norm, struct avp_reason *why)
{
	char *temporary;
	int fd, err;

	if (!dim || dim > AVP_REALIGN_DIM)
		return avp__fail(why, AVP_TOO_LARGE,
				 "a matrix %u wide; 1 to %u are handled", dim,
				 AVP_REALIGN_DIM);
	err = make_parents(path, why);
	if (err)
		return err;
	sweep(path);
	fd = open_beside(path, &temporary);
	if (fd < 0) {
		err = failed(path, why);
	} else {
		/* Renamed while it is locked. */
		if (write_archive(fd, w, dim, target_norm) ||
		    rename(temporary, path)) {
			err = failed(path, why);
			unlink(temporary);
		}
		close(fd);
	}
	free(temporary);
	return err ? err : sync_parent(path, why);
}

/* ---- reading ------------------------------------------------------------ */

static int damaged(struct avp_reason *why, const char *what)
{
	return avp__fail(why, AVP_DESERIALIZATION_ERROR,
			 "%s; delete the file and it is computed anew", what);
}

/* "archive/" of the member "archive/data.pkl". */
static int find_pickle(const struct avp__zip *z, struct avp__zip_member *m,
		       struct avp_str *prefix, struct avp_reason *why)
{
	static const char name[] = "/data.pkl";
	const size_t n = sizeof(name) - 1;
	size_t at = 0;
	int got;

	while ((got = avp__zip_next(z, &at, m, why)) == 1)
		if (m->name.len > n &&
		    !memcmp(m->name.data + m->name.len - n, name, n)) {
			*prefix = m->name;
			prefix->len -= n - 1;
			return 0;
		}
	return got ? got : damaged(why, "the archive has no data.pkl");
}

static int check_byteorder(const struct avp__zip *z, struct avp_str prefix,
			   struct avp_reason *why)
{
	struct avp__zip_member m;
	char order[6];
	int got = avp__zip_find(z, prefix, "byteorder", &m, why);

	if (got <= 0)
		return got;
	if (m.bytes != sizeof(order))
		return damaged(why, "its byte order is not little");
	got = avp__zip_read(z, &m, order, why);
	if (got)
		return got;
	return memcmp(order, "little", sizeof(order))
		       ? damaged(why, "its byte order is not little")
		       : 0;
}

/* The member that holds a tensor's storage, of exactly its size. */
static int find_storage(const struct avp__zip *z, struct avp_str prefix,
			const struct avp__pickled_tensor *t,
			struct avp__zip_member *m, struct avp_reason *why)
{
	char rest[32];
	int got;

	snprintf(rest, sizeof(rest), "data/%s", t->key);
	got = avp__zip_find(z, prefix, rest, m, why);
	if (got < 0)
		return got;
	if (!got)
		return damaged(why, "a tensor's storage is missing");
	if (m->bytes != t->elements * avp_dtype_size(t->dtype))
		return damaged(why, "a storage has another size than it says");
	if (m->bytes > z->bytes)
		return damaged(why, "a storage is larger than the file");
	return 0;
}

/* Reads a tensor as contiguous float32, of rows x columns. */
static int read_tensor(const struct avp__zip *z, struct avp_str prefix,
		       const struct avp__pickled_tensor *t, uint64_t rows,
		       uint64_t columns, float *to, struct avp_reason *why)
{
	const int64_t item = (int64_t)avp_dtype_size(t->dtype);
	const uint64_t shape[] = {rows, columns};
	struct avp__zip_member m;
	struct avp_tensor from, out;
	char *storage;
	int err = find_storage(z, prefix, t, &m, why);

	if (err)
		return err;
	avp_tensor_init(&out, to, AVP_FLOAT32, 2, shape);
	if (t->dtype == AVP_FLOAT32 && t->elements == rows * columns &&
	    (t->rank < 2 || (t->stride[1] == 1 && t->stride[0] == columns)))
		return avp__zip_read(z, &m, to, why);
	storage = malloc(m.bytes);
	if (!storage)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	err = avp__zip_read(z, &m, storage, why);
	from = out;
	from.dtype = t->dtype;
	from.data = storage + (int64_t)t->offset * item;
	from.stride[0] = (int64_t)t->stride[0] * item;
	from.stride[1] = (int64_t)t->stride[1] * item;
	if (!err)
		err = avp_tensor_copy(&out, &from, why);
	free(storage);
	return err;
}

static int read_pickle(const struct avp__zip *z, struct avp_str *prefix,
		       struct avp__pickled_matrix *p, struct avp_reason *why)
{
	uint8_t pickle[AVP__PICKLE_BYTES];
	struct avp__zip_member m;
	int err = find_pickle(z, &m, prefix, why);

	if (err)
		return err;
	if (m.bytes > sizeof(pickle))
		return damaged(why, "data.pkl is far too long");
	if ((err = avp__zip_read(z, &m, pickle, why)) ||
	    (err = avp__pickle_read(pickle, m.bytes, p, why)) ||
	    (err = check_byteorder(z, *prefix, why)))
		return err;
	if (p->w.shape[0] > AVP_REALIGN_DIM)
		return avp__fail(
			why, AVP_TOO_LARGE,
			"w_realign is %llu wide; at most %u is handled",
			(unsigned long long)p->w.shape[0], AVP_REALIGN_DIM);
	return 0;
}

static int read_matrix(const struct avp__zip *z, struct avp_realign_matrix *m,
		       struct avp_reason *why)
{
	struct avp_realign_matrix made = {0};
	struct avp__pickled_matrix p;
	struct avp__zip_member storage;
	struct avp_str prefix = {0};
	int err = read_pickle(z, &prefix, &p, why);

	/* The storage is seen to be in the file before W is allocated. */
	if (err || (err = find_storage(z, prefix, &p.w, &storage, why)))
		return err;
	made.dim = (uint32_t)p.w.shape[0];
	made.target_norm = (float)p.norm_number;
	made.w = malloc((size_t)made.dim * made.dim * sizeof(float));
	if (!made.w)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for W");
	err = read_tensor(z, prefix, &p.w, made.dim, made.dim, made.w, why);
	if (!err && p.norm_is_tensor)
		err = read_tensor(z, prefix, &p.norm, 1, 1, &made.target_norm,
				  why);
	if (!err && !(made.target_norm > 0 && isfinite(made.target_norm)))
		err = damaged(why, "target_norm is not a length above 0");
	if (err)
		avp_realign_matrix_fini(&made);
	else
		*m = made;
	return err;
}

int avp_realign_cache_read(const char *path, struct avp_realign_matrix *m,
			   struct avp_reason *why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err;
	struct avp__zip z;

	if (fd < 0 && errno == ENOENT)
		return AVP_AGAIN;
	if (fd < 0)
		return failed(path, why);
	err = avp__zip_open(&z, fd, why);
	if (!err) {
		err = read_matrix(&z, m, why);
		avp__zip_close(&z);
	}
	close(fd);
	return err;
}

void avp_realign_matrix_fini(struct avp_realign_matrix *m)
{
	free(m->w);
	*m = (struct avp_realign_matrix){0};
}
