/* SPDX-License-Identifier: Apache-2.0 */
/* What the configuration's texts may be, and what has to fit together. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "gateway/conf_internal.h"

#define TOKEN_MAX 4096 /* of a token's bytes: headers have a limit */

/* ---- single texts ------------------------------------------------------- */

bool gw__conf_is_path(const char *text)
{
	return *text == '/' && strlen(text) < AHP_CONFIG_PATH;
}

bool gw__conf_is_address(const char *text)
{
	uint8_t address[16];

	return inet_pton(AF_INET, text, address) == 1 ||
	       inet_pton(AF_INET6, text, address) == 1;
}

/* Printable ASCII without what would begin a user's name, a query, an
 * escape. */
bool gw__conf_is_url(const char *text)
{
	size_t scheme = !strncmp(text, "http://", 7)	? 7
			: !strncmp(text, "https://", 8) ? 8
							: 0;
	const char *host = text + scheme, *p;

	if (!scheme || !*host || strchr("/:", *host) || strlen(text) > 2000)
		return false;
	for (p = host; *p; p++)
		if (*p <= ' ' || *p > '~' || strchr("@?#\\\"<>", *p))
			return false;
	return true;
}

bool gw__conf_is_hash(const char *text)
{
	return strlen(text) == 64 &&
	       !text[strspn(text, "0123456789abcdefABCDEF")];
}

bool gw__conf_is_pin(const char *text)
{
	for (unsigned pins = 1; pins <= 8; pins++) {
		if (strncmp(text, "sha256//", 8) != 0 ||
		    strspn(text + 8, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				     "abcdefghijklmnopqrstuvwxyz"
				     "0123456789+/") != 43 ||
		    text[51] != '=')
			return false;
		text += 52;
		if (!*text)
			return true;
		if (*text++ != ';')
			return false;
	}
	return false;
}

/* ---- files -------------------------------------------------------------- */

struct check {
	struct gw_conf *c;
	const char *name;
	struct avp_reason *why;
};

#define BAD(k, at, ...) avp__config_bad((k)->name, at, (k)->why, __VA_ARGS__)

static int see_file(const struct check *k, const struct avp__config_text *path)
{
	int fd;

	if (!path->text)
		return 0;
	fd = open(path->text, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return BAD(k, path->at,
			   "%s: %s; expected a file that can be read",
			   path->text, strerror(errno));
	close(fd);
	return 0;
}

static int see_tls(const struct check *k, const struct gw_conf_tls *tls)
{
	int err = see_file(k, &tls->cert);

	if (!err)
		err = see_file(k, &tls->key);
	if (!err)
		err = see_file(k, &tls->client_ca);
	return err ? err : see_file(k, &tls->ca);
}

/* The line of a token file, for free(). */
static int read_token(const struct check *k,
		      const struct avp__config_text *path, char **token)
{
	char *text, *end;
	struct stat st;
	size_t len;

	if (!stat(path->text, &st) && st.st_mode & 07)
		return BAD(k, path->at,
			   "%s has mode %04o: others may read the token; "
			   "expected 0600 or 0640",
			   path->text, st.st_mode & 07777u);
	if (avp__config_slurp(path->text, &text, &len, NULL))
		return BAD(k, path->at, "%s: %s; expected a file with a token",
			   path->text, strerror(errno));
	end = memchr(text, '\n', len);
	if (end)
		len = (size_t)(end - text);
	while (len && (text[len - 1] == '\r' || text[len - 1] == ' '))
		len--;
	text[len] = 0; /* there is room: the limit and one */
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~')
			len = 0;
	if (!len || len > TOKEN_MAX) {
		explicit_bzero(text, strlen(text));
		free(text);
		return BAD(k, path->at,
			   "%s holds no token; expected one line of up to %d "
			   "printable ASCII characters without spaces",
			   path->text, TOKEN_MAX);
	}
	*token = text;
	return 0;
}

/* ---- listeners ---------------------------------------------------------- */

static int check_listener(const struct check *k, uint32_t i)
{
	const struct gw_conf_listener *l = &k->c->listener[i], *other;

	if (!l->address.text)
		return BAD(k, l->at,
			   "a listener without an address; expected "
			   "address: 127.0.0.1 or the like");
	if (l->tls.given && (!l->tls.cert.text || !l->tls.key.text))
		return BAD(k, l->at,
			   "tls of a listener without cert or key; "
			   "expected both, or no tls");
	if (l->auth == GW_AUTH_TOKEN && !k->c->tokens)
		return BAD(k, l->at,
			   "a listener with auth: token, and there "
			   "are no tokens; expected one at least");
	for (other = k->c->listener; other < l; other++)
		if (l->port && other->port == l->port &&
		    !strcmp(other->address.text, l->address.text))
			return BAD(k, l->at,
				   "%s port %u is listened at twice; expected "
				   "it once",
				   l->address.text, l->port);
	return see_tls(k, &l->tls);
}

/* ---- tokens ------------------------------------------------------------- */

static void hash_of_hex(uint8_t hash[32], const char *hex)
{
	char pair[3] = "";

	for (int i = 0; i < 32; i++) {
		memcpy(pair, hex + 2 * i, 2);
		hash[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
}

static int token_hash(const struct check *k, struct gw_conf_token *t)
{
	char *token;
	int err;

	if (t->sha256.text) {
		hash_of_hex(t->hash, t->sha256.text);
		return 0;
	}
	err = read_token(k, &t->file, &token);
	if (err)
		return err;
	if (!EVP_Digest(token, strlen(token), t->hash, NULL, EVP_sha256(),
			NULL))
		err = avp__fail(k->why, AVP_NO_MEMORY, "no memory for SHA-256");
	explicit_bzero(token, strlen(token));
	free(token);
	return err;
}

static int check_token(const struct check *k, uint32_t i)
{
	struct gw_conf_token *t = &k->c->token[i], *other;
	int err;

	if (!t->name.text)
		return BAD(k, t->at,
			   "a token without a name; expected a name "
			   "for the log");
	if (!t->file.text == !t->sha256.text)
		return BAD(k, t->at,
			   "token %s has %s; expected either file or sha256",
			   t->name.text,
			   t->file.text ? "both file and sha256" : "neither");
	err = token_hash(k, t);
	if (err)
		return err;
	for (other = k->c->token; other < t; other++)
		if (!strcmp(other->name.text, t->name.text) ||
		    !memcmp(other->hash, t->hash, sizeof(t->hash)))
			return BAD(k, t->at,
				   "token %s is the same as token %s; expected "
				   "different names and tokens",
				   t->name.text, other->name.text);
	return 0;
}

/* ---- peers -------------------------------------------------------------- */

static bool has(const struct gw_conf_peer *p, const char *id)
{
	for (uint32_t i = 0; i < p->agents.count; i++)
		if (!strcmp(p->agents.item[i].text, id))
			return true;
	return false;
}

static int check_agents(const struct check *k, const struct gw_conf_peer *p)
{
	const struct gw_conf_peer *other;

	for (uint32_t i = 0; i < p->agents.count; i++) {
		const struct avp__config_text *id = &p->agents.item[i];

		if (!strcmp(id->text, gw_conf_id(k->c)))
			return BAD(k, id->at,
				   "agent %s is the gateway's own id; expected "
				   "another",
				   id->text);
		for (other = k->c->peer; other < p; other++)
			if (has(other, id->text))
				return BAD(k, id->at,
					   "agent %s is behind two peers; "
					   "expected it behind one",
					   id->text);
	}
	return 0;
}

static int check_peer(const struct check *k, uint32_t i)
{
	struct gw_conf_peer *p = &k->c->peer[i];
	int err;

	if (!p->url.text || !p->agents.count)
		return BAD(k, p->at,
			   "a peer without %s; expected url and at "
			   "least one of agents",
			   p->url.text ? "agents" : "url");
	if (p->tls.given && strncmp(p->url.text, "https:", 6) != 0)
		return BAD(k, p->at,
			   "tls for %s, which is none; expected https://",
			   p->url.text);
	if (!p->tls.cert.text != !p->tls.key.text)
		return BAD(k, p->at,
			   "tls of a peer with one of cert and key; "
			   "expected both or none");
	err = check_agents(k, p);
	if (!err)
		err = see_tls(k, &p->tls);
	if (!err && p->token_file.text)
		err = read_token(k, &p->token_file, &p->token);
	return err;
}

int gw__conf_check(struct gw_conf *c, const char *name, struct avp_reason *why)
{
	const struct check k = {c, name, why};
	int err = 0;

	for (uint32_t i = 0; i < c->listeners && !err; i++)
		err = check_listener(&k, i);
	for (uint32_t i = 0; i < c->tokens && !err; i++)
		err = check_token(&k, i);
	for (uint32_t i = 0; i < c->peers && !err; i++)
		err = check_peer(&k, i);
	return err;
}
