/* SPDX-License-Identifier: Apache-2.0 */
/* The .pt cache: the vector that torch wrote, our own, and damaged ones. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <avp/latent.h>

#include "latent/realign_pickle.h"
#include "tests/harness.h"
#include "tests/vectors.h"

static const char hash[] =
	"4f14a90cd91a8f439955856559b708c661c07e60d23ad995068c8da6d132f1fd";

static char *path_of(const char *name)
{
	char *path;

	CU_ASSERT_FATAL(asprintf(&path, "%s/%s", test_dir(), name) > 0);
	return path;
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "we");

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_EQUAL(fwrite(data, 1, len, f), len);
	CU_ASSERT_EQUAL(fclose(f), 0);
}

static struct bytes read_file(const char *path)
{
	struct bytes b = {malloc(1 << 20), 0};
	FILE *f = fopen(path, "re");

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	b.len = fread(b.data, 1, 1 << 20, f);
	fclose(f);
	return b;
}

static void vectors_realign_cache(void)
{
	for (const struct avp_json *c = vectors_first("realign_cache"); c;
	     c = avp_json_next(c)) {
		struct bytes b = vectors_file(case_str(c, "file"));
		char *path = path_of("torch.pt");
		struct avp_realign_matrix m;

		write_file(path, b.data, b.len);
		if (CASE(c, !avp_realign_cache_read(path, &m, NULL))) {
			CASE(c, m.dim == 4);
			CASE(c, m.target_norm == 2.0f);
			for (uint32_t i = 0; i < 16; i++)
				CASE(c, m.w[i] == (i % 5 ? 0.0f : 1.0f));
			avp_realign_matrix_fini(&m);
		}
		unlink(path);
		free(path);
		bytes_free(&b);
	}
	VECTORS("realign_cache", 1);
}

static void there_and_back(void)
{
	enum { DIM = 37 };
	char path[4096];
	char *dir = path_of("a/b");
	float w[DIM * DIM];
	struct avp_realign_matrix m;
	struct stat st;

	for (int i = 0; i < DIM * DIM; i++)
		w[i] = (float)i * 0.25f;
	CU_ASSERT_EQUAL(avp_realign_cache_path(path, sizeof(path), dir,
					       avp_str_of(hash), NULL),
			0);
	CU_ASSERT_EQUAL(avp_realign_cache_read(path, &m, NULL), AVP_AGAIN);
	CU_ASSERT_EQUAL(avp_realign_cache_write(path, w, DIM, 0.125f, NULL), 0);
	CU_ASSERT_EQUAL(stat(path, &st), 0);
	CU_ASSERT_EQUAL(st.st_mode & 0777, 0600);
	/* Written again, over the first. */
	CU_ASSERT_EQUAL(avp_realign_cache_write(path, w, DIM, 0.5f, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(avp_realign_cache_read(path, &m, NULL), 0);
	CU_ASSERT_EQUAL(m.dim, DIM);
	CU_ASSERT_EQUAL(m.target_norm, 0.5f);
	CU_ASSERT_EQUAL(memcmp(m.w, w, sizeof(w)), 0);
	avp_realign_matrix_fini(&m);
	free(dir);
}

/* ---- killed writers ----------------------------------------------------- */

static int files_in(const char *dir)
{
	struct dirent *entry;
	DIR *d = opendir(dir);
	int count = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(d);
	while ((entry = readdir(d)))
		count += *entry->d_name != '.';
	closedir(d);
	return count;
}

/*
 * What a killed writer left is removed, what one that lives is writing is not,
 * nor what has another name or is no file.
 */
static void left_by_the_killed(void)
{
	static const char *const others[] = {"x.ptt.abcdef.tmp",
					     "y.x.pt.abcdef.tmp",
					     "x.pt.abcdef.tm", "x.pt.tmp"};
	const float w[4] = {1, 2, 3, 4};
	char *dir = path_of("left"), *x = path_of("left/x.pt");
	char *live = path_of("left/x.pt.livelv.tmp");
	char *link = path_of("left/x.pt.linkln.tmp");
	char *fifo = path_of("left/x.pt.fifofi.tmp"), *other;
	int fd;

	CU_ASSERT_EQUAL(mkdir(dir, 0700), 0);
	for (int i = 0; i < 4; i++) {
		CU_ASSERT_FATAL(asprintf(&other, "%s/%s", dir, others[i]) > 0);
		write_file(other, "x", 1);
		free(other);
	}
	write_file(live, "x", 1);
	CU_ASSERT_EQUAL(symlink("x.pt", link), 0);
	CU_ASSERT_EQUAL(mkfifo(fifo, 0600), 0);
	fd = open(live, O_WRONLY | O_CLOEXEC);
	CU_ASSERT_EQUAL(flock(fd, LOCK_EX | LOCK_NB), 0);
	CU_ASSERT_EQUAL(avp_realign_cache_write(x, w, 2, 1, NULL), 0);
	CU_ASSERT_EQUAL(files_in(dir), 4 + 3 + 1);
	/* Its writer is killed: the lock goes with it. */
	close(fd);
	CU_ASSERT_EQUAL(avp_realign_cache_write(x, w, 2, 1, NULL), 0);
	CU_ASSERT_EQUAL(files_in(dir), 4 + 2 + 1);
	CU_ASSERT_EQUAL(access(live, F_OK), -1);
	free(dir), free(x), free(live), free(link), free(fifo);
}

enum { WRITERS = 4, WRITES = 25 };

static void *write_often(void *path)
{
	const float w[4] = {1, 2, 3, 4};
	intptr_t failed = 0;

	for (int i = 0; i < WRITES; i++)
		failed += avp_realign_cache_write(path, w, 2, 1, NULL) != 0;
	return (void *)failed;
}

/* Writers of one file do not sweep each other's away. */
static void many_writers(void)
{
	char *dir = path_of("many"), *x = path_of("many/x.pt");
	struct avp_realign_matrix m;
	pthread_t thread[WRITERS];
	void *failed;

	for (int i = 0; i < WRITERS; i++)
		CU_ASSERT_EQUAL_FATAL(
			pthread_create(&thread[i], NULL, write_often, x), 0);
	for (int i = 0; i < WRITERS; i++) {
		pthread_join(thread[i], &failed);
		CU_ASSERT_PTR_NULL(failed);
	}
	CU_ASSERT_EQUAL(files_in(dir), 1);
	CU_ASSERT_EQUAL(avp_realign_cache_read(x, &m, NULL), 0);
	avp_realign_matrix_fini(&m);
	free(dir), free(x);
}

static void names_of_files(void)
{
	char path[200];
	const char *const bad[] = {"", "../../etc/passwd", "4f14", NULL};
	struct avp_str upper = avp_str_of(hash);

	for (int i = 0; bad[i]; i++)
		CU_ASSERT_EQUAL(avp_realign_cache_path(path, sizeof(path), "d",
						       avp_str_of(bad[i]),
						       NULL),
				AVP_USAGE);
	CU_ASSERT_EQUAL(avp_realign_cache_path(path, 40, "d", upper, NULL),
			AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(
		avp_realign_cache_path(path, sizeof(path), "d", upper, NULL),
		0);
	CU_ASSERT_EQUAL(strncmp(path, "d/4f14", 6), 0);
	CU_ASSERT_STRING_EQUAL(path + 66, ".pt");
}

static int read_bytes(const uint8_t *data, size_t len)
{
	char *path = path_of("some.pt");
	struct avp_realign_matrix m;
	struct avp_reason why = {0};
	int code;

	write_file(path, data, len);
	code = avp_realign_cache_read(path, &m, &why);
	if (!code)
		avp_realign_matrix_fini(&m);
	else
		CU_ASSERT(strlen(why.text) > 10);
	unlink(path);
	free(path);
	return code;
}

/* Every prefix, and every byte changed: refused, or the same numbers. */
static void damage_is_refused(void)
{
	char *path = path_of("whole.pt");
	const float w[4] = {1, 2, 3, 4};
	struct bytes b;
	size_t accepted = 0;
	uint8_t *at;

	CU_ASSERT_EQUAL(avp_realign_cache_write(path, w, 2, 1.0f, NULL), 0);
	b = read_file(path);
	for (size_t n = 0; n < b.len; n++)
		CU_ASSERT_EQUAL(read_bytes(b.data, n),
				AVP_DESERIALIZATION_ERROR);
	for (size_t i = 0; i < b.len; i++) {
		b.data[i] ^= 0x41;
		accepted += read_bytes(b.data, b.len) == 0;
		b.data[i] ^= 0x41;
	}
	/* Padding and fields that nobody reads may change; the numbers not. */
	CU_ASSERT(accepted < b.len * 3 / 4);
	at = memmem(b.data, b.len, w, sizeof(w));
	CU_ASSERT_PTR_NOT_NULL_FATAL(at);
	for (size_t i = 0; i < sizeof(w); i++) {
		at[i] ^= 1;
		CU_ASSERT_EQUAL(read_bytes(b.data, b.len),
				AVP_DESERIALIZATION_ERROR);
		at[i] ^= 1;
	}
	CU_ASSERT_EQUAL(read_bytes(b.data, b.len), 0);
	bytes_free(&b);
	unlink(path);
	free(path);
}

/* ---- pickles ------------------------------------------------------------ */

static int read_pickle(const uint8_t *bytes, size_t len,
		       struct avp__pickled_matrix *m)
{
	/* A copy of exactly its size: a sanitizer sees each byte too many. */
	uint8_t *copy = malloc(len ? len : 1);
	int code;

	memcpy(copy, bytes, len);
	code = avp__pickle_read(copy, len, m, NULL);
	free(copy);
	return code;
}

static void pickles_that_are_refused(void)
{
	static const struct {
		const char *what, *bytes;
		size_t len;
	} bad[] = {
#define P(what, bytes) {what, bytes, sizeof(bytes) - 1}
		P("empty", ""),
		P("protocol 4", "\x80\x04}."),
		P("system", "\x80\x02"
			    "cos\nsystem\n(X\x02\0\0\0idtR."),
		P("builtins", "\x80\x02"
			      "c__builtin__\neval\n."),
		P("empty dictionary", "\x80\x02}."),
		P("another key", "\x80\x02}(X\x01\0\0\0aK\x01u."),
		P("a long string", "\x80\x02}(X\xff\xff\xff\xff"
				   "a"),
		P("stack underflow", "\x80\x02tR."),
		P("mark underflow", "\x80\x02}(u(u\x86."),
		P("unknown memo", "\x80\x02}h\x05."),
		P("reduce a number", "\x80\x02}K\x01)R."),
		P("no stop", "\x80\x02}"),
		P("persistent id of a number", "\x80\x02}K\x01Q."),
#undef P
	};
	struct avp__pickled_matrix m;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT_EQUAL(read_pickle((const uint8_t *)bad[i].bytes,
					    bad[i].len, &m),
				AVP_DESERIALIZATION_ERROR);
}

/* The number that follows the n-th BININT of our own pickle, replaced. */
static void set_number(uint8_t *pickle, size_t len, int n, uint32_t x)
{
	for (size_t i = 2; i < len; i++) {
		if (pickle[i] == 'X')
			i += 4 + pickle[i + 1];
		else if (pickle[i] == 'c')
			for (int line = 0; line < 2; line += pickle[i] == '\n')
				i++;
		else if (pickle[i] == 'J' && n-- == 0)
			memcpy(pickle + i + 1, &x, 4);
		else if (pickle[i] == 'J')
			i += 4;
	}
}

/* Elements of W's storage, offset, two sizes, two strides; then the norm's. */
static void tensors_outside_their_storage(void)
{
	static const struct {
		int number;
		uint32_t value;
	} lies[] = {{0, 15}, {0, 0xffffffff}, {1, 1}, {2, 5},
		    {2, 0},  {3, 0x7fffffff}, {4, 5}, {4, 0x80000000},
		    {5, 2},  {6, 0},	      {7, 1}};
	uint8_t pickle[AVP__PICKLE_BYTES];
	struct avp__pickled_matrix m;
	size_t len = avp__pickle_write(pickle, 4);

	CU_ASSERT_EQUAL(read_pickle(pickle, len, &m), 0);
	CU_ASSERT_EQUAL(m.w.shape[1], 4);
	CU_ASSERT_EQUAL(m.w.elements, 16);
	CU_ASSERT_STRING_EQUAL(m.norm.key, "1");
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		avp__pickle_write(pickle, 4);
		set_number(pickle, len, lies[i].number, lies[i].value);
		CU_ASSERT_EQUAL(read_pickle(pickle, len, &m),
				AVP_DESERIALIZATION_ERROR);
	}
	/* Transposed is fine: that is how a solver leaves it. */
	avp__pickle_write(pickle, 4);
	set_number(pickle, len, 4, 1);
	set_number(pickle, len, 5, 4);
	CU_ASSERT_EQUAL(read_pickle(pickle, len, &m), 0);
	CU_ASSERT_EQUAL(m.w.stride[1], 4);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(vectors_realign_cache),
		TEST(there_and_back),
		TEST(left_by_the_killed),
		TEST(many_writers),
		TEST(names_of_files),
		TEST(damage_is_refused),
		TEST(pickles_that_are_refused),
		TEST(tensors_outside_their_storage),
		{0},
	};

	return test_main("realign_cache", tests);
}
