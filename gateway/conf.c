/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of section `gateway`, their defaults and what has to fit
 * together. */
#include <stdlib.h>
#include <string.h>

#include "gateway/conf_internal.h"

#define MS	  INT64_C(1000000)
#define SECOND	  (1000 * MS)
#define HOUR	  (3600 * SECOND)
#define KIB	  UINT64_C(1024)
#define MIB	  (KIB * KIB)
#define GIB	  (KIB * MIB)
#define ROW(s, m) offsetof(struct s, m)

static const char *const level_words[] = {"error", "warning", "info", "debug",
					  NULL};
static const char *const auth_words[] = {"auto", "token", "none", NULL};
static const char *const http_words[] = {"auto", "1.1", "2", NULL};
static const char *const dialect_words[] = {"auto", "0.2", "0.4", NULL};
static const char *const mode_words[] = {"auto", "latent", "json", NULL};
static const char *const path_words[] = {"auto", "agent", "plain", NULL};
static const char *const compression_words[] = {"none", "fast", "balanced",
						"max", NULL};

static const struct config_rule a_name = {
	avp__config_is_name,
	"an agent's id: 1-64 of [A-Za-z0-9._-], no leading "
	"dot"};
static const struct config_rule a_remote = {
	avp__config_is_name,
	"a remote agent's id: 1-64 of [A-Za-z0-9._-], no leading dot; \"*\" is "
	"none, local agents find each by its own name"};
static const struct config_rule a_path = {gw__conf_is_path,
					  "a path that begins with /"};
static const struct config_rule an_address = {
	gw__conf_is_address, "an IPv4 or IPv6 address, as 127.0.0.1 or ::"};
static const struct config_rule a_url = {
	gw__conf_is_url,
	"http:// or https://, a host, :port and path if need be, no more"};
static const struct config_rule a_hash = {gw__conf_is_hash,
					  "64 hexadecimal digits"};
static const struct config_rule a_pin = {
	gw__conf_is_pin, "sha256// and 44 characters of base64, up to 8 of "
			 "them with ; between"};

#define TEXT(s, name, rule)                                         \
	{                                                           \
#name, CONFIG_TEXT, 0, ROW(s, name), 0, 0, &rule, 0 \
	}
#define TEXTS(s, name, rule, most)                                      \
	{                                                               \
#name, CONFIG_TEXTS, 0, ROW(s, name), 0, most, &rule, 0 \
	}
#define WORD(s, name, words)                                        \
	{                                                           \
#name, CONFIG_WORD, 0, ROW(s, name), 0, 0, words, 0 \
	}
#define NUMBER(s, name, least, most)                                      \
	{                                                                 \
#name, CONFIG_UINT, 0, ROW(s, name), least, most, NULL, 0 \
	}
#define BYTES(s, key, name, least, most)                                 \
	{                                                                \
		key, CONFIG_BYTES, 0, ROW(s, name), least, most, NULL, 0 \
	}
#define TIME(s, key, name, least, most)                                 \
	{                                                               \
		key, CONFIG_TIME, 0, ROW(s, name), least, most, NULL, 0 \
	}

/* ---- listeners ---------------------------------------------------------- */

static const struct config_key listener_tls_keys[] = {
	TEXT(gw_conf_tls, cert, a_path),
	TEXT(gw_conf_tls, key, a_path),
	TEXT(gw_conf_tls, client_ca, a_path),
	{0},
};
static const struct config_nested listener_tls = {listener_tls_keys, 0, NULL};

static const struct config_key listener_keys[] = {
	TEXT(gw_conf_listener, address, an_address),
	NUMBER(gw_conf_listener, port, 0, 65535),
	{"tls", CONFIG_MAP, 0, ROW(gw_conf_listener, tls), 0, 0, &listener_tls,
	 ROW(gw_conf_listener, tls.given)},
	TEXT(gw_conf_listener, default_agent, a_name),
	WORD(gw_conf_listener, auth, auth_words),
	{0},
};

static void listener_begin(void *element)
{
	((struct gw_conf_listener *)element)->port = GW_DEFAULT_PORT;
}

static const struct config_nested listener = {
	listener_keys, sizeof(struct gw_conf_listener), listener_begin};

/* ---- tokens and limits -------------------------------------------------- */

static const struct config_key token_keys[] = {
	TEXT(gw_conf_token, name, a_name),
	TEXT(gw_conf_token, file, a_path),
	TEXT(gw_conf_token, sha256, a_hash),
	TEXTS(gw_conf_token, agents, a_name, GW_MAX_AGENTS),
	TEXT(gw_conf_token, default_agent, a_name),
	NUMBER(gw_conf_token, rate, 0, 10000000),
	{0},
};
static const struct config_nested token = {token_keys,
					   sizeof(struct gw_conf_token), NULL};

static const struct config_key limit_keys[] = {
	BYTES(gw_conf_limits, "body", body_bytes, 4 * KIB, 1024 * GIB),
	BYTES(gw_conf_limits, "header", header_bytes, 4 * KIB, MIB),
	NUMBER(gw_conf_limits, streams, 1, 65536),
	NUMBER(gw_conf_limits, connections, 1, 1000000),
	NUMBER(gw_conf_limits, requests_per_second, 0, 10000000),
	BYTES(gw_conf_limits, "window", window_bytes, 65535, GIB),
	BYTES(gw_conf_limits, "in_flight", in_flight_bytes, 0, 1024 * GIB),
	BYTES(gw_conf_limits, "body_min", body_min_bytes, 1, MIB),
	TIME(gw_conf_limits, "idle", idle_ns, SECOND, 24 * HOUR),
	TIME(gw_conf_limits, "header_time", header_ns, 10 * MS, HOUR),
	TIME(gw_conf_limits, "body_time", body_ns, 10 * MS, HOUR),
	TIME(gw_conf_limits, "ack_time", ack_ns, 10 * MS, 24 * HOUR),
	TIME(gw_conf_limits, "drain_time", drain_ns, 0, HOUR),
	{0},
};
static const struct config_nested limits = {limit_keys, 0, NULL};

/* ---- peers -------------------------------------------------------------- */

static const struct config_key peer_tls_keys[] = {
	TEXT(gw_conf_tls, ca, a_path),
	TEXT(gw_conf_tls, cert, a_path),
	TEXT(gw_conf_tls, key, a_path),
	TEXT(gw_conf_tls, pinned, a_pin),
	{0},
};
static const struct config_nested peer_tls = {peer_tls_keys, 0, NULL};

static const struct config_key peer_keys[] = {
	TEXT(gw_conf_peer, url, a_url),
	TEXTS(gw_conf_peer, agents, a_remote, GW_MAX_AGENTS),
	{"tls", CONFIG_MAP, 0, ROW(gw_conf_peer, tls), 0, 0, &peer_tls,
	 ROW(gw_conf_peer, tls.given)},
	TEXT(gw_conf_peer, token_file, a_path),
	WORD(gw_conf_peer, http, http_words),
	WORD(gw_conf_peer, dialect, dialect_words),
	WORD(gw_conf_peer, mode, mode_words),
	WORD(gw_conf_peer, path, path_words),
	WORD(gw_conf_peer, compression, compression_words),
	{"wait_result", CONFIG_BOOL, 0, ROW(gw_conf_peer, wait_result), 0, 0,
	 NULL, 0},
	NUMBER(gw_conf_peer, max_retries, 0, 1000),
	TIME(gw_conf_peer, "retry_delay", retry_delay_ns, MS, HOUR),
	NUMBER(gw_conf_peer, in_flight, 1, 65536),
	BYTES(gw_conf_peer, "in_flight_bytes", in_flight_bytes, 64 * KIB,
	      1024 * GIB),
	NUMBER(gw_conf_peer, connections, 1, 1024),
	TIME(gw_conf_peer, "connect_time", connect_ns, 10 * MS, HOUR),
	TIME(gw_conf_peer, "request_time", request_ns, 10 * MS, 24 * HOUR),
	BYTES(gw_conf_peer, "answer", answer_bytes, 4 * KIB, 4 * GIB),
	TIME(gw_conf_peer, "session", session_ns, SECOND, 24 * 365 * HOUR),
	{0},
};

/* retry_delay 0, max_retries UINT32_MAX: as section ahp says. */
static void peer_begin(void *element)
{
	struct gw_conf_peer *p = element;

	p->max_retries = UINT32_MAX;
	p->in_flight = 256;
	p->in_flight_bytes = 256 * MIB;
	p->connections = 4;
	p->connect_ns = 5 * SECOND;
	p->request_ns = 30 * SECOND;
	p->answer_bytes = 64 * MIB;
	p->session_ns = HOUR;
}

static const struct config_nested peer = {
	peer_keys, sizeof(struct gw_conf_peer), peer_begin};

/* ---- the section -------------------------------------------------------- */

static const struct config_key keys[] = {
	TEXT(gw_conf, id, a_name),
	WORD(gw_conf, log_level, level_words),
	{"limits", CONFIG_MAP, 0, ROW(gw_conf, limits), 0, 0, &limits,
	 ROW(gw_conf, limits.given)},
	{"listeners", CONFIG_LIST, 0, ROW(gw_conf, listener), 0,
	 GW_MAX_LISTENERS, &listener, ROW(gw_conf, listeners)},
	{"tokens", CONFIG_LIST, 0, ROW(gw_conf, token), 0, GW_MAX_TOKENS,
	 &token, ROW(gw_conf, tokens)},
	{"peers", CONFIG_LIST, 0, ROW(gw_conf, peer), 0, GW_MAX_PEERS, &peer,
	 ROW(gw_conf, peers)},
	{0},
};

static void defaults(struct gw_conf *c)
{
	ahp_config_defaults(&c->ahp);
	c->log_level = 2; /* info */
	c->limits = (struct gw_conf_limits){
		.body_bytes = GIB,
		.header_bytes = 64 * KIB,
		.streams = 128,
		.connections = 16384,
		.window_bytes = MIB,
		.body_min_bytes = 4 * KIB,
		.idle_ns = 75 * SECOND,
		.header_ns = 10 * SECOND,
		.body_ns = 30 * SECOND,
		.ack_ns = 30 * SECOND,
		.drain_ns = 30 * SECOND,
	};
}

static void inherit(struct gw_conf *c)
{
	for (uint32_t i = 0; i < c->peers; i++) {
		struct gw_conf_peer *p = &c->peer[i];

		if (p->max_retries == UINT32_MAX)
			p->max_retries = c->ahp.max_retries;
		if (!p->retry_delay_ns)
			p->retry_delay_ns = c->ahp.retry_delay_ns;
	}
}

static int read_into(struct gw_conf *c, const char *name, const void *text,
		     size_t len, struct avp_reason *why)
{
	struct config_section sections[AVP__CONFIG_SECTIONS];
	int err;

	avp__config_sections(sections, keys);
	defaults(c);
	strncat(c->ahp.file, name, sizeof(c->ahp.file) - 1);
	err = avp__config_parse(sections, c, name, text, len, why);
	if (err)
		return err;
	inherit(c);
	return gw__conf_check(c, name, why);
}

int gw_conf_parse(struct gw_conf **out, const char *name, const void *text,
		  size_t len, struct avp_reason *why)
{
	struct gw_conf *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory for the configuration");
	err = read_into(c, name, text, len, why);
	if (err) {
		gw_conf_free(c);
		return err;
	}
	*out = c;
	return 0;
}

int gw_conf_load(struct gw_conf **out, const char *path, struct avp_reason *why)
{
	char found[AHP_CONFIG_PATH];
	const char *from;
	char *text;
	size_t len;
	int err;

	if (!avp__config_find(path, found, &from))
		return gw_conf_parse(out, "", "", 0, why);
	err = avp__config_slurp(from, &text, &len, why);
	if (err)
		return err;
	err = gw_conf_parse(out, from, text, len, why);
	free(text);
	return err;
}

/* ---- freeing ------------------------------------------------------------ */

static void free_texts(struct avp__config_texts *texts)
{
	for (uint32_t i = 0; i < texts->count; i++)
		free(texts->item[i].text);
	free(texts->item);
}

static void free_tls(struct gw_conf_tls *tls)
{
	free(tls->cert.text);
	free(tls->key.text);
	free(tls->client_ca.text);
	free(tls->ca.text);
	free(tls->pinned.text);
}

static void free_peer(struct gw_conf_peer *p)
{
	free(p->url.text);
	free_texts(&p->agents);
	free_tls(&p->tls);
	free(p->token_file.text);
	if (p->token)
		explicit_bzero(p->token, strlen(p->token));
	free(p->token);
}

void gw_conf_free(struct gw_conf *c)
{
	if (!c || c->refs--)
		return;
	for (uint32_t i = 0; i < c->listeners; i++) {
		free(c->listener[i].address.text);
		free(c->listener[i].default_agent.text);
		free_tls(&c->listener[i].tls);
	}
	for (uint32_t i = 0; i < c->tokens; i++) {
		free(c->token[i].name.text);
		free(c->token[i].file.text);
		free(c->token[i].sha256.text);
		free(c->token[i].default_agent.text);
		free_texts(&c->token[i].agents);
	}
	for (uint32_t i = 0; i < c->peers; i++)
		free_peer(&c->peer[i]);
	free(c->listener);
	free(c->token);
	free(c->peer);
	free(c->id.text);
	free(c);
}
