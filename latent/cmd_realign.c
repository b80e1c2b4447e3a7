/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl realign compute | apply. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <avp/latent.h>

#include "gateway/cmd.h"
#include "shm/reason.h"

static const char usage[] =
	"usage: avpctl realign compute --e-in E_IN.f32 --e-out E_OUT.f32\n"
	"                    --vocab V --dim D [--lambda 1e-5] -o W.f32\n"
	"       avpctl realign compute --model DIR [--cache DIR] "
	"[--lambda 1e-5]\n"
	"                    [-o W.f32]\n"
	"       avpctl realign apply --matrix W.f32 --target-norm X --in "
	"H.f32\n"
	"                    --dim D -o OUT.f32\n"
	"\n"
	"Files are raw little-endian float32, row-major; y = x W, scaled to "
	"the\n"
	"target norm. A model's matrix is kept in --cache, by default\n"
	"~/.avp/realign, in a file that torch.load() reads.\n";

/* Silent for the first second, then a line a second. */
struct progress {
	double start, next;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void show_progress(void *user, double done)
{
	struct progress *p = user;
	const double t = now();

	if (t < p->next)
		return;
	fprintf(stderr, "avpctl: realign compute: %3.0f %% after %.0f s\n",
		100 * done, t - p->start);
	p->next = t + 1;
}

/* ---- files of float32 ------------------------------------------------------ */

struct floats {
	void *map; /* NULL: an empty file */
	size_t bytes;
	struct avp_tensor t; /* [rows][columns] */
};

static void floats_close(struct floats *f)
{
	if (f->map)
		munmap(f->map, f->bytes);
}

static int failed(const char *path, struct avp_reason *why)
{
	const int e = errno;

	return avp__fail(why,
			 e == EACCES || e == EPERM ? AVP_PERMISSION : AVP_IO,
			 "%s: %s", path, strerror(e));
}

static int map_file(const char *path, struct floats *f, struct avp_reason *why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err = 0;
	struct stat st;

	if (fd < 0)
		return failed(path, why);
	if (fstat(fd, &st)) {
		err = failed(path, why);
	} else if (!S_ISREG(st.st_mode)) {
		err = avp__fail(why, AVP_IO, "%s: is not a file", path);
	} else if (st.st_size) {
		f->bytes = (size_t)st.st_size;
		f->map = mmap(NULL, f->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
		if (f->map == MAP_FAILED) {
			f->map = NULL;
			err = failed(path, why);
		}
	}
	close(fd);
	return err;
}

/* rows 0: as many as there are. */
static int floats_open(struct floats *f, const char *path, uint64_t rows,
		       uint64_t columns, struct avp_reason *why)
{
	uint64_t shape[2] = {rows, columns};
	int err;

	*f = (struct floats){0};
	err = map_file(path, f, why);
	if (err)
		return err;
	if (!rows)
		shape[0] = f->bytes / (columns * sizeof(float));
	/* Both are below 2^32: the product of them and 4 fits 66 bits. */
	if (shape[0] > UINT64_MAX / sizeof(float) / columns ||
	    shape[0] * columns * sizeof(float) != f->bytes) {
		err = avp__fail(why, AVP_SHAPE_MISMATCH,
				"%s: has %zu bytes, %llu x %llu float32 are "
				"asked for",
				path, f->bytes, (unsigned long long)shape[0],
				(unsigned long long)columns);
		floats_close(f);
		return err;
	}
	avp_tensor_init(&f->t, f->map, AVP_FLOAT32, 2, shape);
	return 0;
}

static int write_floats(const char *path, const float *x, uint64_t count,
			struct avp_reason *why)
{
	const struct cmd_piece piece = {x, count * sizeof(*x)};

	return cmd_file_write(path, &piece, 1, why);
}

/* ---- compute -------------------------------------------------------------- */

struct request {
	const char *e_in, *e_out, *model, *cache, *out, *matrix, *in;
	uint32_t vocab, dim;
	double lambda, target_norm;
};

struct answer {
	struct avp_realign_matrix m;
	double seconds;
	bool cached;
};

static int compute(const struct request *q, const struct avp_tensor *e_in,
		   const struct avp_tensor *e_out, struct answer *a,
		   struct avp_reason *why)
{
	struct progress p = {.start = now()};
	const struct avp_realign_options options = {
		.size = sizeof(options),
		.lambda = q->lambda,
		.progress = show_progress,
		.user = &p,
	};
	const size_t dim = e_in->shape[1];
	struct avp_realign_result r;
	int err;

	if (dim > AVP_REALIGN_DIM)
		return avp__fail(why, AVP_TOO_LARGE,
				 "dim %zu; at most %u is handled", dim,
				 AVP_REALIGN_DIM);
	p.next = p.start + 1;
	a->m.w = malloc(dim * dim * sizeof(float));
	if (!a->m.w)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for W");
	err = avp_realign_compute(e_in, e_out, &options, a->m.w, &r, why);
	if (err)
		return err;
	a->m.dim = (uint32_t)dim;
	a->m.target_norm = r.target_norm;
	a->seconds = now() - p.start;
	if (r.raised)
		fprintf(stderr,
			"avpctl: realign compute: warning: not positive "
			"definite; lambda raised to %g\n",
			r.lambda);
	return 0;
}

static int compute_files(const struct request *q, struct answer *a,
			 struct avp_reason *why)
{
	struct floats in, out;
	int err = floats_open(&in, q->e_in, q->vocab, q->dim, why);

	if (err)
		return err;
	err = floats_open(&out, q->e_out, q->vocab, q->dim, why);
	if (!err) {
		err = compute(q, &in.t, &out.t, a, why);
		floats_close(&out);
	}
	floats_close(&in);
	return err;
}

static int compute_weights(const struct request *q, struct answer *a,
			   struct avp_reason *why)
{
	struct avp_weights *w;
	struct avp_tensor in, out;
	int err = avp_weights_open(&w, q->model, why);

	if (err)
		return err;
	err = avp_weights_embeddings(w, &in, &out, why);
	if (err == 1)
		err = avp__fail(why, AVP_DESERIALIZATION_ERROR,
				"%s: has no lm_head, and its config does not "
				"say that the weights are tied",
				q->model);
	if (!err)
		err = compute(q, &in, &out, a, why);
	avp_weights_close(w);
	return err;
}

static int open_config(const char *dir, struct avp_config **c,
		       struct avp_reason *why)
{
	struct cmd_file file = {0};
	char *path;
	int err;

	if (asprintf(&path, "%s/config.json", dir) < 0)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	err = cmd_file_read(&file, path, AVP_CONFIG_BYTES + 1, why);
	if (!err)
		err = avp_config_open(c, file.data, file.len, why);
	cmd_file_fini(&file);
	free(path);
	return err;
}

static void warn(const char *path, const struct avp_reason *why)
{
	fprintf(stderr, "avpctl: realign compute: warning: %s: %s\n", path,
		why->text);
}

/*
 * From the cache, or computed and put there. A damaged file is written anew; a
 * cache that cannot be written does not make the answer wrong.
 */
static int compute_cached(const struct request *q, const char *path,
			  struct answer *a, struct avp_reason *why)
{
	const double start = now();
	int err = avp_realign_cache_read(path, &a->m, why);

	if (!err) {
		a->cached = true;
		a->seconds = now() - start;
		return 0;
	}
	if (err != AVP_AGAIN)
		warn(path, why);
	err = compute_weights(q, a, why);
	if (!err && avp_realign_cache_write(path, a->m.w, a->m.dim,
					    a->m.target_norm, why))
		warn(path, why);
	return err;
}

static int compute_model(const struct request *q, struct answer *a,
			 struct avp_reason *why)
{
	struct avp_config *c;
	char path[4096];
	int err = open_config(q->model, &c, why);

	if (err)
		return err;
	if (!avp_config_needs_realignment(c))
		err = avp__fail(why, AVP_INVALID_MESSAGE,
				"%s: its weights are tied; it needs no "
				"realignment but the soft embedding",
				q->model);
	if (!err)
		err = avp_realign_cache_path(path, sizeof(path), q->cache,
					     avp_config_identity(c)->model_hash,
					     why);
	/* The cache holds what the default lambda gives. */
	if (!err)
		err = q->lambda != 0 ? compute_weights(q, a, why)
				     : compute_cached(q, path, a, why);
	avp_config_close(c);
	return err;
}

static int print_answer(const struct answer *a, struct avp_reason *why)
{
	struct avp_buf out = {0};
	struct avp_json_writer w;
	int err;

	avp_json_begin(&w, &out, AVP_JSON_HTTP);
	avp_json_open_object(&w);
	avp_json_key(&w, "target_norm");
	avp_json_put_double(&w, (double)a->m.target_norm);
	avp_json_member_uint(&w, "dim", a->m.dim);
	avp_json_key(&w, "seconds");
	avp_json_put_double(&w, a->seconds);
	avp_json_member_bool(&w, "cached", a->cached);
	avp_json_close_object(&w);
	err = avp_json_finish(&w);
	if (!err)
		err = avp_buf_append(&out, "\n", 1);
	if (err)
		avp__fail(why, err, "cannot write the answer: %s",
			  avp_error_text(err));
	else
		err = cmd_print(&out, why);
	avp_buf_fini(&out);
	return err;
}

static int run_compute(const struct request *q, struct avp_reason *why)
{
	const bool files = q->e_in && q->e_out && q->vocab && q->dim && q->out;
	struct answer a = {0};
	int err;

	if (q->matrix || q->in || (q->model ? q->e_in || q->e_out : !files))
		return avp__fail(why, AVP_USAGE,
				 "give --model, or --e-in, --e-out, --vocab, "
				 "--dim and -o");
	err = q->model ? compute_model(q, &a, why) : compute_files(q, &a, why);
	if (!err && q->out)
		err = write_floats(q->out, a.m.w, (uint64_t)a.m.dim * a.m.dim,
				   why);
	if (!err)
		err = print_answer(&a, why);
	avp_realign_matrix_fini(&a.m);
	return err;
}

/* ---- apply ------------------------------------------------------------------ */

static int apply_rows(const struct request *q, const struct floats *w,
		      const struct floats *h, struct avp_reason *why)
{
	struct avp_tensor y = h->t;
	float *out = malloc(h->bytes ? h->bytes : 1);
	int err = 0;

	if (!out)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for %zu bytes",
				 h->bytes);
	y.data = out;
	if (h->t.shape[0])
		err = avp_realign_apply(w->t.data, q->dim,
					(float)q->target_norm, &h->t, &y, why);
	if (!err)
		err = write_floats(q->out, out, h->bytes / sizeof(float), why);
	free(out);
	return err;
}

static int run_apply(const struct request *q, struct avp_reason *why)
{
	struct floats w, h;
	int err;

	if (!q->matrix || !q->in || !q->dim || !q->out || isnan(q->target_norm))
		return avp__fail(why, AVP_USAGE,
				 "--matrix, --target-norm, --in, --dim and -o "
				 "are needed");
	err = floats_open(&w, q->matrix, q->dim, q->dim, why);
	if (err)
		return err;
	err = floats_open(&h, q->in, 0, q->dim, why);
	if (!err) {
		err = apply_rows(q, &w, &h, why);
		floats_close(&h);
	}
	floats_close(&w);
	return err;
}

/* ---- arguments -------------------------------------------------------------- */

static int parse_count(const char *name, const char *text, uint32_t *to,
		       struct avp_reason *why)
{
	char *end;
	unsigned long x;

	errno = 0;
	x = strtoul(text, &end, 10);
	if (*end || end == text || *text == '-' || errno || !x ||
	    x > UINT32_MAX)
		return avp__fail(why, AVP_USAGE,
				 "%s %s; a count from 1 to %u is expected",
				 name, text, UINT32_MAX);
	*to = (uint32_t)x;
	return 0;
}

static int parse_positive(const char *name, const char *text, double *to,
			  struct avp_reason *why)
{
	char *end;
	const double x = strtod(text, &end);

	if (*end || end == text || !(x > 0) || isinf(x))
		return avp__fail(why, AVP_USAGE,
				 "%s %s; a number above 0 is expected", name,
				 text);
	*to = x;
	return 0;
}

static int take_option(struct request *q, int c, struct avp_reason *why)
{
	switch (c) {
	case 'i': q->e_in = optarg; return 0;
	case 'u': q->e_out = optarg; return 0;
	case 'm': q->model = optarg; return 0;
	case 'c': q->cache = optarg; return 0;
	case 'o': q->out = optarg; return 0;
	case 'x': q->matrix = optarg; return 0;
	case 'n': q->in = optarg; return 0;
	case 'v': return parse_count("--vocab", optarg, &q->vocab, why);
	case 'd': return parse_count("--dim", optarg, &q->dim, why);
	case 'l': return parse_positive("--lambda", optarg, &q->lambda, why);
	default:
		return parse_positive("--target-norm", optarg, &q->target_norm,
				      why);
	}
}

static int parse(int argc, char **argv, const char *what, struct request *q)
{
	static const struct option options[] = {
		{"e-in", required_argument, NULL, 'i'},
		{"e-out", required_argument, NULL, 'u'},
		{"vocab", required_argument, NULL, 'v'},
		{"dim", required_argument, NULL, 'd'},
		{"lambda", required_argument, NULL, 'l'},
		{"model", required_argument, NULL, 'm'},
		{"cache", required_argument, NULL, 'c'},
		{"matrix", required_argument, NULL, 'x'},
		{"target-norm", required_argument, NULL, 't'},
		{"in", required_argument, NULL, 'n'},
		{"out", required_argument, NULL, 'o'},
		{0},
	};
	struct avp_reason why;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":o:", options, NULL)) != -1) {
		if (c == '?' || c == ':')
			return cmd_bad_option(what, c, argv);
		if (take_option(q, c, &why))
			return cmd_fail(what, &why);
	}
	if (optind < argc)
		return cmd_failf(what, AVP_USAGE, "%s is no option",
				 argv[optind]);
	return CMD_DONE;
}

static int wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "help"))
			return 1;
	return 0;
}

int cmd_realign(int argc, char **argv)
{
	struct request q = {.target_norm = NAN};
	struct avp_reason why;
	const char *what;
	bool apply;
	int status;

	if (wants_help(argc, argv))
		return cmd_help(usage);
	if (argc < 2 ||
	    (strcmp(argv[1], "compute") && strcmp(argv[1], "apply")))
		return cmd_failf("realign", AVP_USAGE,
				 "compute or apply? See avpctl realign --help");
	apply = argv[1][0] == 'a';
	what = apply ? "realign apply" : "realign compute";
	status = parse(argc - 1, argv + 1, what, &q);
	if (status)
		return status;
	if (apply ? run_apply(&q, &why) : run_compute(&q, &why))
		return cmd_fail(what, &why);
	return CMD_DONE;
}
