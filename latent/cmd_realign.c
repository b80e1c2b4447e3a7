/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl realign compute | apply. */
#include <errno.h>
#include <fcntl.h>
#include <float.h>
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

/* ---- files of float32 --------------------------------------------------- */

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

static int map_file(const char *path, struct floats *f, struct avp_reason *why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err = 0;
	struct stat st;

	if (fd < 0)
		return cmd_io_fail(path, "open", why);
	if (fstat(fd, &st)) {
		err = cmd_io_fail(path, "read", why);
	} else if (!S_ISREG(st.st_mode)) {
		err = avp__fail(why, AVP_IO, "%s: is not a file", path);
	} else if (st.st_size) {
		f->bytes = (size_t)st.st_size;
		f->map = mmap(NULL, f->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
		if (f->map == MAP_FAILED) {
			f->map = NULL;
			err = cmd_io_fail(path, "read", why);
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

/* ---- compute ------------------------------------------------------------ */

struct request {
	const char *e_in, *e_out, *model, *cache, *out, *matrix, *in;
	uint64_t vocab, dim;
	double lambda, target_norm;
};

struct answer {
	struct avp_realign_matrix m;
	double seconds;
	bool cached;
};

/* The formula has an answer for nothing but zeros, which helps nobody. */
static void warn_zeros(const struct avp_realign_matrix *m)
{
	const size_t count = (size_t)m->dim * m->dim;
	size_t i = 0;

	while (i < count && m->w[i] == 0)
		i++;
	if (i < count)
		return;
	fputs("avpctl: realign compute: warning: W has nothing but zeros, as "
	      "when lm_head has; is the file damaged?\n",
	      stderr);
}

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
			"avpctl: realign compute: warning: E_out^T E_out is "
			"not positive definite, as when lm_head has less rank "
			"than columns; lambda raised to %g, so W is a damped "
			"solution\n",
			r.lambda);
	warn_zeros(&a->m);
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
	err = cmd_file_read(&file, path, AVP_CONFIG_BYTES, why);
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
	struct cmd_answer answer;
	struct avp_json_writer *w = cmd_answer_begin(&answer);

	avp_json_key(w, "target_norm");
	avp_json_put_double(w, (double)a->m.target_norm);
	avp_json_member_uint(w, "dim", a->m.dim);
	avp_json_key(w, "seconds");
	avp_json_put_double(w, a->seconds);
	avp_json_member_bool(w, "cached", a->cached);
	return cmd_answer_end(&answer, 0, why);
}

#define NOT_GIVEN UINT64_MAX /* no count that an option could have */

static int check_count(const char *name, uint64_t count, struct avp_reason *why)
{
	if ((count && count <= UINT32_MAX) || count == NOT_GIVEN)
		return 0;
	return avp__fail(why, AVP_USAGE,
			 "%s %llu; a count from 1 to %u is expected", name,
			 (unsigned long long)count, UINT32_MAX);
}

static int run_compute(const struct request *q, struct avp_reason *why)
{
	const char *const inputs[] = {q->e_in, q->e_out, NULL};
	const bool files = q->e_in && q->e_out && q->vocab != NOT_GIVEN &&
			   q->dim != NOT_GIVEN && q->out;
	struct answer a = {0};
	int err;

	if (q->model ? q->e_in || q->e_out || q->vocab != NOT_GIVEN ||
			       q->dim != NOT_GIVEN
		     : !files)
		return avp__fail(
			why, AVP_USAGE,
			"give --model, and --cache and -o if you like, "
			"or --e-in, --e-out, --vocab, --dim and -o");
	if ((err = check_count("--vocab", q->vocab, why)) ||
	    (err = check_count("--dim", q->dim, why)) ||
	    (q->out &&
	     (err = cmd_check_output("-o", q->out, true, inputs, why))))
		return err;
	err = q->model ? compute_model(q, &a, why) : compute_files(q, &a, why);
	if (!err && q->out)
		err = write_floats(q->out, a.m.w, (uint64_t)a.m.dim * a.m.dim,
				   why);
	if (!err)
		err = print_answer(&a, why);
	avp_realign_matrix_fini(&a.m);
	return err;
}

/* ---- apply -------------------------------------------------------------- */

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
		err = avp_realign_apply(w->t.data, (uint32_t)q->dim,
					(float)q->target_norm, &h->t, &y, why);
	if (!err)
		err = write_floats(q->out, out, h->bytes / sizeof(float), why);
	free(out);
	return err;
}

static int run_apply(const struct request *q, struct avp_reason *why)
{
	const char *const inputs[] = {q->matrix, q->in, NULL};
	const float norm = (float)q->target_norm;
	struct floats w, h;
	int err;

	if (!q->matrix || !q->in || q->dim == NOT_GIVEN || !q->out ||
	    isnan(norm))
		return avp__fail(why, AVP_USAGE,
				 "--matrix, --target-norm, --in, --dim and -o "
				 "are needed");
	if (norm <= 0 || isinf(norm))
		return avp__fail(why, AVP_USAGE,
				 "--target-norm %g; a float32 from %g to %g is "
				 "expected",
				 q->target_norm, (double)FLT_TRUE_MIN,
				 (double)FLT_MAX);
	if ((err = check_count("--dim", q->dim, why)) ||
	    (err = cmd_check_output("-o", q->out, false, inputs, why)))
		return err;
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

/* ---- arguments ---------------------------------------------------------- */

static int realign_compute(int argc, char **argv)
{
	static const struct cmd_page page = {
		"realign compute", "", 0, 0,
		"Computes the matrix W that carries hidden states into the "
		"space of embeddings,\n"
		"of two matrices (--e-in, --e-out, --vocab, --dim, -o) or of a "
		"model (--model),\n"
		"and prints "
		"{\"target_norm\",\"dim\",\"seconds\",\"cached\"}. Files are "
		"raw\n"
		"little-endian float32, row-major. A model's matrix is kept in "
		"a file that\n"
		"torch.load() reads.\n"};
	struct request q = {.vocab = NOT_GIVEN, .dim = NOT_GIVEN};
	const struct cmd_option options[] = {
		{"e-in", CMD_TEXT, &q.e_in, "E_IN.f32", "input embeddings"},
		{"e-out", CMD_TEXT, &q.e_out, "E_OUT.f32",
		 "output embeddings, of the same shape"},
		{"vocab", CMD_COUNT, &q.vocab, "V", "their rows"},
		{"dim", CMD_COUNT, &q.dim, "D", "their columns"},
		{"model", CMD_TEXT, &q.model, "DIR",
		 "config.json and *.safetensors"},
		{"cache", CMD_TEXT, &q.cache, "DIR",
		 "where a model's matrix is kept\n(~/.avp/realign)"},
		{"lambda", CMD_NUMBER, &q.lambda, "X",
		 "regularisation (1e-5); any other is not\nkept"},
		{"o", CMD_TEXT, &q.out, "W.f32", "write the matrix there"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	return run_compute(&q, &why) ? cmd_fail(page.name, &why) : CMD_DONE;
}

static int realign_apply(int argc, char **argv)
{
	static const struct cmd_page page = {
		"realign apply", "", 0, 0,
		"Writes y = x W, scaled to the target norm, for each row x of "
		"a file. Files are\n"
		"raw little-endian float32, row-major. All options are "
		"needed.\n"};
	struct request q = {.dim = NOT_GIVEN, .target_norm = NAN};
	const struct cmd_option options[] = {
		{"matrix", CMD_TEXT, &q.matrix, "W.f32",
		 "what realign compute wrote"},
		{"target-norm", CMD_NUMBER, &q.target_norm, "X",
		 "what it printed"},
		{"in", CMD_TEXT, &q.in, "H.f32", "any number of rows"},
		{"dim", CMD_COUNT, &q.dim, "D", "numbers a row"},
		{"o", CMD_TEXT, &q.out, "OUT.f32", "write the rows there"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	return run_apply(&q, &why) ? cmd_fail(page.name, &why) : CMD_DONE;
}

int cmd_realign(int argc, char **argv)
{
	static const struct cmd_page page = {
		"realign", "COMMAND [ARGUMENT]...", 1, 1,
		"Carries hidden states of one model into its space of "
		"embeddings.\n"};
	static const struct cmd_option none[] = {{0}};
	static const struct cmd_sub subs[] = {
		{"compute", realign_compute, "the matrix of a model"},
		{"apply", realign_apply, "rows through a matrix"},
		{0},
	};

	return cmd_group(&page, none, subs, argc, argv);
}
