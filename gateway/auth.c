/* SPDX-License-Identifier: Apache-2.0 */
/* Who asks, which agents they may reach, and how often they may ask. */
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>
#include <strings.h>

#include "gateway/serve.h"

/* Requests that may come at once after a quiet second: what a second allows. */
#define BURST_NS 1000000000ll

/* ---- tokens ------------------------------------------------------------- */

/* Compares with all of them, and each in full: time tells nothing. */
static const struct gw_conf_token *find(const struct gw_conf *conf,
					const uint8_t hash[32])
{
	const struct gw_conf_token *found = NULL;

	for (uint32_t i = 0; i < conf->tokens; i++)
		if (!CRYPTO_memcmp(conf->token[i].hash, hash, 32))
			found = &conf->token[i];
	return found;
}

static bool wants_token(const struct exchange *x)
{
	switch (x->r->conn->listener->auth) {
	case GW_AUTH_NONE: return false;
	case GW_AUTH_TOKEN: return true;
	default: return x->gw->conf->tokens;
	}
}

static const struct gw_conf_token *token_of(const struct exchange *x)
{
	return x->known ? find(x->gw->conf, x->token) : NULL;
}

static bool refuse_token(struct exchange *x, const char *text)
{
	const struct http_pair ask = {"www-authenticate", avp_str_of("Bearer")};

	x->gw->metrics.unauthorized++;
	serve_refuse(x, 401, AVP_PERMISSION, &ask, text);
	return false;
}

static bool read_token(struct exchange *x)
{
	struct avp_str told = http_get(x->r, HTTP_AUTHORIZATION);

	if (!told.data)
		return refuse_token(x, "a bearer token is asked for here");
	if (told.len < 8 || strncasecmp(told.data, "Bearer ", 7))
		return refuse_token(x, "Authorization is not a bearer token");
	while (told.len > 7 && told.data[7] == ' ') {
		told.data++;
		told.len--;
	}
	SHA256((const uint8_t *)told.data + 7, told.len - 7, x->token);
	x->known = true;
	if (token_of(x))
		return true;
	x->known = false;
	return refuse_token(x, "the bearer token is not one of ours");
}

/* ---- how often ---------------------------------------------------------- */

static uint64_t hash_text(const char *text)
{
	uint64_t hash = UINT64_C(14695981039346656037);

	while (*text)
		hash = (hash ^ (uint8_t)*text++) * UINT64_C(1099511628211);
	return hash;
}

static bool in_time(struct exchange *x, uint64_t who, uint32_t rate)
{
	int64_t now_ns = gw_clock_ns(), *paid_ns;
	unsigned at = (unsigned)((who ^ who >> 32) % RATES);

	if (!rate)
		return true;
	/* Two of one place share nothing but the forgetting of each other. */
	if (x->in->rates.rate[at].who != who) {
		x->in->rates.rate[at].who = who;
		x->in->rates.rate[at].paid_ns = 0;
	}
	paid_ns = &x->in->rates.rate[at].paid_ns;
	if (*paid_ns < now_ns)
		*paid_ns = now_ns;
	if (*paid_ns - now_ns >= BURST_NS)
		return false;
	*paid_ns += 1000000000ll / rate;
	return true;
}

static bool check_rate(struct exchange *x, const struct gw_conf_token *token)
{
	const struct http_pair later = {"retry-after", avp_str_of("1")};
	uint32_t rate = x->gw->conf->limits.requests_per_second;
	uint64_t who;

	if (token) {
		memcpy(&who, token->hash, sizeof(who));
		if (token->rate)
			rate = token->rate;
	} else {
		who = hash_text(x->r->conn->peer);
	}
	if (in_time(x, who, rate))
		return true;
	x->gw->metrics.rate_limited++;
	serve_refuse(x, 429, AVP_QUEUE_FULL, &later,
		     "more requests a second than are allowed");
	return false;
}

bool auth_check(struct exchange *x)
{
	if (wants_token(x) && !read_token(x))
		return false;
	return check_rate(x, token_of(x));
}

/* ---- which agents ------------------------------------------------------- */

bool auth_permits(struct exchange *x, const char *agent)
{
	const struct gw_conf_token *token = token_of(x);

	if (!x->known || (token && !token->agents.count))
		return true;
	for (uint32_t i = 0; token && i < token->agents.count; i++)
		if (!strcmp(token->agents.item[i].text, agent))
			return true;
	x->gw->metrics.unauthorized++;
	serve_failf(x, 403, AVP_PERMISSION, "this token may not reach %s",
		    agent);
	return false;
}

const char *auth_default_agent(const struct exchange *x)
{
	const struct gw_conf_token *token = token_of(x);

	if (token && token->default_agent.text)
		return token->default_agent.text;
	return x->r->conn->listener->default_agent;
}
