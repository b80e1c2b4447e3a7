/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of the configuration, which file counts, and what follows from
 * it. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <avp/config.h>

#include "ahp/config_table.h"
#include "ahp/dedup.h"

#define SECOND	  UINT64_C(1000000000)
#define DAY	  (86400 * SECOND)
#define KIB	  UINT64_C(1024)
#define MIB	  (KIB * KIB)
#define TIB	  (MIB * MIB)
#define AT(field) offsetof(struct ahp_config, field)
#define PATH_MAX_ (AHP_CONFIG_PATH - 1)

static const char *const ack_words[] = {"auto", "explicit", NULL};
static const char *const wait_words[] = {"adaptive", "busy", "block", NULL};
static const char *const full_words[] = {"refuse", "drop_oldest", NULL};

static const struct config_key ahp_keys[] = {
	{"token_limit", CONFIG_UINT, 0, AT(token_limit), 1, INT32_MAX, 0, 0},
	{"task_timeout", CONFIG_TIME, 0, AT(task_timeout_ns), SECOND / 1000,
	 365 * DAY, 0, 0},
	{"receive_timeout", CONFIG_TIME, 0, AT(receive_timeout_ns),
	 SECOND / 1000, 365 * DAY, 0, 0},
	{"heartbeat_interval", CONFIG_TIME, 0, AT(heartbeat_interval_ns),
	 SECOND / 10, DAY, 0, 0},
	{"max_retries", CONFIG_UINT, 0, AT(max_retries), 0, 1000, 0, 0},
	{"retry_delay", CONFIG_TIME, 0, AT(retry_delay_ns), 0, DAY, 0, 0},
	{"dedup_ids", CONFIG_UINT, 0, AT(dedup_ids), 16, AHP__DEDUP_MAX, 0, 0},
	{"namespace", CONFIG_NAME, 0, AT(name_space), 1, AHP_ID_BYTES, 0, 0},
	{"runtime_dir", CONFIG_PATH, 0, AT(runtime_dir), 1, PATH_MAX_, 0, 0},
	{"ack", CONFIG_WORD, 0, AT(explicit_ack), 0, 0, ack_words, 0},
	{"reliable", CONFIG_BOOL, 0, AT(reliable), 0, 0, 0, 0},
	{"progress_thread", CONFIG_BOOL, 0, AT(progress_thread), 0, 0, 0, 0},
	{"allowed_uids", CONFIG_UIDS, 0, AT(allowed_uids), 0, AHP_CONFIG_UIDS,
	 0, AT(allowed_uid_count)},
	{0},
};

static const struct config_key shm_keys[] = {
	{"quota", CONFIG_BYTES, 0, AT(quota_bytes), MIB, 64 * TIB, 0, 0},
	{"first_segment", CONFIG_BYTES, 0, AT(first_segment_bytes), 64 * KIB,
	 TIB, 0, 0},
	{"reserve", CONFIG_BYTES, 0, AT(reserve_bytes), 0, 64 * TIB, 0, 0},
	{"huge_pages", CONFIG_BOOL, 0, AT(huge_pages), 0, 0, 0, 0},
	{"lock", CONFIG_BOOL, 0, AT(lock), 0, 0, 0, 0},
	{"prefault", CONFIG_BOOL, 0, AT(prefault), 0, 0, 0, 0},
	{"strict", CONFIG_BOOL, 0, AT(strict), 0, 0, 0, 0},
	{0},
};

static const struct config_key ring_keys[] = {
	{"window", CONFIG_UINT, CONFIG_POWER_OF_2, AT(window), 16, 65536, 0, 0},
	{"spin", CONFIG_TIME, 0, AT(spin_ns), SECOND / 1000000, SECOND / 100, 0,
	 0},
	{"yield", CONFIG_BOOL, 0, AT(yield), 0, 0, 0, 0},
	{"wait", CONFIG_WORD, 0, AT(wait), 0, 0, wait_words, 0},
	{0},
};

static const struct config_key dlq_keys[] = {
	{"dir", CONFIG_PATH, 0, AT(dlq_dir), 1, PATH_MAX_, 0, 0},
	{"max_bytes", CONFIG_BYTES, 0, AT(dlq_max_bytes), AHP_DLQ_MIN_BYTES,
	 64 * TIB, 0, 0},
	{"when_full", CONFIG_WORD, 0, AT(dlq_when_full), 0, 0, full_words, 0},
	{0},
};

static const struct config_section sections[] = {
	{"ahp", ahp_keys},
	{"shm", shm_keys},
	{"ring", ring_keys},
	{"dlq", dlq_keys},
	{"latent", NULL},
	{"gateway", NULL},
	{0},
};

void avp__config_sections(struct config_section to[AVP__CONFIG_SECTIONS],
			  const struct config_key *gateway)
{
	static_assert(sizeof(sections) / sizeof(*sections) <=
			      AVP__CONFIG_SECTIONS,
		      "avp__config_sections()");
	memcpy(to, sections, sizeof(sections));
	for (; to->name; to++)
		if (!strcmp(to->name, "gateway"))
			to->keys = gateway;
}

void ahp_config_defaults(struct ahp_config *c)
{
	memset(c, 0, sizeof(*c));
	c->token_limit = AHP_DEFAULT_TOKEN_LIMIT;
	c->max_retries = 3;
	c->task_timeout_ns = 60 * (int64_t)SECOND;
	c->receive_timeout_ns = 30 * (int64_t)SECOND;
	c->heartbeat_interval_ns = 30 * (int64_t)SECOND;
	c->retry_delay_ns = (int64_t)SECOND;
	c->dedup_ids = 65536;
	c->spin_ns = 50000;
	c->huge_pages = true;
	c->dlq_max_bytes = AHP_DLQ_MAX_BYTES;
}

/* ---- reading ------------------------------------------------------------- */

int ahp_config_parse(struct ahp_config *config, const char *name,
		     const void *text, size_t len, struct avp_reason *why)
{
	ahp_config_defaults(config);
	snprintf(config->file, sizeof(config->file), "%s", name);
	return avp__config_parse(sections, config, name, text, len, why);
}

int ahp_config_read(struct ahp_config *config, const char *path,
		    struct avp_reason *why)
{
	char *text;
	size_t len;
	int err = avp__config_slurp(path, &text, &len, why);

	if (err)
		return err;
	err = ahp_config_parse(config, path, text, len, why);
	free(text);
	return err;
}

/* Is there a file? One that we may not even see is none. */
static bool is_there(const char *path)
{
	struct stat st;

	return !stat(path, &st) ||
	       (errno != ENOENT && errno != ENOTDIR && errno != EACCES);
}

int avp__config_find(const char *path, char own[AHP_CONFIG_PATH],
		     const char **from)
{
	const char *named = getenv("AVP_CONFIG"), *home = getenv("HOME");
	int n;

	if (path || (named && *named)) {
		*from = path ? path : named;
		return 1;
	}
	n = snprintf(own, AHP_CONFIG_PATH, "%s/.config/avp/avp.yaml",
		     home ? home : "");
	if (home && *home && n > 0 && n < AHP_CONFIG_PATH && is_there(own))
		*from = own;
	else if (is_there("/etc/avp/avp.yaml"))
		*from = "/etc/avp/avp.yaml";
	else
		return 0;
	return 1;
}

int ahp_config_load(struct ahp_config *config, const char *path,
		    struct avp_reason *why)
{
	char own[AHP_CONFIG_PATH];
	const char *from;

	if (avp__config_find(path, own, &from))
		return ahp_config_read(config, from, why);
	ahp_config_defaults(config);
	return 0;
}

/* ---- what follows from it ------------------------------------------------ */

static uint32_t memory_flags(const struct ahp_config *c)
{
	return (c->huge_pages ? 0 : AVP_MEMORY_SMALL_PAGES) |
	       (c->lock ? AVP_MEMORY_LOCK : 0) |
	       (c->prefault ? AVP_MEMORY_PREFAULT : 0) |
	       (c->strict ? AVP_MEMORY_STRICT : 0);
}

static uint32_t agent_flags(const struct ahp_config *c)
{
	return (c->explicit_ack ? AHP_EXPLICIT_ACK : 0) |
	       (c->reliable ? AHP_RELIABLE : 0) |
	       (c->progress_thread ? AHP_PROGRESS_THREAD : 0) |
	       (c->yield ? AHP_YIELD : 0);
}

static const char *name_space_of(const struct ahp_config *c)
{
	const char *environment = getenv("AVP_NAMESPACE");

	return c->name_space[0] && !(environment && *environment)
		       ? c->name_space
		       : NULL;
}

/* Where 0 of an option would mean its default, 1 ns is as good as none. */
static void apply_ahp(const struct ahp_config *c, struct ahp_agent_options *o)
{
	if (!o->token_limit)
		o->token_limit = c->token_limit;
	if (!o->max_retries)
		o->max_retries = c->max_retries ? c->max_retries : AHP_NO_RETRY;
	if (!o->retry_delay_ns)
		o->retry_delay_ns = c->retry_delay_ns ? c->retry_delay_ns : 1;
	if (!o->task_timeout_ns)
		o->task_timeout_ns = c->task_timeout_ns;
	if (!o->receive_timeout_ns)
		o->receive_timeout_ns = c->receive_timeout_ns;
	if (!o->heartbeat_interval_ns)
		o->heartbeat_interval_ns = c->heartbeat_interval_ns;
}

void ahp_config_agent(const struct ahp_config *c, struct ahp_agent_options *o)
{
	const char *dir = getenv("AVP_RUNTIME_DIR");

	o->size = sizeof(*o);
	o->flags |= agent_flags(c);
	apply_ahp(c, o);
	if (!o->name_space)
		o->name_space = name_space_of(c);
	if (!o->runtime_dir && c->runtime_dir[0] && !(dir && *dir))
		o->runtime_dir = c->runtime_dir;
	if (!o->wait)
		o->wait = c->wait;
	if (!o->spin_ns)
		o->spin_ns = (uint32_t)c->spin_ns;
	if (!o->dedup_ids)
		o->dedup_ids = c->dedup_ids;
	if (!o->window)
		o->window = c->window;
	if (!o->quota_bytes)
		o->quota_bytes = c->quota_bytes;
	if (!o->first_segment_bytes)
		o->first_segment_bytes = c->first_segment_bytes;
	if (!o->reserve_bytes)
		o->reserve_bytes = c->reserve_bytes;
	if (!o->memory_flags)
		o->memory_flags = memory_flags(c);
	if (!o->allowed_uid_count) {
		o->allowed_uid_count = c->allowed_uid_count;
		o->allowed_uids = c->allowed_uids;
	}
}

void ahp_config_dlq(const struct ahp_config *c, struct ahp_dlq_options *o)
{
	o->size = sizeof(*o);
	if (c->dlq_when_full)
		o->flags |= AHP_DLQ_DROP_OLDEST;
	if (!o->dir && c->dlq_dir[0])
		o->dir = c->dlq_dir;
	if (!o->name_space)
		o->name_space = name_space_of(c);
	if (!o->max_bytes)
		o->max_bytes = c->dlq_max_bytes;
}
