/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/config.h>: the one YAML file that agents, avpctl and the gateway read.
 *
 * It is a mapping of sections: ahp, shm, ring and dlq, which are read here, key
 * by key; and latent and gateway, of which only the names are known here: their
 * owners check what is in them. Every key is optional. avp.example.yaml, which
 * is installed as an example, explains them all.
 *
 * Reading is strict: a section or key that is not known, one that comes twice,
 * a value of another type or out of range, an anchor, alias or tag, a second
 * document, nesting beyond AHP_CONFIG_MAX_DEPTH, a file over
 * AHP_CONFIG_MAX_BYTES, or one that cannot be read is AVP_BAD_CONFIG, and the
 * reason says "file:line:column: what was found; what was expected".
 *
 * Units: 500ms, 30s, 2.5s, 1m, 1h; a time without a unit is in seconds. 64KiB,
 * 1MiB, 2GiB, 1TiB, 10B; a size without a unit is in bytes.
 *
 * No state, no threads: a struct ahp_config is plain memory of the caller's.
 */
#ifndef AVP_CONFIG_H
#define AVP_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/ahp.h>
#include <avp/dlq.h>
#include <avp/error.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define AHP_CONFIG_MAX_BYTES (1u << 20)
#define AHP_CONFIG_MAX_DEPTH 32u
#define AHP_CONFIG_PATH	     4096
#define AHP_CONFIG_UIDS	     64

/* Filled by ahp_config_defaults(), then by what a file says. */
struct ahp_config {
	/* The file it was read from; "" for the defaults alone. */
	char file[AHP_CONFIG_PATH];

	/* ahp */
	char name_space[AHP_ID_BYTES + 1]; /* "": not given */
	char runtime_dir[AHP_CONFIG_PATH]; /* "": not given */
	uint32_t token_limit;		   /* 500 */
	uint32_t max_retries;		   /* 3 */
	int64_t task_timeout_ns;	   /* 60 s */
	int64_t receive_timeout_ns;	   /* 30 s */
	int64_t heartbeat_interval_ns;	   /* 30 s */
	int64_t retry_delay_ns;		   /* 1 s */
	uint32_t dedup_ids;		   /* 65536 */
	uint32_t explicit_ack;		   /* enum: 0 auto, 1 explicit */
	bool reliable;			   /* AHP_RELIABLE */
	bool progress_thread;		   /* AHP_PROGRESS_THREAD */
	uint32_t allowed_uid_count;
	uint32_t allowed_uids[AHP_CONFIG_UIDS];

	/* shm; 0 is the arena's own default */
	uint64_t quota_bytes;
	uint64_t first_segment_bytes;
	uint64_t reserve_bytes; /* 0: none */
	bool huge_pages;	/* true */
	bool lock, prefault, strict;

	/* ring */
	uint32_t window; /* 0: 1024 */
	uint32_t wait;	 /* enum ahp_wait */
	int64_t spin_ns; /* 50 us */
	bool yield;	 /* AHP_YIELD */

	/* dlq */
	char dlq_dir[AHP_CONFIG_PATH]; /* "": not given */
	uint64_t dlq_max_bytes;	       /* AHP_DLQ_MAX_BYTES */
	uint32_t dlq_when_full;	       /* 0 refuse, 1 drop_oldest */
};

void ahp_config_defaults(struct ahp_config *config);

/*
 * Reads a text; name is what errors call it. *config is filled with the
 * defaults and what the text says. 0, AVP_BAD_CONFIG with *config in no
 * particular state, or AVP_NO_MEMORY.
 */
int ahp_config_parse(struct ahp_config *config, const char *name,
		     const void *text, size_t len, struct avp_reason *why);

/* The same for a file. */
int ahp_config_read(struct ahp_config *config, const char *path,
		    struct avp_reason *why);

/*
 * Reads the file that counts: path (a --config), else $AVP_CONFIG, else
 * ~/.config/avp/avp.yaml if there is one, else /etc/avp/avp.yaml if there is
 * one, else none: the defaults. The first two have to be there.
 */
int ahp_config_load(struct ahp_config *config, const char *path,
		    struct avp_reason *why);

/*
 * Fills the options of an agent with what the configuration says, but for what
 * they say already (anything not 0; flags are added to those that are there,
 * so a program that cannot do with one takes it away afterwards). The
 * namespace too, unless $AVP_NAMESPACE is set: the environment outranks the
 * file. Strings and uids are borrowed from *config. The size is set.
 */
void ahp_config_agent(const struct ahp_config *config,
		      struct ahp_agent_options *options);

/* The same for a dead letter queue. */
void ahp_config_dlq(const struct ahp_config *config,
		    struct ahp_dlq_options *options);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
