/* SPDX-License-Identifier: Apache-2.0 */
/* The account of tokens: agents sorted by name, found by halving. */
#include <stdlib.h>
#include <string.h>

#include <avp/message.h>

struct account {
	struct avp_str agent; /* ours */
	int64_t limit;	      /* -1: the default one */
	int64_t granted;
};

struct ahp_tokens {
	int64_t default_limit;
	struct account *accounts;
	size_t count, capacity;
};

static int check_limit(int64_t limit, struct avp_reason *why)
{
	if (limit >= 0)
		return 0;
	return avp__fail(why, AVP_INVALID_MESSAGE,
			 "a token limit of %lld is below 0", (long long)limit);
}

int ahp_tokens_new(struct ahp_tokens **tokens, int64_t default_limit,
		   struct avp_reason *why)
{
	struct ahp_tokens *t;

	if (check_limit(default_limit, why))
		return AVP_INVALID_MESSAGE;
	t = calloc(1, sizeof(*t));
	if (!t)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for tokens");
	t->default_limit = default_limit;
	*tokens = t;
	return 0;
}

void ahp_tokens_free(struct ahp_tokens *tokens)
{
	if (!tokens)
		return;
	for (size_t i = 0; i < tokens->count; i++)
		free((char *)tokens->accounts[i].agent.data);
	free(tokens->accounts);
	free(tokens);
}

static int compare(struct avp_str a, struct avp_str b)
{
	size_t n = a.len < b.len ? a.len : b.len;
	int c = n ? memcmp(a.data, b.data, n) : 0;

	return c ? c : (a.len > b.len) - (a.len < b.len);
}

/* The agent's place, or the one where it would have to go. */
static size_t place_of(const struct ahp_tokens *t, struct avp_str agent)
{
	size_t low = 0, high = t->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (compare(t->accounts[middle].agent, agent) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct account *find(const struct ahp_tokens *t, struct avp_str agent)
{
	size_t i = place_of(t, agent);

	if (i < t->count && avp_str_equal(t->accounts[i].agent, agent))
		return &t->accounts[i];
	return NULL;
}

static int grow(struct ahp_tokens *t)
{
	size_t capacity = t->capacity ? t->capacity * 2 : 16;
	struct account *accounts;

	if (t->count < t->capacity)
		return 0;
	accounts = realloc(t->accounts, capacity * sizeof(*accounts));
	if (!accounts)
		return AVP_NO_MEMORY;
	t->accounts = accounts;
	t->capacity = capacity;
	return 0;
}

/* The agent's account, opened if there is none yet. */
static int open_account(struct ahp_tokens *t, struct avp_str agent,
			struct account **account, struct avp_reason *why)
{
	size_t i = place_of(t, agent);
	char *name;

	*account = find(t, agent);
	if (*account)
		return 0;
	if (t->count == AHP_TOKENS_MAX_AGENTS)
		return avp__fail(why, AVP_QUEUE_FULL,
				 "%u agents have an account of tokens; no more "
				 "are kept",
				 AHP_TOKENS_MAX_AGENTS);
	name = malloc(agent.len + 1);
	if (!name || grow(t)) {
		free(name);
		return avp__fail(why, AVP_NO_MEMORY, "no memory for tokens");
	}
	if (agent.len)
		memcpy(name, agent.data, agent.len);
	memmove(&t->accounts[i + 1], &t->accounts[i],
		(t->count - i) * sizeof(*t->accounts));
	t->count++;
	t->accounts[i] =
		(struct account){.agent = {name, agent.len}, .limit = -1};
	*account = &t->accounts[i];
	return 0;
}

int ahp_tokens_set_limit(struct ahp_tokens *tokens, struct avp_str agent,
			 int64_t limit, struct avp_reason *why)
{
	struct account *account;
	int code = check_limit(limit, why);

	if (!code)
		code = open_account(tokens, agent, &account, why);
	if (!code)
		account->limit = limit;
	return code;
}

static int64_t limit_of(const struct ahp_tokens *t, const struct account *a)
{
	return a && a->limit >= 0 ? a->limit : t->default_limit;
}

int64_t ahp_tokens_get_limit(const struct ahp_tokens *tokens,
			     struct avp_str agent)
{
	return limit_of(tokens, find(tokens, agent));
}

int64_t ahp_tokens_remaining(const struct ahp_tokens *tokens,
			     struct avp_str agent)
{
	const struct account *a = find(tokens, agent);
	int64_t limit = limit_of(tokens, a), granted = a ? a->granted : 0;

	return granted < limit ? limit - granted : 0;
}

int ahp_tokens_grant(struct ahp_tokens *tokens, struct avp_str agent,
		     uint64_t wanted, uint64_t *granted, struct avp_reason *why)
{
	uint64_t left = (uint64_t)ahp_tokens_remaining(tokens, agent);
	uint64_t given = wanted < left ? wanted : left;
	struct account *account;
	int code = open_account(tokens, agent, &account, why);

	if (code)
		return code;
	account->granted += (int64_t)given;
	*granted = given;
	return 0;
}

void ahp_tokens_return(struct ahp_tokens *tokens, struct avp_str agent,
		       uint64_t unused)
{
	struct account *a = find(tokens, agent);

	if (!a)
		return;
	if (unused > (uint64_t)a->granted)
		unused = (uint64_t)a->granted;
	a->granted -= (int64_t)unused;
}
