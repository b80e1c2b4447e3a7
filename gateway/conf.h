/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway's configuration: section `gateway` of the file, and the sections
 * that every agent has. avp.example.yaml explains each key. Reading is as
 * strict as that of <avp/config.h>, with the same errors.
 */
#ifndef AVP_GATEWAY_CONF_H
#define AVP_GATEWAY_CONF_H

#include <avp/config.h>

#include "ahp/config_table.h"

#define GW_DEFAULT_PORT	 8420
#define GW_MAX_LISTENERS 32
#define GW_MAX_TOKENS	 4096
#define GW_MAX_PEERS	 256
#define GW_MAX_AGENTS	 256 /* behind a peer, or that a token reaches */

/* A listener's or peer's files of TLS; text NULL: not given. */
struct gw_conf_tls {
	bool given; /* there is a section tls */
	struct avp__config_text cert, key;
	struct avp__config_text client_ca; /* listener: clients must have one */
	struct avp__config_text ca;	   /* peer: instead of the system's */
	struct avp__config_text pinned;	   /* peer: sha256//BASE64 of its key */
};

struct gw_conf_listener {
	struct avp__config_mark at;
	struct avp__config_text address; /* an IP address */
	uint32_t port;
	struct gw_conf_tls tls;
	struct avp__config_text default_agent;
	uint32_t auth; /* enum gw_auth */
};

enum gw_auth {
	GW_AUTH_AUTO, /* tokens are asked for if there are any */
	GW_AUTH_TOKEN,
	GW_AUTH_NONE
};

struct gw_conf_token {
	struct avp__config_mark at;
	struct avp__config_text name;	 /* for the log */
	struct avp__config_text file;	 /* that holds it ... */
	struct avp__config_text sha256;	 /* ... or its SHA-256, 64 hex digits */
	struct avp__config_texts agents; /* none: all */
	struct avp__config_text default_agent; /* instead of the listener's */
	uint32_t rate;	  /* requests a second; 0: as limits say */
	uint8_t hash[32]; /* SHA-256 of the token: from file or sha256 */
};

struct gw_conf_limits {
	bool given;
	uint64_t body_bytes;	      /* 1 GiB; of a request */
	uint64_t header_bytes;	      /* 64 KiB; all of them together */
	uint32_t streams;	      /* 128; at once on an HTTP/2 connection */
	uint32_t connections;	      /* 16384 */
	uint32_t requests_per_second; /* per token (or address); 0: no limit */
	uint64_t
		window_bytes; /* 1 MiB; HTTP/2, of a stream; x4 of a connection */
	uint64_t in_flight_bytes; /* 0: no limit but the arena's */
	int64_t idle_ns;	  /* 75 s; a connection without requests */
	int64_t header_ns; /* 10 s; from a request's first byte to its header */
	int64_t body_ns;   /* 30 s; without body_min_bytes of progress */
	uint64_t body_min_bytes; /* 4 KiB; in each body_ns */
	int64_t ack_ns;	  /* 30 s; for the agent's acknowledgement, or RESULT */
	int64_t drain_ns; /* 30 s; after SIGTERM */
};

enum gw_http { GW_HTTP_AUTO, GW_HTTP_1_1, GW_HTTP_2 };
enum gw_dialect { GW_DIALECT_AUTO, GW_DIALECT_0_2, GW_DIALECT_0_4 };
enum gw_mode { GW_MODE_AUTO, GW_MODE_LATENT, GW_MODE_JSON };
enum gw_path { GW_PATH_AUTO, GW_PATH_AGENT, GW_PATH_PLAIN };

struct gw_conf_peer {
	struct avp__config_mark at;
	struct avp__config_text url;
	struct avp__config_texts agents;
	struct gw_conf_tls tls;
	struct avp__config_text token_file;
	char *token;			    /* what is in it; NULL: none */
	uint32_t http, dialect, mode, path; /* the enums above */
	uint32_t compression; /* 0 none, 1 fast, 2 balanced, 3 max */
	bool wait_result;     /* the answer to a TASK shall be its RESULT */
	uint32_t max_retries;
	int64_t retry_delay_ns;
	uint32_t in_flight; /* 256 messages at once */
	uint64_t in_flight_bytes;
	uint32_t connections;
	int64_t connect_ns, request_ns;
	uint64_t answer_bytes; /* 64 MiB */
	int64_t session_ns;    /* a handshake's life when the peer says none */
};

struct gw_conf {
	struct ahp_config ahp;	    /* first: the tables of ahp/ fill it */
	uint32_t refs;		    /* gw_conf_ref() */
	struct avp__config_text id; /* of the gateway's own agent */
	uint32_t log_level;	    /* enum gw_log_level */
	struct gw_conf_limits limits;
	struct gw_conf_listener *listener;
	uint32_t listeners;
	struct gw_conf_token *token;
	uint32_t tokens;
	struct gw_conf_peer *peer;
	uint32_t peers;
};

/* The id of the gateway's own agent. */
static inline const char *gw_conf_id(const struct gw_conf *c)
{
	return c->id.text ? c->id.text : "gateway";
}

/*
 * Reads a configuration: path, or as ahp_config_load() finds it. Token files
 * are read and the other files seen to be there: what is wrong is told with
 * the place that named them. *conf is for gw_conf_free(). AVP_BAD_CONFIG,
 * AVP_NO_MEMORY.
 */
int gw_conf_load(struct gw_conf **conf, const char *path,
		 struct avp_reason *why);
/* The same from a text; name is what errors call it. */
int gw_conf_parse(struct gw_conf **conf, const char *name, const void *text,
		  size_t len, struct avp_reason *why);

/* Another holder, who calls gw_conf_free() too; the last one frees it. */
static inline struct gw_conf *gw_conf_ref(struct gw_conf *conf)
{
	conf->refs++;
	return conf;
}
void gw_conf_free(struct gw_conf *conf); /* wipes the tokens; NULL is allowed */

#endif
