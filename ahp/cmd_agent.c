/* SPDX-License-Identifier: Apache-2.0 */
/* Time, signals and bodies, for the commands that deal with agents. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <avp/latent.h>

#include "ahp/cmd_agent.h"
#include "codec/wire.h"

#define SLICE_NS   100000000ll
#define OPEN_TRIES 16

/* ---- time and signals --------------------------------------------------- */

int64_t cmd_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

int64_t cmd_end_ns(int64_t timeout_ns)
{
	return timeout_ns == AHP_FOREVER ? AHP_FOREVER
					 : cmd_now_ns() + timeout_ns;
}

int64_t cmd_slice_ns(int64_t end_ns)
{
	int64_t left = end_ns == AHP_FOREVER ? SLICE_NS : end_ns - cmd_now_ns();

	return left < 0 ? 0 : left < SLICE_NS ? left : SLICE_NS;
}

static volatile sig_atomic_t signal_seen;

static void note_signal(int number)
{
	signal_seen = number;
}

void cmd_catch_signals(void)
{
	/* The second one ends a program that hangs in a full pipe, say. */
	struct sigaction action = {.sa_handler = note_signal,
				   .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

int cmd_signal(void)
{
	return signal_seen;
}

int cmd_interrupted(struct avp_reason *why)
{
	return avp__fail(why, AVP_TIMEOUT, "ended by signal %d", cmd_signal());
}

/* ---- configuration ------------------------------------------------------ */

const struct ahp_config *cmd_configuration(struct avp_reason *why)
{
	static struct ahp_config config;
	static bool loaded;

	if (!loaded && ahp_config_load(&config, cmd_config(), why))
		return NULL;
	loaded = true;
	return &config;
}

int cmd_agent_options(struct ahp_agent_options *o, struct avp_reason *why)
{
	const struct ahp_config *config = cmd_configuration(why);
	uint32_t flags = o->flags;

	if (!config)
		return why->code;
	if (!o->name_space)
		o->name_space = cmd_namespace();
	ahp_config_agent(config, o);
	o->flags = flags;
	o->reserve_bytes = 0; /* a tool knows what it needs */
	return 0;
}

int cmd_agent_open(struct ahp_agent **agent, struct avp_reason *why)
{
	struct ahp_agent_options options = {0};
	char id[AHP_ID_BYTES + 1];
	int err = cmd_agent_options(&options, why);

	/* Another pid namespace may have our number. */
	for (int i = 0; !err && i < OPEN_TRIES; i++) {
		snprintf(id, sizeof(id), i ? "avpctl-%d-%d" : "avpctl-%d",
			 (int)getpid(), i);
		options.id = id;
		err = ahp_agent_open(agent, &options, why);
		if (err != AVP_NAME_TAKEN)
			break;
		if (i + 1 < OPEN_TRIES)
			err = 0;
	}
	return err;
}

int cmd_agent_model(struct ahp_agent *agent, const char *config_file,
		    struct avp_reason *why)
{
	struct avp_config *config = NULL;
	struct cmd_file file = {0};
	int err = cmd_file_read(&file, config_file, AVP_CONFIG_BYTES, why);

	if (!err)
		err = avp_config_open(&config, file.data, file.len, why);
	if (!err)
		err = ahp_agent_set_identity(agent, avp_config_identity(config),
					     why);
	avp_config_close(config);
	cmd_file_fini(&file);
	return err;
}

int cmd_observe(ahp_visit *visit, void *arg, struct avp_reason *why)
{
	struct ahp_agent_options options = {0};
	int err = cmd_agent_options(&options, why);

	return err ? err
		   : ahp_observe(options.runtime_dir, options.name_space, visit,
				 arg, why);
}

/* ---- what is printed ---------------------------------------------------- */

void cmd_member_foreign(struct avp_json_writer *w, const char *key,
			struct avp_str text)
{
	char clean[256];

	if (avp__utf8_valid(text.data, text.len)) {
		avp_json_member_string(w, key, text);
		return;
	}
	if (text.len > sizeof(clean))
		text.len = sizeof(clean);
	for (size_t i = 0; i < text.len; i++)
		clean[i] = text.data[i] & 0x80 ? '?' : text.data[i];
	text.data = clean;
	avp_json_member_string(w, key, text);
}

void cmd_put_stats(struct avp_json_writer *w, const struct ahp_stats *s)
{
	avp_json_member_uint(w, "sent", s->sent);
	avp_json_member_uint(w, "received", s->received);
	avp_json_member_uint(w, "acked", s->acked);
	avp_json_member_uint(w, "rejected", s->rejected);
	avp_json_member_uint(w, "retried", s->retried);
	avp_json_member_uint(w, "redelivered", s->redelivered);
	avp_json_member_uint(w, "duplicates", s->duplicates);
	avp_json_member_uint(w, "dead", s->dead);
	avp_json_member_uint(w, "kept", s->kept);
	avp_json_member_uint(w, "in_flight", s->in_flight);
	avp_json_member_uint(w, "bytes_sent", s->bytes_sent);
	avp_json_member_uint(w, "bytes_received", s->bytes_received);
	avp_json_member_uint(w, "bytes_lent", s->bytes_lent);
	avp_json_member_uint(w, "wakes", s->wakes);
	avp_json_member_uint(w, "late_wakes", s->late_wakes);
	avp_json_member_uint(w, "poisoned", s->poisoned);
	avp_json_member_uint(w, "links", s->links);
}

/* ---- bodies ------------------------------------------------------------- */

/* The sender may change its memory while we look: a copy is what is looked
 * at. */
static int copy_body(struct cmd_body *b, const struct ahp_message *m,
		     struct avp_reason *why)
{
	uint64_t max = m->kind == AHP_JSON ? AVP_JSON_MAX_BYTES : CMD_INPUT_MAX;

	if (m->body_bytes > max)
		return avp__fail(
			why, AVP_TOO_LARGE,
			"a body of %llu bytes; %llu are the limit here",
			(unsigned long long)m->body_bytes,
			(unsigned long long)max);
	if (m->body_bytes > b->copy.capacity) {
		cmd_file_fini(&b->copy);
		b->copy.data = malloc(m->body_bytes);
		if (!b->copy.data)
			return avp__fail(why, AVP_NO_MEMORY,
					 "no memory for a body of %llu bytes",
					 (unsigned long long)m->body_bytes);
		b->copy.capacity = m->body_bytes;
	}
	b->copy.len = m->body_bytes;
	return b->copy.len ? ahp_message_copy(m, 0, b->copy.data, b->copy.len)
			   : 0;
}

int cmd_body_read(struct cmd_body *b, const struct ahp_message *m,
		  struct avp_reason *why)
{
	int err = copy_body(b, m, why);

	avp_json_free(b->doc);
	b->doc = NULL;
	b->kind = m->kind;
	if (err)
		return err;
	if (m->kind == AHP_FRAME)
		return cmd_content_decode(&b->content, b->copy.data,
					  b->copy.len, why);
	err = avp_json_parse(&b->doc, b->copy.len ? (void *)b->copy.data : "",
			     b->copy.len, NULL, why);
	return err ? err
		   : avp_json_expect_object(avp_json_root(b->doc),
					    "a message's payload", why);
}

void cmd_body_fini(struct cmd_body *b)
{
	cmd_file_fini(&b->copy);
	cmd_content_fini(&b->content);
	avp_json_free(b->doc);
}

int cmd_put_body(struct avp_json_writer *w, const struct cmd_body *b,
		 struct avp_reason *why)
{
	int err;

	if (b->kind == AHP_JSON) {
		avp_json_put(w, avp_json_root(b->doc));
		return 0;
	}
	avp_json_open_object(w);
	err = cmd_put_frame(w, &b->content, why);
	avp_json_close_object(w);
	return err;
}
