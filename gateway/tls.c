/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.2 and 1.3 of the listeners, by OpenSSL: certificates, ALPN (RFC 7301)
 * and, where it is asked for, the certificate of the client.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

#include "gateway/conn.h"

/* The server's preference, in ALPN's form: a length before each name. */
static const unsigned char alpn[] = "\x02h2\x08http/1.1";

/* What RFC 7540 (9.2.2) forbids HTTP/2 to use is not there for anybody. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"

static int ssl_fail(struct avp_reason *why, const char *what, const char *name)
{
	unsigned long error = ERR_peek_last_error();
	char text[160];

	ERR_error_string_n(error, text, sizeof(text));
	ERR_clear_error();
	return avp__fail(why, AVP_BAD_CONFIG, "%s %s: %s", what, name, text);
}

static int choose_protocol(SSL *ssl, const unsigned char **out,
			   unsigned char *outlen, const unsigned char *in,
			   unsigned int inlen, void *arg)
{
	(void)ssl, (void)arg;
	if (SSL_select_next_proto((unsigned char **)out, outlen, alpn,
				  sizeof(alpn) - 1, in,
				  inlen) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	return SSL_TLSEXT_ERR_OK;
}

static int load_own(SSL_CTX *tls, const struct http_tls_files *files,
		    struct avp_reason *why)
{
	if (SSL_CTX_use_certificate_chain_file(tls, files->certificate) != 1)
		return ssl_fail(why, "cannot use the certificate",
				files->certificate);
	if (SSL_CTX_use_PrivateKey_file(tls, files->key, SSL_FILETYPE_PEM) != 1)
		return ssl_fail(why, "cannot use the key", files->key);
	if (SSL_CTX_check_private_key(tls) != 1)
		return ssl_fail(why, "the certificate does not belong to",
				files->key);
	return 0;
}

static int load_clients(SSL_CTX *tls, const struct http_tls_files *files,
			struct avp_reason *why)
{
	int mode = SSL_VERIFY_PEER;

	if (!files->client_ca || !*files->client_ca)
		return 0;
	if (SSL_CTX_load_verify_locations(tls, files->client_ca, NULL) != 1)
		return ssl_fail(why, "cannot use the clients' CA",
				files->client_ca);
	SSL_CTX_set_client_CA_list(tls,
				   SSL_load_client_CA_file(files->client_ca));
	if (files->client_required)
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX_set_verify(tls, mode, NULL);
	return 0;
}

int http_tls_open(SSL_CTX **out, const struct http_tls_files *files,
		  struct avp_reason *why)
{
	static const unsigned char context[] = "avp-gateway";
	SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
	int error;

	if (!tls)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for TLS");
	SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
	SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_NO_COMPRESSION |
					 SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE |
				      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_cipher_list(tls, CIPHERS);
	SSL_CTX_set_session_id_context(tls, context, sizeof(context) - 1);
	SSL_CTX_set_alpn_select_cb(tls, choose_protocol, NULL);
	error = load_own(tls, files, why);
	if (!error)
		error = load_clients(tls, files, why);
	if (error)
		SSL_CTX_free(tls);
	else
		*out = tls;
	return error;
}

void http_tls_close(SSL_CTX *tls)
{
	SSL_CTX_free(tls);
}

/* ---- of a connection ---------------------------------------------------- */

int http_tls_begin(struct http_conn *c)
{
	c->tls = SSL_new(c->listener->tls);
	if (!c->tls)
		return AVP_NO_MEMORY;
	c->shaking = true;
	SSL_set_accept_state(c->tls);
	return SSL_set_fd(c->tls, c->watch.fd) == 1 ? 0 : AVP_NO_MEMORY;
}

/* What OpenSSL waits for, or AVP_CLOSED. */
static long waits_or_fails(struct http_conn *c, int result)
{
	switch (SSL_get_error(c->tls, result)) {
	case SSL_ERROR_WANT_READ: c->tls_reads = true; return AVP_AGAIN;
	case SSL_ERROR_WANT_WRITE: c->tls_writes = true; return AVP_AGAIN;
	case SSL_ERROR_ZERO_RETURN: return 0;
	default: ERR_clear_error(); return AVP_CLOSED;
	}
}

static void take_protocol(struct http_conn *c)
{
	const unsigned char *name;
	unsigned n;

	SSL_get0_alpn_selected(c->tls, &name, &n);
	if (n == 2)
		http_speaks(c, &http_2);
	else if (n)
		http_speaks(c, &http_1);
}

int http_tls_shake(struct http_conn *c)
{
	int result = SSL_accept(c->tls);
	long code;

	if (result == 1) {
		take_protocol(c);
		return 1;
	}
	code = waits_or_fails(c, result);
	return code ? (int)code : AVP_CLOSED;
}

long http_tls_read(struct http_conn *c, void *to, size_t n)
{
	size_t got;
	int result = SSL_read_ex(c->tls, to, n, &got);

	return result == 1 ? (long)got : waits_or_fails(c, result);
}

long http_tls_write(struct http_conn *c, const void *from, size_t n)
{
	size_t put;
	int result = SSL_write_ex(c->tls, from, n, &put);
	long code;

	c->tls_reads = false;
	if (result == 1)
		return (long)put;
	code = waits_or_fails(c, result);
	return code ? code : AVP_CLOSED;
}

void http_tls_end(struct http_conn *c)
{
	if (!c->tls)
		return;
	if (!c->broken && !c->shaking)
		SSL_shutdown(c->tls);
	ERR_clear_error();
	SSL_free(c->tls);
	c->tls = NULL;
}
