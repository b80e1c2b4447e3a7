/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lane's memory, as both sides of a link see it. Private to libavp, but an
 * ABI between processes: two versions of the library that agree on LANE_MAJOR
 * understand each other, LANE_MINOR only adds.
 *
 * One process, the owner, has the segment mapped read-write; its peer
 * read-only. The owner writes here both its messages (slots) and its
 * acknowledgements of the messages that it reads from the peer's lane (ack
 * line, ack ring).
 *
 *	0     header: geometry, epoch; ready is stored last
 *	4096  ack line: counts, one writer
 *	4160  doorbell line: the word that the owner rings
 *	8192  ack ring, then the descriptor ring at slots_off (+ 128 B * colour: whole
 *	      pairs of lines, which processors fetch together)
 */
#ifndef AVP_RING_SLOT_H
#define AVP_RING_SLOT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define LANE_MAGIC	 0x31656e614c505641ull /* "AVPLane1" */
#define LANE_MAJOR	 1
#define LANE_MINOR	 0
#define LANE_READY	 0x59444552u /* "REDY" */
#define LANE_ACKS_OFF	 8192
#define LANE_MIN_SLOTS	 16
#define LANE_MAX_SLOTS	 65536
#define LANE_MAX_BYTES	 (20u << 20) /* over 65536 slots, up to 2 MiB round */
#define LANE_MAX_FIRST	 (UINT64_MAX / 2) /* sequences never wrap */
#define SLOT_BYTES	 256
#define SLOT_SMALL_BYTES 32
#define SLOT_LONG_BYTES	 64
#define LINE		 64

struct lane_header {
	uint64_t magic;
	uint16_t major, minor;
	uint32_t header_bytes;	 /* sizeof(struct lane_header) */
	uint32_t slots;		 /* a power of two */
	uint32_t slot_bytes;	 /* SLOT_BYTES */
	uint32_t acks;		 /* entries of the ack ring, a power of two */
	uint32_t window;	 /* most messages outstanding */
	uint64_t slots_off;	 /* from the segment's start */
	uint64_t features;	 /* none yet */
	uint64_t first_sequence; /* of the first message; at least 1 */
	uint64_t start_ns; /* CLOCK_MONOTONIC that slot times count from */
	uint8_t epoch[16]; /* of this lane, random */
	uint8_t reserved[36];
	_Atomic uint32_t ready; /* LANE_READY, release-stored last */
};
static_assert(offsetof(struct lane_header, slots) == 16, "ABI");
static_assert(offsetof(struct lane_header, slots_off) == 32, "ABI");
static_assert(offsetof(struct lane_header, first_sequence) == 48, "ABI");
static_assert(offsetof(struct lane_header, start_ns) == 56, "ABI");
static_assert(offsetof(struct lane_header, epoch) == 64, "ABI");
static_assert(offsetof(struct lane_header, ready) == 116, "ABI");
static_assert(sizeof(struct lane_header) == 120, "ABI");

/*
 * What the owner has done with the peer's messages: all below accepted are
 * settled (accepted, or settled otherwise by an earlier entry of the ack ring),
 * all below released are no longer looked at, all below consumed have left
 * their slots. Sequences, not counts; they start at the peer's first_sequence.
 */
struct lane_acks {
	_Alignas(LINE) _Atomic uint64_t accepted;
	_Atomic uint64_t released;
	_Atomic uint64_t consumed;
	uint64_t reserved[5];
};
static_assert(sizeof(struct lane_acks) == LINE, "ABI");

struct lane_bell {
	_Alignas(LINE) _Atomic uint32_t rings; /* shared futex word */
	uint32_t reserved[15];
};
static_assert(sizeof(struct lane_bell) == LINE, "ABI");

/* The first pages of a lane. */
struct lane_map {
	struct lane_header header;
	uint8_t pad[4096 - sizeof(struct lane_header)];
	struct lane_acks acks;
	struct lane_bell bell;
};
static_assert(offsetof(struct lane_map, acks) == 4096, "ABI");
static_assert(offsetof(struct lane_map, bell) == 4160, "ABI");

/*
 * A slot. Small form: 32 bytes of header, then u8 length + task id, u8 length +
 * session id, then the body. Long form (SLOT_LONG): 64 bytes of header; with
 * SLOT_ARENA the body lies in a segment, and what follows the ids repeats its
 * first bytes.
 */
struct slot {
	_Alignas(LINE) _Atomic uint64_t sequence; /* commit word, stored last */
	uint32_t accepted;  /* low words of the owner's lane_acks, as they */
	uint32_t released;  /* were when this slot was written */
	uint32_t sent_ms;   /* since the lane's start */
	uint32_t expiry_ms; /* since the lane's start; 0: never */
	uint32_t token_limit;
	uint8_t method;
	uint8_t kind;
	uint8_t flags;	      /* SLOT_* */
	uint8_t inline_bytes; /* of body or head, after the ids */
	/* Long form only. */
	uint8_t message_id[16];
	uint64_t where; /* segment number << 40 | offset of the body */
	uint64_t body_bytes;
	uint8_t rest[SLOT_BYTES - SLOT_LONG_BYTES];
};
static_assert(offsetof(struct slot, accepted) == 8, "ABI");
static_assert(offsetof(struct slot, sent_ms) == 16, "ABI");
static_assert(offsetof(struct slot, token_limit) == 24, "ABI");
static_assert(offsetof(struct slot, inline_bytes) == 31, "ABI");
static_assert(offsetof(struct slot, message_id) == SLOT_SMALL_BYTES, "ABI");
static_assert(offsetof(struct slot, where) == 48, "ABI");
static_assert(offsetof(struct slot, rest) == SLOT_LONG_BYTES, "ABI");
static_assert(sizeof(struct slot) == SLOT_BYTES, "ABI");

#define SLOT_LONG	 0x01 /* 64-byte header */
#define SLOT_ARENA	 0x02 /* the body lies at where; implies SLOT_LONG */
#define SLOT_REDELIVERED 0x04
#define SLOT_PROMPT	 0x08 /* acknowledge at once, not lazily */
#define SLOT_FLAGS	 0x0f

/*
 * Ack ring entry: lap (8 bits, of the entry's index / entries + 1), status (8
 * bits, AVP_ACK_*), sequence (48 bits). A cell holds the previous lap, or zero,
 * until its entry is stored, so the lap is the entry's commit word.
 */
#define ACK_SEQUENCE_BITS 48
#define ACK_SEQUENCE_MASK ((1ull << ACK_SEQUENCE_BITS) - 1)
#define ACK_STATUS_SHIFT  48
#define ACK_LAP_SHIFT	  56

#endif
