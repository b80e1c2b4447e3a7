/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What two agents say over their link's socket: few messages, each one datagram
 * of SOCK_SEQPACKET beginning with a struct wire_head, except for the bell,
 * which is a single byte. Numbers in the host's byte order: both ends are on
 * it.
 *
 * The one who connects says Hello; the other answers with its own, and each
 * passes its page and its lane when it has the other's Hello. After that only
 * new segments, those that are asked back, and bells.
 */
#ifndef AVP_AHP_WIRE_H
#define AVP_AHP_WIRE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/ahp.h>

#define WIRE_MAGIC 0x50485641u /* "AVHP" */
#define WIRE_MAJOR 1
#define WIRE_MINOR 0
#define WIRE_BELL  0x07

/*
 * Doorbells. A byte on the socket serves for everybody, whatever was said, so a
 * kind that we do not know is no fault; the ringer's lane's word (ring/bell.h)
 * serves only for who asked for it.
 */
#define WIRE_BELL_SOCKET 1
#define WIRE_BELL_WORD	 2

/*
 * Features of a link that a later minor version may have. One that does not
 * know a bit passes over it in the low half; what is in the high half it has
 * to know.
 */
#define WIRE_DEMANDS 0xffff0000u

enum wire_kind {
	WIRE_HELLO = 1,
	WIRE_SHARE = 2,	  /* two fds: page, lane */
	WIRE_SEGMENT = 3, /* one fd: an arena segment */
	WIRE_UNMAP = 4,	  /* nothing in that segment is lent any more ... */
	WIRE_UNMAPPED = 5, /* ... and it is mapped no longer: trim.c */
	WIRE_REFUSE = 6, /* and hangs up: code says why */
};

struct wire_head {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t kind;
	uint32_t bytes; /* of the whole message */
};
static_assert(sizeof(struct wire_head) == 16, "ABI");

/* A model's identity (AVP's handshake) with strings cut to what is sent. */
struct wire_identity {
	char family[64], id[256], hash[72];
	uint32_t hidden_dim, num_layers, num_kv_heads, head_dim;
};
static_assert(sizeof(struct wire_identity) == 408, "ABI");

struct wire_hello {
	struct wire_head head;
	uint8_t epoch[16]; /* of this opening of the agent */
	uint32_t wait;	   /* enum ahp_wait */
	uint32_t bell;	   /* WIRE_BELL_*: how the sender likes to be rung */
	uint32_t fds;	   /* that will come with WIRE_SHARE: 2 */
	uint32_t features; /* none yet: see WIRE_DEMANDS */
	char id[72];	   /* the sender's, NUL-terminated */
	char to[72];	   /* whom it means to speak to */
	struct wire_identity identity;
};
static_assert(sizeof(struct wire_hello) == 600, "ABI");

struct wire_segment {
	struct wire_head head;
	uint32_t number, reserved;
	uint64_t bytes; /* of a new one */
};
static_assert(sizeof(struct wire_segment) == 32, "ABI");

struct wire_refuse {
	struct wire_head head;
	int32_t code; /* enum avp_code */
	uint32_t reserved;
	char text[200];
};
static_assert(sizeof(struct wire_refuse) == 224, "ABI");

/* The longest of them. */
union wire_message {
	uint8_t bell;
	struct wire_head head;
	struct wire_hello hello;
	struct wire_segment segment;
	struct wire_refuse refuse;
};

#endif
