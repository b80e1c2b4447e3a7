/* SPDX-License-Identifier: Apache-2.0 */
/* AVP's JSON messages. Order of keys: what the reference SDK 0.2.0 writes. */
#include <math.h>
#include <stdio.h>

#include <avp/hello.h>

static const struct avp_str empty_object = {"{}", 2};

/* A count of the model: what the frame's metadata and a KV header can hold. */
static int read_count(const struct avp_json *object, const char *key,
		      uint32_t *out, struct avp_reason *why)
{
	uint64_t n = 0;
	int code = avp_json_get_uint(object, key, UINT32_MAX, &n, why);

	*out = (uint32_t)n;
	return code < 0 ? code : 0;
}

static int read_string(const struct avp_json *object, const char *key,
		       struct avp_str *out, struct avp_reason *why)
{
	int code;

	*out = (struct avp_str){"", 0};
	code = avp_json_get_string(object, key, out, why);
	return code < 0 ? code : 0;
}

static int read_object(const struct avp_json *object, const char *key,
		       const struct avp_json **out, struct avp_reason *why)
{
	int code;

	*out = NULL;
	code = avp_json_get_object(object, key, out, why);
	return code < 0 ? code : 0;
}

static int read_version(const struct avp_json *object, struct avp_str *version,
			bool *told, struct avp_reason *why)
{
	int code;

	*version = avp_str_of(AVP_DEFAULT_VERSION);
	code = avp_json_get_string(object, "avp_version", version, why);
	*told = code > 0;
	return code < 0 ? code : 0;
}

static void put_version(struct avp_json_writer *w, struct avp_str version)
{
	avp_json_member_string(w, "avp_version",
			       version.data ? version
					    : avp_str_of(AVP_DEFAULT_VERSION));
}

/* ---- identity ----------------------------------------------------------- */

int avp_identity_read(struct avp_identity *identity,
		      const struct avp_json *object, struct avp_reason *why)
{
	struct avp_identity *i = identity;
	int code = avp_json_expect_object(object, "an identity", why);

	code = code ? code
		    : read_string(object, "model_family", &i->model_family,
				  why);
	code = code ? code : read_string(object, "model_id", &i->model_id, why);
	code = code ? code
		    : read_string(object, "model_hash", &i->model_hash, why);
	code = code ? code
		    : read_count(object, "hidden_dim", &i->hidden_dim, why);
	code = code ? code
		    : read_count(object, "num_layers", &i->num_layers, why);
	code = code ? code
		    : read_count(object, "num_kv_heads", &i->num_kv_heads, why);
	code = code ? code : read_count(object, "head_dim", &i->head_dim, why);
	return code ? code
		    : read_string(object, "tokenizer_hash", &i->tokenizer_hash,
				  why);
}

void avp_identity_put(struct avp_json_writer *w,
		      const struct avp_identity *identity)
{
	avp_json_open_object(w);
	avp_json_member_string(w, "model_family", identity->model_family);
	avp_json_member_string(w, "model_id", identity->model_id);
	avp_json_member_string(w, "model_hash", identity->model_hash);
	avp_json_member_uint(w, "hidden_dim", identity->hidden_dim);
	avp_json_member_uint(w, "num_layers", identity->num_layers);
	avp_json_member_uint(w, "num_kv_heads", identity->num_kv_heads);
	avp_json_member_uint(w, "head_dim", identity->head_dim);
	if (identity->tokenizer_hash.len)
		avp_json_member_string(w, "tokenizer_hash",
				       identity->tokenizer_hash);
	avp_json_close_object(w);
}

/* ---- HELLO -------------------------------------------------------------- */

int avp_hello_read(struct avp_hello *hello, const struct avp_json *root,
		   struct avp_reason *why)
{
	struct avp_hello *h = hello;
	const struct avp_json *identity = NULL;
	int code = avp_json_expect_object(root, "a HELLO", why);

	*h = (struct avp_hello){0};
	code = code ? code : read_string(root, "agent_id", &h->agent_id, why);
	code = code ? code
		    : read_version(root, &h->avp_version, &h->version_told,
				   why);
	code = code ? code
		    : read_object(root, "capabilities", &h->capabilities, why);
	code = code ? code : read_object(root, "identity", &identity, why);
	if (code || !identity)
		return code;
	h->has_identity = true;
	return avp_identity_read(&h->identity, identity, why);
}

int avp_hello_write(struct avp_buf *buf, const struct avp_hello *hello)
{
	struct avp_str json = hello->capabilities_json;
	struct avp_json_writer w;

	avp_json_begin(&w, buf, AVP_JSON_PYTHON);
	avp_json_open_object(&w);
	avp_json_member_string(&w, "agent_id", hello->agent_id);
	put_version(&w, hello->avp_version);
	avp_json_key(&w, "capabilities");
	if (hello->capabilities)
		avp_json_put(&w, hello->capabilities);
	else
		avp_json_put_raw(&w, json.len ? json : empty_object);
	if (hello->has_identity) {
		avp_json_key(&w, "identity");
		avp_identity_put(&w, &hello->identity);
	}
	avp_json_close_object(&w);
	return avp_json_finish(&w);
}

/* ---- text message ------------------------------------------------------- */

int avp_text_message_read(struct avp_text_message *message,
			  const struct avp_json *root, struct avp_reason *why)
{
	struct avp_text_message *m = message;
	int code = avp_json_expect_object(root, "a text message", why);

	*m = (struct avp_text_message){0};
	code = code ? code
		    : read_version(root, &m->avp_version, &m->version_told,
				   why);
	code = code ? code
		    : read_string(root, "session_id", &m->session_id, why);
	code = code ? code
		    : read_string(root, "source_agent_id", &m->source_agent_id,
				  why);
	code = code ? code
		    : read_string(root, "target_agent_id", &m->target_agent_id,
				  why);
	code = code ? code : read_string(root, "content", &m->content, why);
	return code ? code : read_object(root, "extra", &m->extra, why);
}

int avp_text_message_write(struct avp_buf *buf,
			   const struct avp_text_message *message)
{
	const struct avp_text_message *m = message;
	struct avp_json_writer w;

	avp_json_begin(&w, buf, AVP_JSON_PYTHON);
	avp_json_open_object(&w);
	put_version(&w, m->avp_version);
	avp_json_member_string(&w, "session_id", m->session_id);
	avp_json_member_string(&w, "source_agent_id", m->source_agent_id);
	avp_json_member_string(&w, "target_agent_id", m->target_agent_id);
	avp_json_member_string(&w, "content", m->content);
	if (avp_json_count(m->extra)) {
		avp_json_key(&w, "extra");
		avp_json_put(&w, m->extra);
	} else if (!m->extra && m->extra_json.len &&
		   !avp_str_equal(m->extra_json, empty_object)) {
		avp_json_key(&w, "extra");
		avp_json_put_raw(&w, m->extra_json);
	}
	avp_json_close_object(&w);
	return avp_json_finish(&w);
}

/* ---- fallback request --------------------------------------------------- */

int avp_fallback_read(struct avp_fallback *fallback,
		      const struct avp_json *root, struct avp_reason *why)
{
	struct avp_fallback *f = fallback;
	int code = avp_json_expect_object(root, "a FallbackRequest", why);

	*f = (struct avp_fallback){0};
	code = code ? code
		    : read_string(root, "session_id", &f->session_id, why);
	code = code ? code : read_string(root, "reason", &f->reason, why);
	if (!code)
		code = avp_json_get_double(root, "perplexity_score",
					   &f->perplexity_score, why);
	return code < 0 ? code : 0;
}

int avp_fallback_write(struct avp_buf *buf, const struct avp_fallback *fallback)
{
	struct avp_json_writer w;

	avp_json_begin(&w, buf, AVP_JSON_PYTHON);
	avp_json_open_object(&w);
	avp_json_member_string(&w, "session_id", fallback->session_id);
	avp_json_member_string(&w, "reason", fallback->reason);
	avp_json_key(&w, "perplexity_score");
	avp_json_put_double(&w, fallback->perplexity_score);
	avp_json_close_object(&w);
	return avp_json_finish(&w);
}

/* Python's "%.4f": "inf", "nan", and a point in every locale. */
static int append_fixed(struct avp_buf *buf, double value)
{
	char text[512];
	int n = snprintf(text, sizeof(text), "%.4f", value), whole;

	if (isnan(value))
		return avp_buf_append(buf, "nan", 3);
	if (isinf(value))
		return avp_buf_append(buf, value < 0 ? "-inf" : "inf",
				      value < 0 ? 4 : 3);
	for (whole = 0;
	     text[whole] == '-' || (text[whole] >= '0' && text[whole] <= '9');)
		whole++;
	if (avp_buf_append(buf, text, (size_t)whole) ||
	    avp_buf_append(buf, ".", 1))
		return AVP_NO_MEMORY;
	return avp_buf_append(buf, text + n - 4, 4);
}

int avp_fallback_describe(struct avp_buf *buf,
			  const struct avp_fallback *fallback)
{
	static const char before[] = "Fallback requested: ";
	static const char between[] = " (perplexity=";

	if (avp_buf_append(buf, before, sizeof(before) - 1) ||
	    avp_buf_append(buf, fallback->reason.data, fallback->reason.len) ||
	    avp_buf_append(buf, between, sizeof(between) - 1) ||
	    append_fixed(buf, fallback->perplexity_score))
		return AVP_NO_MEMORY;
	return avp_buf_append(buf, ")", 1);
}
