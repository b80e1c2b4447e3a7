/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions, in the order of their creation and in a hash table by id. The ids
 * are random and ours, so their first digits are hash enough: whoever asks for
 * an id does not choose the ids that are there.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <avp/message.h>

enum { BUCKETS = 1024 };

struct entry {
	struct ahp_session session; /* first: the caller's pointer is ours */
	struct entry *in_bucket;
	struct entry *older, *newer;
};

struct ahp_sessions {
	double default_ttl_s;
	uint32_t count;
	struct entry *oldest, *newest;
	struct entry *buckets[BUCKETS];
};

int ahp_sessions_new(struct ahp_sessions **sessions, double default_ttl_s)
{
	struct ahp_sessions *s = calloc(1, sizeof(*s));

	if (!s)
		return AVP_NO_MEMORY;
	s->default_ttl_s = default_ttl_s;
	*sessions = s;
	return 0;
}

static unsigned bucket_of(const char *id)
{
	char digits[4] = {id[0], id[1], id[2], 0};

	return (unsigned)strtoul(digits, NULL, 16) % BUCKETS;
}

static bool is_expired(const struct ahp_session *s, double now_s)
{
	return now_s > s->created_s + s->ttl_s;
}

/* ---- one session in one block ------------------------------------------- */

static void for_strings(struct ahp_session_agent *agent,
			void (*each)(struct avp_str *, void *), void *arg)
{
	each(&agent->agent_id, arg);
	each(&agent->identity.model_family, arg);
	each(&agent->identity.model_id, arg);
	each(&agent->identity.model_hash, arg);
	each(&agent->identity.tokenizer_hash, arg);
}

static void add_length(struct avp_str *s, void *sum)
{
	*(size_t *)sum += s->len;
}

static void move_in(struct avp_str *s, void *arg)
{
	char **at = arg;

	if (s->len)
		memcpy(*at, s->data, s->len);
	s->data = *at;
	*at += s->len;
}

/* The entry, its agents and all their strings, to be freed in one go. */
static struct entry *copy_agents(const struct ahp_session_agent *agents,
				 uint32_t count)
{
	size_t bytes = sizeof(struct entry) + count * sizeof(*agents);
	struct ahp_session_agent *copies, agent;
	struct entry *e;
	char *text;

	for (uint32_t i = 0; i < count; i++) {
		agent = agents[i];
		for_strings(&agent, add_length, &bytes);
	}
	e = calloc(1, bytes);
	if (!e)
		return NULL;
	copies = (void *)(e + 1);
	text = (char *)(copies + count);
	for (uint32_t i = 0; i < count; i++) {
		copies[i] = agents[i];
		for_strings(&copies[i], move_in, &text);
	}
	e->session.agents = copies;
	e->session.agent_count = count;
	return e;
}

/* ---- the lists ---------------------------------------------------------- */

static void insert(struct ahp_sessions *s, struct entry *e)
{
	struct entry **bucket = &s->buckets[bucket_of(e->session.id)];

	e->in_bucket = *bucket;
	*bucket = e;
	e->older = s->newest;
	if (s->newest)
		s->newest->newer = e;
	else
		s->oldest = e;
	s->newest = e;
	s->count++;
}

static void drop(struct ahp_sessions *s, struct entry *e)
{
	struct entry **link = &s->buckets[bucket_of(e->session.id)];

	while (*link != e)
		link = &(*link)->in_bucket;
	*link = e->in_bucket;
	if (e->older)
		e->older->newer = e->newer;
	else
		s->oldest = e->newer;
	if (e->newer)
		e->newer->older = e->older;
	else
		s->newest = e->older;
	s->count--;
	free(e);
}

void ahp_sessions_free(struct ahp_sessions *sessions)
{
	if (!sessions)
		return;
	while (sessions->oldest)
		drop(sessions, sessions->oldest);
	free(sessions);
}

static struct entry *lookup(const struct ahp_sessions *s, struct avp_str id)
{
	struct entry *e;

	if (id.len != AHP_SESSION_ID_BYTES - 1)
		return NULL;
	for (e = s->buckets[bucket_of(id.data)]; e; e = e->in_bucket)
		if (!memcmp(e->session.id, id.data, id.len))
			return e;
	return NULL;
}

/* ---- calls -------------------------------------------------------------- */

static int make_id(char id[AHP_SESSION_ID_BYTES])
{
	char text[AHP_ID_TEXT_BYTES];
	uint8_t bytes[16];
	size_t n = 0;

	if (ahp_id_random(bytes))
		return AVP_IO;
	ahp_id_write(bytes, text);
	for (const char *c = text; *c; c++)
		if (*c != '-')
			id[n++] = *c;
	id[n] = 0;
	return 0;
}

static int make_room(struct ahp_sessions *s, double now_s,
		     struct avp_reason *why)
{
	if (s->count < AHP_SESSIONS_MAX || ahp_session_cleanup(s, now_s))
		return 0;
	return avp__fail(why, AVP_QUEUE_FULL,
			 "%u sessions are open; wait until one expires",
			 s->count);
}

int ahp_session_create(struct ahp_sessions *sessions,
		       const struct ahp_session_agent *agents,
		       uint32_t agent_count, uint32_t mode, double ttl_s,
		       double now_s, const struct ahp_session **session,
		       struct avp_reason *why)
{
	struct entry *e;

	if (agent_count > AHP_SESSION_MAX_AGENTS)
		return avp__fail(why, AVP_USAGE,
				 "a session of %u agents; at most %u",
				 agent_count, AHP_SESSION_MAX_AGENTS);
	if (make_room(sessions, now_s, why))
		return AVP_QUEUE_FULL;
	e = copy_agents(agents, agent_count);
	if (!e)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a session");
	if (make_id(e->session.id)) {
		free(e);
		return avp__fail(why, AVP_IO, "no random bytes for an id");
	}
	e->session.mode = mode;
	e->session.created_s = now_s;
	e->session.ttl_s = isnan(ttl_s) ? sessions->default_ttl_s : ttl_s;
	insert(sessions, e);
	*session = &e->session;
	return 0;
}

const struct ahp_session *ahp_session_get(struct ahp_sessions *sessions,
					  struct avp_str id, double now_s)
{
	struct entry *e = lookup(sessions, id);

	if (e && is_expired(&e->session, now_s)) {
		drop(sessions, e);
		return NULL;
	}
	return e ? &e->session : NULL;
}

bool ahp_session_invalidate(struct ahp_sessions *sessions, struct avp_str id)
{
	struct entry *e = lookup(sessions, id);

	if (e)
		drop(sessions, e);
	return e;
}

static bool has_agent(const struct ahp_session *s, struct avp_str agent)
{
	if (!agent.len)
		return true;
	for (uint32_t i = 0; i < s->agent_count; i++)
		if (avp_str_equal(s->agents[i].agent_id, agent))
			return true;
	return false;
}

const struct ahp_session *ahp_session_find(const struct ahp_sessions *sessions,
					   struct avp_str agent, double now_s,
					   const struct ahp_session *after)
{
	const struct entry *e =
		after ? ((const struct entry *)after)->newer : sessions->oldest;

	while (e && (is_expired(&e->session, now_s) ||
		     !has_agent(&e->session, agent)))
		e = e->newer;
	return e ? &e->session : NULL;
}

uint32_t ahp_session_count(const struct ahp_sessions *sessions, double now_s)
{
	uint32_t n = 0;

	for (const struct entry *e = sessions->oldest; e; e = e->newer)
		n += !is_expired(&e->session, now_s);
	return n;
}

uint32_t ahp_session_cleanup(struct ahp_sessions *sessions, double now_s)
{
	struct entry *e = sessions->oldest, *next;
	uint32_t removed = 0;

	for (; e; e = next) {
		next = e->newer;
		if (!is_expired(&e->session, now_s))
			continue;
		drop(sessions, e);
		removed++;
	}
	return removed;
}
