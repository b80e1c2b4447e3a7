/* SPDX-License-Identifier: Apache-2.0 */
/*
 * y = softmax(x S^T) T: the soft embedding of a model with tied weights (S and
 * T are both its embeddings) and the projection into another model through the
 * tokens that both know.
 *
 * The vocabulary is walked once, in blocks. Each row keeps the largest logit so
 * far; a block with a larger one scales down what was summed before (the online
 * softmax of Milakov and Gimelshein, 2018). No exponent is ever positive, so
 * nothing overflows, and the logits of one block are all that exists.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include <avp/latent.h>

#include "latent/realign_rows.h"

#define TOKENS 1024 /* in a block: 4 MiB of a 1024-wide model, in the caches */
#define ROWS   128  /* states at a time; enough for BLAS to be at its best */

/* One side: a tensor, and which of its rows the shared tokens are. */
struct side {
	const struct avp_tensor *t;
	const uint32_t *ids; /* NULL: row i is token i */
	float *scratch;
	int dim;
};

struct walk {
	struct side source, target;
	uint64_t tokens;
	float *x;      /* ROWS x source.dim, if x has to be converted */
	float *logits; /* ROWS x TOKENS */
	float *sums;   /* ROWS x target.dim */
	float most[ROWS], total[ROWS];
};

static const float *block_of(const struct side *s, uint64_t first, uint64_t n,
			     int *ld)
{
	if (!s->ids)
		return avp__rows_read(s->t, first, n, s->scratch, ld);
	for (uint64_t i = 0; i < n; i++) {
		float *to = s->scratch + i * (uint64_t)s->dim;
		const float *row =
			avp__rows_read(s->t, s->ids[first + i], 1, to, ld);

		if (row != to)
			memcpy(to, row, (size_t)s->dim * sizeof(*to));
	}
	*ld = s->dim;
	return s->scratch;
}

/* logits = x S^T, or sums += logits T; a lone row needs no copy of S or T. */
static void logits_of(struct walk *k, const float *x, int x_ld, const float *s,
		      int s_ld, int rows, int n)
{
	if (rows == 1)
		cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k->source.dim, 1.0f,
			    s, s_ld, x, 1, 0.0f, k->logits, 1);
	else
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, n,
			    k->source.dim, 1.0f, x, x_ld, s, s_ld, 0.0f,
			    k->logits, TOKENS);
}

static void add_sums(struct walk *k, const float *t, int t_ld, int rows, int n)
{
	if (rows == 1)
		cblas_sgemv(CblasRowMajor, CblasTrans, n, k->target.dim, 1.0f,
			    t, t_ld, k->logits, 1, 1.0f, k->sums, 1);
	else
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows,
			    k->target.dim, n, 1.0f, k->logits, TOKENS, t, t_ld,
			    1.0f, k->sums, k->target.dim);
}

/* Turns one row's logits into weights relative to its largest so far. */
static void weigh(struct walk *k, int row, int n)
{
	float *z = k->logits + (size_t)row * TOKENS;
	float most = k->most[row], total = 0;

	for (int i = 0; i < n; i++)
		most = z[i] > most ? z[i] : most;
	if (most > k->most[row]) {
		const float down = expf(k->most[row] - most);

		k->total[row] *= down;
		cblas_sscal(k->target.dim, down,
			    k->sums + (size_t)row * (size_t)k->target.dim, 1);
		k->most[row] = most;
	}
	for (int i = 0; i < n; i++) {
		z[i] = expf(z[i] - most);
		total += z[i];
	}
	k->total[row] += total;
}

static void walk_rows(struct walk *k, const struct avp_tensor *x,
		      const struct avp_tensor *y, uint64_t first, int rows)
{
	const size_t width = (size_t)k->target.dim;
	const int same = k->source.t == k->target.t && !k->source.ids;
	int x_ld, s_ld, t_ld;
	const float *states =
		avp__rows_read(x, first, (uint64_t)rows, k->x, &x_ld);

	memset(k->sums, 0, (size_t)rows * width * sizeof(float));
	for (int i = 0; i < rows; i++)
		k->most[i] = -INFINITY, k->total[i] = 0;
	for (uint64_t at = 0; at < k->tokens; at += TOKENS) {
		const uint64_t left = k->tokens - at;
		const int n = (int)(left < TOKENS ? left : TOKENS);
		const float *s = block_of(&k->source, at, (uint64_t)n, &s_ld);
		const float *t = s;

		t_ld = s_ld;
		if (!same)
			t = block_of(&k->target, at, (uint64_t)n, &t_ld);
		logits_of(k, states, x_ld, s, s_ld, rows, n);
		for (int i = 0; i < rows; i++)
			weigh(k, i, n);
		add_sums(k, t, t_ld, rows, n);
	}
	for (int i = 0; i < rows; i++)
		cblas_sscal(k->target.dim, 1.0f / k->total[i],
			    k->sums + (size_t)i * width, 1);
	avp__rows_write(y, first, (uint64_t)rows, k->sums);
}

static int side_fini(struct side *s)
{
	free(s->scratch);
	return 0;
}

static int side_init(struct side *s, const struct avp_tensor *t,
		     const uint32_t *ids)
{
	s->t = t;
	s->ids = ids;
	s->dim = (int)t->shape[1];
	s->scratch = NULL;
	if (!ids && avp__rows_in_place(t))
		return 1;
	s->scratch = malloc((size_t)TOKENS * t->shape[1] * sizeof(float));
	return s->scratch != NULL;
}

static int run(struct walk *k, const struct avp_tensor *x,
	       const struct avp_tensor *y, struct avp_reason *why)
{
	const uint64_t states = x->shape[0];
	const size_t rows = states < ROWS ? states : ROWS;

	k->x = malloc(rows * x->shape[1] * sizeof(float));
	k->logits = malloc(rows * TOKENS * sizeof(float));
	k->sums = malloc(rows * y->shape[1] * sizeof(float));
	if (!k->x || !k->logits || !k->sums)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for %zu states",
				 rows);
	for (uint64_t i = 0; i < states; i += ROWS)
		walk_rows(k, x, y, i,
			  (int)(states - i < ROWS ? states - i : ROWS));
	return 0;
}

static int project(const struct avp_tensor *source, const uint32_t *source_ids,
		   const struct avp_tensor *target, const uint32_t *target_ids,
		   uint64_t tokens, const struct avp_tensor *x,
		   const struct avp_tensor *y, struct avp_reason *why)
{
	struct walk *k = calloc(1, sizeof(*k));
	int err = AVP_NO_MEMORY;

	if (k && side_init(&k->source, source, source_ids) &&
	    (source == target || side_init(&k->target, target, target_ids))) {
		if (source == target) {
			k->target = k->source;
			k->target.scratch = NULL; /* never used: see `same` */
		}
		k->tokens = tokens;
		err = run(k, x, y, why);
	} else {
		avp__fail(why, err, "no memory for a block of the vocabulary");
	}
	if (k) {
		side_fini(&k->source);
		side_fini(&k->target);
		free(k->x);
		free(k->logits);
		free(k->sums);
	}
	free(k);
	return err;
}

static int check_states(const struct avp_tensor *x, const struct avp_tensor *y,
			const struct avp_tensor *source,
			const struct avp_tensor *target, struct avp_reason *why)
{
	int err;

	if ((err = avp__rows_check(source, "the source's lm_head", why)) ||
	    (err = avp__rows_check(target, "the target's embeddings", why)) ||
	    (err = avp__rows_check(x, "x", why)) ||
	    (err = avp__rows_check(y, "y", why)))
		return err;
	if (x->shape[1] != source->shape[1] ||
	    y->shape[1] != target->shape[1] || x->shape[0] != y->shape[0])
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "x is %llu x %llu, y %llu x %llu; the models "
				 "are %llu and %llu wide",
				 (unsigned long long)x->shape[0],
				 (unsigned long long)x->shape[1],
				 (unsigned long long)y->shape[0],
				 (unsigned long long)y->shape[1],
				 (unsigned long long)source->shape[1],
				 (unsigned long long)target->shape[1]);
	return 0;
}

static int check_ids(const char *name, const uint32_t *ids, uint64_t count,
		     const struct avp_tensor *t, struct avp_reason *why)
{
	for (uint64_t i = 0; ids && i < count; i++)
		if (ids[i] >= t->shape[0])
			return avp__fail(why, AVP_SHAPE_MISMATCH,
					 "%s %llu is %u, the model has %llu "
					 "tokens",
					 name, (unsigned long long)i, ids[i],
					 (unsigned long long)t->shape[0]);
	return 0;
}

int avp_soft_embed(const struct avp_tensor *e, const struct avp_tensor *x,
		   const struct avp_tensor *y, struct avp_reason *why)
{
	int err = check_states(x, y, e, e, why);

	if (err)
		return err;
	return project(e, NULL, e, NULL, e->shape[0], x, y, why);
}

int avp_project(const struct avp_projection *p, const struct avp_tensor *x,
		const struct avp_tensor *y, struct avp_reason *why)
{
	uint64_t count = p->count;
	int err = check_states(x, y, &p->source, &p->target, why);

	if (err)
		return err;
	if (!p->source_ids != !p->target_ids)
		return avp__fail(why, AVP_USAGE,
				 "give the ids of both models or of neither");
	if (!p->source_ids && !count) {
		count = p->source.shape[0];
		if (count != p->target.shape[0])
			return avp__fail(
				why, AVP_SHAPE_MISMATCH,
				"%llu and %llu tokens; equal "
				"vocabularies or lists of shared ids "
				"are needed",
				(unsigned long long)count,
				(unsigned long long)p->target.shape[0]);
	}
	if (!p->source_ids &&
	    (count > p->source.shape[0] || count > p->target.shape[0]))
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "%llu shared tokens of %llu and %llu",
				 (unsigned long long)count,
				 (unsigned long long)p->source.shape[0],
				 (unsigned long long)p->target.shape[0]);
	if (!count)
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "no token is shared; use JSON instead");
	if ((err = check_ids("source id", p->source_ids, count, &p->source,
			     why)) ||
	    (err = check_ids("target id", p->target_ids, count, &p->target,
			     why)))
		return err;
	return project(&p->source, p->source_ids, &p->target, p->target_ids,
		       count, x, y, why);
}
