/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retry counts and heartbeats by hand: one kind of table under both, 16 bytes
 * to a number; and the liveness of linked peers by the counter in their page.
 */
#include <stdlib.h>
#include <string.h>

#include "ahp/agent_internal.h"

#define BUCKETS 1024

struct entry {
	uint8_t id[16];
	int64_t value;
	struct entry *next;
};

struct table {
	struct entry *bucket[BUCKETS];
	uint32_t count;
};

static struct entry **place_of(struct table *t, const uint8_t id[16])
{
	struct entry **at;
	uint64_t word[2];

	memcpy(word, id, sizeof(word));
	word[0] = (word[0] ^ word[1]) * UINT64_C(0x9e3779b97f4a7c15);
	at = &t->bucket[(word[0] >> 32) % BUCKETS];
	while (*at && memcmp((*at)->id, id, 16) != 0)
		at = &(*at)->next;
	return at;
}

static const struct entry *look_up(const struct table *t, const uint8_t id[16])
{
	return *place_of((struct table *)t, id);
}

/* The entry of id, made with value 0 if there is none. */
static int enter(struct table *t, const uint8_t id[16], struct entry **out)
{
	struct entry **at = place_of(t, id);

	if (!*at) {
		if (t->count == AHP_RETRIES_MAX)
			return AVP_QUEUE_FULL;
		*at = calloc(1, sizeof(**at));
		if (!*at)
			return AVP_NO_MEMORY;
		memcpy((*at)->id, id, 16);
		t->count++;
	}
	*out = *at;
	return 0;
}

static void empty(struct table *t)
{
	for (uint32_t i = 0; i < BUCKETS; i++)
		while (t->bucket[i]) {
			struct entry *next = t->bucket[i]->next;

			free(t->bucket[i]);
			t->bucket[i] = next;
		}
}

/* ---- retry counts ------------------------------------------------------- */

struct ahp_retries {
	struct table counts;
	uint32_t max;
};

int ahp_retries_new(struct ahp_retries **out, uint32_t max_retries)
{
	struct ahp_retries *retries = calloc(1, sizeof(*retries));

	if (!retries)
		return AVP_NO_MEMORY;
	retries->max = max_retries;
	*out = retries;
	return 0;
}

void ahp_retries_free(struct ahp_retries *retries)
{
	if (retries)
		empty(&retries->counts);
	free(retries);
}

uint32_t ahp_retry_count(const struct ahp_retries *retries,
			 const uint8_t id[16])
{
	const struct entry *e = look_up(&retries->counts, id);

	return e ? (uint32_t)e->value : 0;
}

bool ahp_should_retry(const struct ahp_retries *retries, const uint8_t id[16])
{
	return ahp_retry_count(retries, id) < retries->max;
}

int ahp_increment_retry(struct ahp_retries *retries, const uint8_t id[16],
			uint32_t *count)
{
	struct entry *e;
	int error = enter(&retries->counts, id, &e);

	if (error)
		return error;
	e->value += e->value < UINT32_MAX;
	if (count)
		*count = (uint32_t)e->value;
	return 0;
}

void ahp_reset_retry(struct ahp_retries *retries, const uint8_t id[16])
{
	struct entry **at = place_of(&retries->counts, id), *e = *at;

	if (!e)
		return;
	*at = e->next;
	free(e);
	retries->counts.count--;
}

/* ---- heartbeats --------------------------------------------------------- */

struct ahp_heartbeats {
	struct table seen, sent; /* by the id of the name's text */
};

int ahp_heartbeats_new(struct ahp_heartbeats **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : AVP_NO_MEMORY;
}

void ahp_heartbeats_free(struct ahp_heartbeats *heartbeats)
{
	if (heartbeats) {
		empty(&heartbeats->seen);
		empty(&heartbeats->sent);
	}
	free(heartbeats);
}

int ahp_heartbeat_update(struct ahp_heartbeats *heartbeats,
			 struct avp_str agent, int64_t now_ns)
{
	struct entry *e;
	uint8_t id[16];
	int error = ahp_id_read(id, agent);

	if (!error)
		error = enter(&heartbeats->seen, id, &e);
	if (!error)
		e->value = now_ns;
	return error;
}

bool ahp_heartbeat_alive(const struct ahp_heartbeats *heartbeats,
			 struct avp_str agent, int64_t timeout_ns,
			 int64_t now_ns)
{
	const struct entry *e;
	uint8_t id[16];

	if (ahp_id_read(id, agent))
		return true;
	e = look_up(&heartbeats->seen, id);
	return !e || now_ns - e->value < timeout_ns;
}

enum ahp_liveness ahp_heartbeat_liveness(
	const struct ahp_heartbeats *heartbeats, struct avp_str agent,
	int64_t interval_ns, int64_t now_ns)
{
	const struct entry *e;
	int64_t silent_ns;
	uint8_t id[16];

	if (ahp_id_read(id, agent))
		return AHP_NEVER_SEEN;
	e = look_up(&heartbeats->seen, id);
	if (!e)
		return AHP_NEVER_SEEN;
	silent_ns = now_ns - e->value;
	if (silent_ns / AHP_HEARTBEATS_DEAD >= interval_ns)
		return AHP_DEAD;
	return silent_ns / AHP_HEARTBEATS_STUCK >= interval_ns ? AHP_STUCK
							       : AHP_ALIVE;
}

/* One that there is no memory for is told each time: too many, not none. */
bool ahp_heartbeat_due(struct ahp_heartbeats *heartbeats, struct avp_str agent,
		       int64_t interval_ns, int64_t now_ns)
{
	uint32_t known = heartbeats->sent.count;
	struct entry *e;
	uint8_t id[16];

	if (ahp_id_read(id, agent) || enter(&heartbeats->sent, id, &e))
		return true;
	if (known == heartbeats->sent.count && now_ns - e->value < interval_ns)
		return false;
	e->value = now_ns;
	return true;
}

int ahp_heartbeat_write(struct avp_buf *buf, struct avp_str from,
			struct avp_str to)
{
	const struct ahp_heartbeat_payload payload = {.timestamp =
							      ahp_time_now()};
	struct ahp_envelope m = {
		.method = avp_str_of(ahp_method_name(AHP_HEARTBEAT)),
		.agent_id = from,
		.target_agent = to,
		.token_limit = AHP_DEFAULT_TOKEN_LIMIT,
		.timestamp = payload.timestamp,
	};
	char id_text[AHP_ID_TEXT_BYTES];
	struct avp_buf body = {0};
	struct avp_json_writer w;
	uint8_t id[16];
	int error = ahp_id_random(id);

	if (error)
		return error;
	ahp_id_write(id, id_text);
	m.message_id = avp_str_of(id_text);
	avp_json_begin(&w, &body, AVP_JSON_PYTHON);
	ahp_heartbeat_put(&w, &payload);
	error = avp_json_finish(&w);
	m.payload_json = (struct avp_str){body.data, body.len};
	if (!error)
		error = ahp_envelope_write(buf, &m, AVP_JSON_PYTHON);
	avp_buf_fini(&body);
	return error;
}

/* ---- peers of this host ------------------------------------------------- */

enum ahp_liveness ahp_liveness(struct ahp_agent *agent, const char *id,
			       int64_t timeout_ns)
{
	struct ahp__peer *peer;
	int64_t now_ns;
	uint64_t beat;

	AHP_ENTER(agent);
	if (avp__forked(&agent->guard))
		return AHP_NEVER_SEEN;
	if (timeout_ns == AHP_USUAL)
		timeout_ns = agent->options.heartbeat_interval_ns;
	peer = ahp__peer_at(agent, ahp__peer_find(agent, id));
	if (!peer || !peer->generation)
		return AHP_NEVER_SEEN;
	if (!peer->link || peer->link->state != LINK_UP)
		return AHP_DEAD;
	now_ns = ahp__now_ns();
	/* relaxed: a count that is only compared with itself */
	beat = atomic_load_explicit(&peer->link->page->heartbeat,
				    memory_order_relaxed);
	if (beat != peer->beat || peer->beat_generation != peer->generation) {
		peer->beat = beat;
		peer->beat_generation = peer->generation;
		peer->beat_ns = now_ns;
	}
	return now_ns - peer->beat_ns < timeout_ns ? AHP_ALIVE : AHP_STUCK;
}
