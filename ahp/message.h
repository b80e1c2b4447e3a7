/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/message.h>: what AHP messages say, apart from how they travel: the JSON
 * form, the payloads of the seven methods, times and ids, errors, token limits,
 * the compact instruction, sessions.
 *
 * Source of every name and default: the AHP specification and its reference
 * implementation. Reading is strict: a known key of another JSON type or out of
 * range is AVP_INVALID_MESSAGE, null counts as absent, unknown keys are
 * ignored. What is read is borrowed from the parsed document; what is written
 * is appended to a buffer, with 0, AVP_NO_MEMORY, or AVP_SERIALIZATION_ERROR
 * for a string that is no UTF-8. Objects are used by one thread at a time.
 */
#ifndef AVP_MESSAGE_H
#define AVP_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/error.h>
#include <avp/hello.h>
#include <avp/json.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- methods ------------------------------------------------------------ */

enum ahp_method {
	AHP_OTHER = 0, /* none of the seven; its text tells */
	AHP_TASK = 1,
	AHP_ACK = 2,
	AHP_RESULT = 3,
	AHP_PROGRESS = 4,
	AHP_HEARTBEAT = 5,
	AHP_TOKEN_REQUEST = 6,
	AHP_TOKEN_RESPONSE = 7
};

/* "TASK" ...; NULL for a number that is no method. Static storage. */
const char *ahp_method_name(uint32_t method);
enum ahp_method ahp_method_of(struct avp_str name);

#define AHP_DEFAULT_TOKEN_LIMIT 500

/* ---- times -------------------------------------------------------------- */

/*
 * A timestamp as it was written: the reference writes local time without zone.
 * zone says what stands behind the seconds.
 */
enum ahp_zone {
	AHP_ZONE_NONE = 0,   /* nothing: somebody's local time */
	AHP_ZONE_OFFSET = 1, /* +02:00 */
	AHP_ZONE_Z = 2	     /* Z: what we write for times of our own */
};

struct ahp_time {
	uint16_t year; /* 1-9999 */
	uint8_t month, day, hour, minute, second;
	uint8_t zone; /* enum ahp_zone */
	uint32_t microsecond;
	uint32_t reserved;
	int64_t offset_us; /* east of UTC, in microseconds; within a day */
};

#define AHP_TIME_BYTES 48

/*
 * Reads what Python 3.11's datetime.fromisoformat() reads: dates with and
 * without '-', weeks (2025-W01-4), any one character between date and time, a
 * fraction after '.' or ',', a zone or none; Z becomes an offset of 0. 0, or
 * AVP_INVALID_MESSAGE.
 */
int ahp_time_read(struct ahp_time *time, struct avp_str text,
		  struct avp_reason *why);

/*
 * Writes what isoformat() writes ("2025-01-02T03:04:05.000010+02:00", the
 * fraction only if it is not 0), or Z; returns the length, NUL-terminated.
 */
size_t ahp_time_write(const struct ahp_time *time, char text[AHP_TIME_BYTES]);

/* A Unix time (CLOCK_REALTIME), to the microsecond, as UTC with Z. */
struct ahp_time ahp_time_from_unix_ns(int64_t ns);

/* Now. */
struct ahp_time ahp_time_now(void);

/* ---- message ids -------------------------------------------------------- */

#define AHP_ID_TEXT_BYTES 37

/*
 * The 16 bytes of a message id: those of a UUID's text, in either case; of any
 * other text the first 16 of its SHA-256. 0 or AVP_NO_MEMORY.
 */
int ahp_id_read(uint8_t id[16], struct avp_str text);

/* The UUID's text, in lower case. */
void ahp_id_write(const uint8_t id[16], char text[AHP_ID_TEXT_BYTES]);

/*
 * The id that a place in a lane implies: a UUID of version 8 out of the first
 * 60 bits of the lane's epoch and the low 62 of the sequence.
 */
void ahp_id_of_sequence(uint8_t id[16], const uint8_t epoch[16],
			uint64_t sequence);

/* A random UUID (version 4); 0, or AVP_IO without randomness. */
int ahp_id_random(uint8_t id[16]);

/* ---- the JSON form ------------------------------------------------------ */

/*
 * A message as remote peers, the dead letter queue and people see it: nine
 * keys, in this order.
 */
struct ahp_envelope {
	struct avp_str method; /* as it was written: ahp_method_of() */
	struct avp_str agent_id, target_agent, task_id, session_id;
	/* An object; NULL: what payload_json says, or if empty {}. */
	const struct avp_json *payload;
	struct avp_str payload_json; /* for writing: an object as text */
	int64_t token_limit;	     /* from 0 on; 500 when absent */
	struct ahp_time timestamp;   /* year 0: absent, and written as now */
	struct avp_str message_id;   /* data NULL: absent, left out */
};

/* From a parsed text. 0 or AVP_INVALID_MESSAGE. */
int ahp_envelope_read(struct ahp_envelope *envelope,
		      const struct avp_json *root, struct avp_reason *why);

/* Writes it as the next value. */
void ahp_envelope_put(struct avp_json_writer *w,
		      const struct ahp_envelope *envelope);

/* The whole text, in a style of <avp/json.h>. */
int ahp_envelope_write(struct avp_buf *buf, const struct ahp_envelope *envelope,
		       uint32_t style);

/* ---- payloads ----------------------------------------------------------- */

/*
 * The payloads with fixed keys, each read from a payload object and written as
 * the next value. A timestamp of year 0 is absent and written as now.
 */
struct ahp_ack_payload {
	struct avp_str original_message_id;
	struct avp_str ack_status; /* data NULL: "received" */
	struct ahp_time timestamp;
};

struct ahp_result_payload {
	const struct avp_json *result; /* an object; NULL: as in envelopes */
	struct avp_str result_json;
	struct avp_str status; /* data NULL: "success" */
};

struct ahp_progress_payload {
	double progress;
	struct avp_str message;
};

struct ahp_heartbeat_payload {
	struct ahp_time timestamp;
};

/* The keys are ours: the reference names the methods but never sends them. */
struct ahp_token_request_payload {
	uint64_t tokens; /* wanted */
};

struct ahp_token_response_payload {
	uint64_t tokens;    /* granted: what was wanted or less */
	uint64_t remaining; /* left of the agent's limit */
};

int ahp_ack_read(struct ahp_ack_payload *ack, const struct avp_json *payload,
		 struct avp_reason *why);
void ahp_ack_put(struct avp_json_writer *w, const struct ahp_ack_payload *ack);
int ahp_result_read(struct ahp_result_payload *result,
		    const struct avp_json *payload, struct avp_reason *why);
void ahp_result_put(struct avp_json_writer *w,
		    const struct ahp_result_payload *result);
int ahp_progress_read(struct ahp_progress_payload *progress,
		      const struct avp_json *payload, struct avp_reason *why);
void ahp_progress_put(struct avp_json_writer *w,
		      const struct ahp_progress_payload *progress);
int ahp_heartbeat_read(struct ahp_heartbeat_payload *heartbeat,
		       const struct avp_json *payload, struct avp_reason *why);
void ahp_heartbeat_put(struct avp_json_writer *w,
		       const struct ahp_heartbeat_payload *heartbeat);
int ahp_token_request_read(struct ahp_token_request_payload *request,
			   const struct avp_json *payload,
			   struct avp_reason *why);
void ahp_token_request_put(struct avp_json_writer *w,
			   const struct ahp_token_request_payload *request);
int ahp_token_response_read(struct ahp_token_response_payload *response,
			    const struct avp_json *payload,
			    struct avp_reason *why);
void ahp_token_response_put(struct avp_json_writer *w,
			    const struct ahp_token_response_payload *response);

/*
 * What a sender makes of a TASK's payload: the same object with the key
 * compact_instruction added (or replaced), built from the payload's user_info,
 * category and instruction, a context (may be empty) and the token limit (0:
 * default_limit). payload NULL counts as {}. AVP_INVALID_MESSAGE as for
 * ahp_instruction_write().
 */
int ahp_task_payload_write(struct avp_buf *buf, const struct avp_json *payload,
			   struct avp_str context, int64_t token_limit,
			   int64_t default_limit, uint32_t style,
			   struct avp_reason *why);

/* ---- errors ------------------------------------------------------------- */

/* AHP's error object; code is one of the eight, AVP_UNKNOWN by default. */
struct ahp_error {
	struct avp_str message;
	int code;
	struct avp_str agent_id, task_id;
	const struct avp_json *details; /* an object; NULL: as in envelopes */
	struct avp_str details_json;
};

/* 0 or AVP_INVALID_MESSAGE. */
int ahp_error_read(struct ahp_error *error, const struct avp_json *root,
		   struct avp_reason *why);
/* A code that is none of the eight is written as UNKNOWN. */
void ahp_error_put(struct avp_json_writer *w, const struct ahp_error *error);

/* ---- compact instruction ------------------------------------------------ */

struct ahp_instruction {
	const struct avp_json *user_profile; /* an object; NULL: {} */
	const struct avp_json *task;	     /* an object; NULL: {} */
	struct avp_str context;
	int64_t max_tokens; /* 0: default_limit; negative: room for nothing */
	int64_t default_limit;
};

/*
 * Appends the instruction's text to buf, UTF-8 (a lone surrogate of the input
 * stays one, see <avp/json.h>). Lengths count code points; values that are not
 * strings appear as Python's str() shows them. AVP_INVALID_MESSAGE for hobbies
 * that are not strings, or when profile or task is no object.
 */
int ahp_instruction_write(struct avp_buf *buf,
			  const struct ahp_instruction *instruction,
			  struct avp_reason *why);

/* ---- token control ------------------------------------------------------ */

/*
 * The leader's account of tokens: a default limit, limits of single agents, and
 * what was granted to each. A grant is never more than what is left, so the
 * rest never goes below zero.
 */
struct ahp_tokens;

#define AHP_TOKENS_MAX_AGENTS 65536u /* names come from peers: bounded */

/* 0, AVP_NO_MEMORY, AVP_INVALID_MESSAGE for a negative limit. */
int ahp_tokens_new(struct ahp_tokens **tokens, int64_t default_limit,
		   struct avp_reason *why);
void ahp_tokens_free(struct ahp_tokens *tokens);

/*
 * What was granted stays granted, even above a lower limit. 0, or
 * AVP_NO_MEMORY, AVP_INVALID_MESSAGE (negative), AVP_QUEUE_FULL (too many
 * agents).
 */
int ahp_tokens_set_limit(struct ahp_tokens *tokens, struct avp_str agent,
			 int64_t limit, struct avp_reason *why);
/* The agent's limit or the default one. */
int64_t ahp_tokens_get_limit(const struct ahp_tokens *tokens,
			     struct avp_str agent);

/* What the agent may still be granted. */
int64_t ahp_tokens_remaining(const struct ahp_tokens *tokens,
			     struct avp_str agent);

/*
 * Grants what is left of `wanted` and accounts for it: *granted from 0 to
 * wanted. Errors as for ahp_tokens_set_limit().
 */
int ahp_tokens_grant(struct ahp_tokens *tokens, struct avp_str agent,
		     uint64_t wanted, uint64_t *granted,
		     struct avp_reason *why);

/* Gives back what was granted but not used; more than that is ignored. */
void ahp_tokens_return(struct ahp_tokens *tokens, struct avp_str agent,
		       uint64_t unused);

/* ---- retry counts and heartbeats, by hand ------------------------------- */

/*
 * The reference's explicit calls, for programs that decide on retries and on
 * who is alive themselves; agents do both on their own. At most
 * AHP_RETRIES_MAX entries each: AVP_QUEUE_FULL beyond, AVP_NO_MEMORY.
 */
#define AHP_RETRIES_MAX 65536u

struct ahp_retries;
int ahp_retries_new(struct ahp_retries **retries, uint32_t max_retries);
void ahp_retries_free(struct ahp_retries *retries);

/* Is the message's count below the maximum? One never counted has 0. */
bool ahp_should_retry(const struct ahp_retries *retries, const uint8_t id[16]);
uint32_t ahp_retry_count(const struct ahp_retries *retries,
			 const uint8_t id[16]);
/* Counts one more; *count (may be NULL) is what it is then. */
int ahp_increment_retry(struct ahp_retries *retries, const uint8_t id[16],
			uint32_t *count);
/* Forgets the message. */
void ahp_reset_retry(struct ahp_retries *retries, const uint8_t id[16]);

/*
 * When who was heard of last. now_ns is of any monotonic clock. An agent that
 * was never heard of counts as alive, as one does that was heard of less than
 * timeout_ns ago.
 */
struct ahp_heartbeats;
int ahp_heartbeats_new(struct ahp_heartbeats **heartbeats);
void ahp_heartbeats_free(struct ahp_heartbeats *heartbeats);
int ahp_heartbeat_update(struct ahp_heartbeats *heartbeats,
			 struct avp_str agent, int64_t now_ns);
bool ahp_heartbeat_alive(const struct ahp_heartbeats *heartbeats,
			 struct avp_str agent, int64_t timeout_ns,
			 int64_t now_ns);

enum ahp_liveness {
	AHP_NEVER_SEEN = 0, /* no link to it was ever up; nothing was heard */
	AHP_ALIVE = 1,
	AHP_STUCK = 2, /* there, and silent for longer than it should be */
	AHP_DEAD = 3   /* it has hung up, its process has ended; silence */
};

/*
 * For agents of other hosts, of which only silence can be seen. Whoever keeps
 * the connection (the gateway) calls ahp_heartbeat_update() for all that comes
 * from one, and, at least once in each interval, ahp_heartbeat_due(), which
 * says true when interval_ns have passed since it last did (or on first
 * asking): then it sends what ahp_heartbeat_write() appends, a HEARTBEAT in
 * its JSON form (or, as avp-gateway, the same as a text message). An agent is
 * stuck when AHP_HEARTBEATS_STUCK intervals have passed in silence, one more
 * than may be late, and dead after AHP_HEARTBEATS_DEAD.
 */
#define AHP_HEARTBEATS_STUCK 2
#define AHP_HEARTBEATS_DEAD  5

enum ahp_liveness ahp_heartbeat_liveness(
	const struct ahp_heartbeats *heartbeats, struct avp_str agent,
	int64_t interval_ns, int64_t now_ns);
bool ahp_heartbeat_due(struct ahp_heartbeats *heartbeats, struct avp_str agent,
		       int64_t interval_ns, int64_t now_ns);
int ahp_heartbeat_write(struct avp_buf *buf, struct avp_str from,
			struct avp_str to);

/* ---- sessions ----------------------------------------------------------- */

/*
 * Sessions between agents with their models. A session is expired when now is
 * later than created + ttl. The clock is the caller's: seconds of any monotonic
 * clock, as the reference's (its TTL and its recorded steps are in seconds).
 */
struct ahp_sessions;

#define AHP_SESSION_ID_BYTES   33     /* 32 hexadecimal digits and a NUL */
#define AHP_SESSION_TTL	       3600.0 /* s, the default */
#define AHP_SESSION_MAX_AGENTS 64u
#define AHP_SESSIONS_MAX       65536u /* remote peers open them: bounded */

struct ahp_session_agent {
	struct avp_str agent_id;
	struct avp_identity identity;
};

struct ahp_session {
	char id[AHP_SESSION_ID_BYTES];
	uint32_t mode; /* 0 LATENT, 1 HYBRID, 2 JSON */
	uint32_t agent_count;
	double created_s, ttl_s;
	const struct ahp_session_agent *agents;
};

/* A default of 0 or less is taken as it is. AVP_NO_MEMORY. */
int ahp_sessions_new(struct ahp_sessions **sessions, double default_ttl_s);
void ahp_sessions_free(struct ahp_sessions *sessions);

/*
 * Opens a session; agents are copied. A NaN for ttl_s means the default; zero
 * and negative ones make a session that is expired at once or nearly.
 * *session belongs to the sessions until it is removed. When there are
 * AHP_SESSIONS_MAX the expired ones are removed first; AVP_QUEUE_FULL if there
 * are none; AVP_USAGE for too many agents, AVP_NO_MEMORY, AVP_IO (no
 * randomness for the id).
 */
int ahp_session_create(struct ahp_sessions *sessions,
		       const struct ahp_session_agent *agents,
		       uint32_t agent_count, uint32_t mode, double ttl_s,
		       double now_s, const struct ahp_session **session,
		       struct avp_reason *why);

/* The session of that id; an expired one is removed. NULL: none. */
const struct ahp_session *ahp_session_get(struct ahp_sessions *sessions,
					  struct avp_str id, double now_s);

/* Whether it was there, expired or not; it is gone now. */
bool ahp_session_invalidate(struct ahp_sessions *sessions, struct avp_str id);

/*
 * Walks the sessions that are not expired and of which the agent is a part
 * (empty: any), oldest first: `after` is NULL, then the one returned before.
 */
const struct ahp_session *ahp_session_find(const struct ahp_sessions *sessions,
					   struct avp_str agent, double now_s,
					   const struct ahp_session *after);

/* How many are not expired. */
uint32_t ahp_session_count(const struct ahp_sessions *sessions, double now_s);

/* Removes the expired ones; how many there were. */
uint32_t ahp_session_cleanup(struct ahp_sessions *sessions, double now_s);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
