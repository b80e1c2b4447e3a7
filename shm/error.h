/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/error.h>: the one list of answers that every layer of libavp gives.
 *
 * A function returns 0 or a count when it did what was asked, else one of the
 * negative codes below. AVP_AGAIN, AVP_QUEUE_FULL and AVP_TIMEOUT are answers
 * of a healthy system, the others are failures. Results that are passed out by
 * pointer stay untouched on failure. The library never prints, never exits and
 * leaves errno to the caller's other libraries.
 *
 * Functions that judge somebody else's input (a frame, a file, a peer) also
 * take a struct avp_reason, which may be NULL: one sentence with the value, the
 * limit and the mend.
 */
#ifndef AVP_ERROR_H
#define AVP_ERROR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum avp_code {
	AVP_OK = 0,

	/* Frames (AVP specification, binary format) and tensors. */
	AVP_SHORT_HEADER = -1,	   /* fewer bytes than the 12-byte header */
	AVP_BAD_MAGIC = -2,	   /* does not begin with "AV" */
	AVP_BAD_VERSION = -3,	   /* header version is not 1 */
	AVP_TRUNCATED = -4,	   /* fewer bytes than payload_length says */
	AVP_BAD_LENGTHS = -5,	   /* metadata longer than the payload */
	AVP_BAD_METADATA = -6,	   /* not a protobuf Metadata, or bad UTF-8 */
	AVP_BAD_PAYLOAD_TYPE = -7, /* unknown payload_type in this dialect */
	AVP_BAD_MODE = -8,	   /* unknown mode in this dialect */
	AVP_BAD_DTYPE = -9,	   /* unknown dtype */
	AVP_BAD_COMPRESSION = -10, /* not one whole zstd frame, or unnamed */
	AVP_TOO_LARGE = -11,	   /* over a limit that the reason names */
	AVP_CHECKSUM = -12,	   /* payload_checksum does not match */
	AVP_KV_SIZE = -13,	   /* KV header and payload size disagree */
	AVP_SHAPE_MISMATCH = -14,  /* tensor does not fit the model */

	/* AHP's eight error codes. */
	AVP_UNKNOWN = -20,
	AVP_INVALID_MESSAGE = -21,
	AVP_TIMEOUT = -22,
	AVP_AGENT_NOT_FOUND = -23,
	AVP_QUEUE_FULL = -24,
	AVP_SERIALIZATION_ERROR = -25,
	AVP_DESERIALIZATION_ERROR = -26,
	AVP_RETRY_EXHAUSTED = -27,

	/* Texts, files, the system. */
	AVP_BAD_JSON = -40,
	AVP_BAD_CONFIG = -41,
	AVP_USAGE = -42,      /* an argument that no caller may pass */
	AVP_IO = -43,	      /* a system call failed; the reason has errno */
	AVP_NO_MEMORY = -44,  /* memory, quota, cgroup or RLIMIT exhausted */
	AVP_PERMISSION = -45, /* not ours, or not allowed */

	/* Answers of the transport. */
	AVP_AGAIN = -60,       /* nothing there now */
	AVP_FORKED = -61,      /* called in a forked child */
	AVP_CLOSED = -62,      /* the link or agent is gone */
	AVP_POISONED = -63,    /* the peer broke the protocol */
	AVP_NAME_TAKEN = -64,  /* a live agent holds this id */
	AVP_UNSUPPORTED = -65, /* this kernel or build cannot do it */
	AVP_REJECTED = -66,    /* the receiver refused the message */
	AVP_EXPIRED = -67      /* its deadline passed before delivery */
};

/*
 * Why a call failed, in words; text is always NUL-terminated and UTF-8 (a byte
 * of a name that is none shows as "?").
 */
struct avp_reason {
	int code;	/* what the call returned */
	char text[252]; /* "seq_len 0 is below 1; write at least one token" */
};

/*
 * The code's name without prefix, "BAD_MAGIC", as scripts and AHP see it; for a
 * number that is no code "UNKNOWN". Never NULL; static storage.
 */
const char *avp_error_name(int code);

/* A short sentence on the code, for a reader who has no reason at hand. */
const char *avp_error_text(int code);

#pragma GCC visibility pop

#ifdef AVP_BUILD
/*
 * For the files of this tree alone, which are built with -DAVP_BUILD; no
 * library exports it. Fills why, if it is not NULL, and returns code, so that
 * a failure is one line: return avp__fail(why, AVP_TOO_LARGE, "%zu bytes are
 * over ...", n);
 */
__attribute__((format(printf, 3, 4), cold)) int avp__fail(
	struct avp_reason *why, int code, const char *format, ...);
#endif
#ifdef __cplusplus
}
#endif
#endif
