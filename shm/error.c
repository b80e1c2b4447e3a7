/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>

#include <avp/error.h>

struct entry {
	int code;
	const char *name, *text;
};

static const struct entry entries[] = {
#define E(name, text)                   \
	{                               \
		AVP_##name, #name, text \
	}
	E(OK, "done"),
	E(SHORT_HEADER, "fewer bytes than a frame header"),
	E(BAD_MAGIC, "the frame does not begin with \"AV\""),
	E(BAD_VERSION, "the frame's header version is not 1"),
	E(TRUNCATED, "the frame ends before its announced length"),
	E(BAD_LENGTHS, "metadata_length exceeds payload_length"),
	E(BAD_METADATA, "the metadata is not a valid protobuf Metadata"),
	E(BAD_PAYLOAD_TYPE, "payload_type is unknown in this dialect"),
	E(BAD_MODE, "mode is unknown in this dialect"),
	E(BAD_DTYPE, "dtype is unknown"),
	E(BAD_COMPRESSION, "the body is not one whole zstd frame"),
	E(TOO_LARGE, "over a size limit"),
	E(CHECKSUM, "payload_checksum does not match the payload"),
	E(KV_SIZE, "the KV-cache header and its size disagree"),
	E(SHAPE_MISMATCH, "the tensor does not fit the receiver's model"),
	E(UNKNOWN, "unknown error"),
	E(INVALID_MESSAGE, "the message is not valid"),
	E(TIMEOUT, "the time-out passed"),
	E(AGENT_NOT_FOUND, "no agent of that name is reachable"),
	E(QUEUE_FULL, "the queue to that agent is full"),
	E(SERIALIZATION_ERROR, "the message cannot be serialised"),
	E(DESERIALIZATION_ERROR, "the message cannot be read back"),
	E(RETRY_EXHAUSTED, "the maximum of retries is reached"),
	E(BAD_JSON, "the text is not valid JSON"),
	E(BAD_CONFIG, "the configuration is not valid"),
	E(USAGE, "an argument is not valid"),
	E(IO, "a system call failed"),
	E(NO_MEMORY, "no memory within the limits"),
	E(PERMISSION, "not permitted"),
	E(AGAIN, "nothing there now"),
	E(FORKED, "called in a forked child; open an agent of its own"),
	E(CLOSED, "the link or agent is closed"),
	E(POISONED, "the peer broke the protocol"),
	E(NAME_TAKEN, "a live agent holds this id"),
	E(UNSUPPORTED, "this system cannot do it"),
	E(REJECTED, "the receiver rejected the message"),
	E(EXPIRED, "the deadline passed before delivery"),
#undef E
};

static const struct entry *find(int code)
{
	for (size_t i = 0; i < sizeof(entries) / sizeof(*entries); i++)
		if (entries[i].code == code)
			return &entries[i];
	return find(AVP_UNKNOWN);
}

const char *avp_error_name(int code)
{
	return find(code)->name;
}

const char *avp_error_text(int code)
{
	return find(code)->text;
}

/* The length of the UTF-8 sequence at s (Unicode 15, table 3-7); 0 if none. */
static size_t utf8_length(const unsigned char *s)
{
	size_t n = *s < 0x80   ? 1
		   : *s < 0xc2 ? 0
		   : *s < 0xe0 ? 2
		   : *s < 0xf0 ? 3
		   : *s < 0xf5 ? 4
			       : 0;

	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] > 0x9f) ||
	    (*s == 0xf0 && s[1] < 0x90) || (*s == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

/* Names of files may have any bytes, and a precision cuts through a
 * character. */
static void keep_utf8(char *text)
{
	while (*text) {
		size_t n = utf8_length((const unsigned char *)text);

		if (!n)
			*text = '?';
		text += n ? n : 1;
	}
}

int avp__fail(struct avp_reason *why, int code, const char *format, ...)
{
	if (why) {
		va_list args;

		va_start(args, format);
		why->code = code;
		vsnprintf(why->text, sizeof(why->text), format, args);
		va_end(args);
		keep_utf8(why->text);
	}
	return code;
}
