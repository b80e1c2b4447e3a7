/* SPDX-License-Identifier: Apache-2.0 */
/* Section `gateway`: what is read, and where and why what is not. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/conf.h"
#include "tests/harness.h"

static struct avp_reason why;
static char secret[512], open_secret[512];

static struct gw_conf *parse(const char *format, const char *path)
{
	struct gw_conf *conf = NULL;
	char text[20000];

	snprintf(text, sizeof(text), format, path, path, path, path);
	why.text[0] = 0;
	if (gw_conf_parse(&conf, "f.yaml", text, strlen(text), &why))
		return NULL;
	return conf;
}

static void put_file(char path[512], const char *name, const char *text,
		     mode_t mode)
{
	FILE *f;

	snprintf(path, 512, "%s/%s", test_dir(), name);
	unlink(path);
	f = fopen(path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fputs(text, f);
	fclose(f);
	chmod(path, mode);
}

static void defaults(void)
{
	struct gw_conf *c = parse("ahp:\n  max_retries: 7\n", "");

	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	CU_ASSERT_STRING_EQUAL(gw_conf_id(c), "gateway");
	CU_ASSERT_EQUAL(c->ahp.max_retries, 7);
	CU_ASSERT_EQUAL(c->log_level, 2);
	CU_ASSERT_EQUAL(c->limits.body_bytes, 1ull << 30);
	CU_ASSERT_EQUAL(c->limits.streams, 128);
	CU_ASSERT(!c->listeners && !c->tokens && !c->peers);
	gw_conf_free(c);
}

static void every_key(void)
{
	struct gw_conf *c;

	put_file(secret, "token", "open-sesame\n", 0600);
	c = parse(
		"ahp: {retry_delay: 3s}\n"
		"gateway:\n"
		"  id: gate\n"
		"  log_level: debug\n"
		"  limits: {body: 2MiB, header: 8KiB, streams: 7,\n"
		"    connections: 9, requests_per_second: 11, window: 65535,\n"
		"    in_flight: 1GiB, body_min: 10, idle: 1m, header_time: 2,\n"
		"    body_time: 3, ack_time: 4, drain_time: 0}\n"
		"  listeners:\n"
		"    - address: 127.0.0.1\n"
		"      port: 0\n"
		"      default_agent: planner\n"
		"      auth: token\n"
		"    - {address: \"::1\", tls: {cert: %s, key: %s}}\n"
		"  tokens:\n"
		"    - {name: t1, file: %s, agents: [a, b], rate: 5}\n"
		"    - name: t2\n"
		"      sha256: "
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCD"
		"EF\n"
		"      default_agent: a\n"
		"  peers:\n"
		"    - url: https://far.example:8443/x\n"
		"      agents: [far1, far2]\n"
		"      tls: {pinned: "
		"sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}\n"
		"      token_file: %s\n"
		"      http: 1.1\n"
		"      dialect: 0.4\n"
		"      wait_result: true\n"
		"    - {url: \"http://[::1]:80\", agents: [near], http: 2,\n"
		"       max_retries: 0, retry_delay: 5ms, in_flight: 3,\n"
		"       compression: balanced, mode: json, path: plain,\n"
		"       answer: 4KiB, request_time: 1, connect_time: 2,\n"
		"       connections: 1, in_flight_bytes: 1MiB, session: 9}\n",
		secret);
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	CU_ASSERT_STRING_EQUAL(gw_conf_id(c), "gate");
	CU_ASSERT_EQUAL(c->limits.ack_ns, 4000000000);
	CU_ASSERT_EQUAL(c->listeners, 2);
	CU_ASSERT_EQUAL(c->listener[0].port, 0);
	CU_ASSERT_EQUAL(c->listener[0].at.line, 10);
	CU_ASSERT_EQUAL(c->listener[0].auth, GW_AUTH_TOKEN);
	CU_ASSERT_EQUAL(c->listener[1].port, GW_DEFAULT_PORT);
	CU_ASSERT(c->listener[1].tls.given && !c->listener[0].tls.given);
	CU_ASSERT_EQUAL(c->tokens, 2);
	/* printf %s open-sesame | sha256sum */
	CU_ASSERT_EQUAL(c->token[0].hash[0], 0xd7);
	CU_ASSERT_EQUAL(c->token[0].hash[31], 0xb7);
	CU_ASSERT_EQUAL(c->token[0].agents.count, 2);
	CU_ASSERT_EQUAL(c->token[1].hash[31], 0xef);
	CU_ASSERT_EQUAL(c->peers, 2);
	CU_ASSERT_STRING_EQUAL(c->peer[0].token, "open-sesame");
	CU_ASSERT_EQUAL(c->peer[0].http, GW_HTTP_1_1);
	CU_ASSERT_EQUAL(c->peer[0].dialect, GW_DIALECT_0_4);
	CU_ASSERT_EQUAL(c->peer[0].max_retries, 3);
	CU_ASSERT_EQUAL(c->peer[0].retry_delay_ns, 3000000000);
	CU_ASSERT(c->peer[0].wait_result && !c->peer[1].wait_result);
	CU_ASSERT_EQUAL(c->peer[1].max_retries, 0);
	CU_ASSERT_EQUAL(c->peer[1].http, GW_HTTP_2);
	CU_ASSERT_EQUAL(c->peer[1].mode, GW_MODE_JSON);
	CU_ASSERT_EQUAL(c->peer[1].in_flight, 3);
	gw_conf_free(c);
}

/* Where it is, and words of what was found and expected. */
static const struct {
	const char *text, *where, *words;
} refused[] = {
	{"gateway: 3", ":1:10:", "expected a mapping"},
	{"gateway: {listener: []}", ":1:11:", "listeners"},
	{"gateway:\n  listeners: {}", ":2:14:", "a list of up to 32"},
	{"gateway:\n  listeners: [x]", ":2:15:", "expected a mapping"},
	{"gateway:\n  listeners:\n    - port: 1",
	 ":3:7:", "without an address"},
	{"gateway: {listeners: [{address: localhost}]}",
	 ":1:33:", "IPv4 or IPv6"},
	{"gateway: {listeners: [{address: 0.0.0.0, port: 65536}]}",
	 ":1:48:", "from 0 to 65535"},
	{"gateway: {listeners: [{address: 0.0.0.0, tls: {}}]}",
	 ":1:23:", "without cert or key"},
	{"gateway: {listeners: [{address: 0.0.0.0, tls: {cert: /no, key: "
	 "/no}}]}",
	 ":1:54:", "No such file"},
	{"gateway: {listeners: [{address: 0.0.0.0, tls: {cert: x}}]}",
	 ":1:54:", "begins with /"},
	{"gateway: {listeners: [{address: 0.0.0.0}, {address: 0.0.0.0}]}",
	 ":1:43:", "listened at twice"},
	{"gateway: {listeners: [{address: 0.0.0.0, auth: token}]}",
	 ":1:23:", "there are no tokens"},
	{"gateway: {listeners: [{address: 0.0.0.0, address: 0.0.0.0}]}",
	 ":1:42:", "comes twice"},
	{"gateway: {tokens: [{file: /x}]}", ":1:20:", "without a name"},
	{"gateway: {tokens: [{name: a}]}", ":1:20:", "neither"},
	{"gateway: {tokens: [{name: a, sha256: ab}]}",
	 ":1:38:", "64 hexadecimal"},
	{"gateway: {tokens: [{name: a, file: /no}]}", ":1:36:", "No such file"},
	{"gateway: {tokens: [{name: a, file: %s}]}",
	 ":1:36:", "others may read"},
	{"gateway: {peers: [{url: ftp://x, agents: [a]}]}",
	 ":1:25:", "http://"},
	{"gateway: {peers: [{url: http://u@x, agents: [a]}]}",
	 ":1:25:", "no more"},
	{"gateway: {peers: [{url: http://x}]}", ":1:19:", "without agents"},
	{"gateway: {peers: [{agents: [a]}]}", ":1:19:", "without url"},
	{"gateway: {peers: [{url: http://x, agents: [\"*\"]}]}",
	 ":1:44:", "find each by its own name"},
	{"gateway: {peers: [{url: http://x, agents: [a, b, a]}]}",
	 ":1:50:", "comes twice"},
	{"gateway: {peers: [{url: http://x, agents: [a]}, "
	 "{url: http://y, agents: [b, a]}]}",
	 ":1:77:", "behind two peers"},
	{"gateway: {id: me, peers: [{url: http://x, agents: [me]}]}",
	 ":1:52:", "own id"},
	{"gateway: {peers: [{url: http://x, agents: [.a]}]}",
	 ":1:44:", "no leading dot"},
	{"gateway: {peers: [{url: http://x, agents: [a], tls: {}}]}",
	 ":1:19:", "expected https"},
	{"gateway: {peers: [{url: https://x, agents: [a], "
	 "tls: {pinned: abc}}]}",
	 ":1:63:", "base64"},
	{"gateway: {limits: {body: 1}}", ":1:26:", "4096"},
	{"gateway: {limits: {idle: x}}", ":1:26:", "a time"},
	{"gateway: {log_level: loud}", ":1:22:", "debug"},
	{"ahp: {max_retries: -1}\ngateway: {x: 1}", ":1:20:", "whole number"},
	{"gateway: {id: a\n", ":2:1:", ""},
};

static void refusals(void)
{
	put_file(open_secret, "open", "x\n", 0644);
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		struct gw_conf *c = parse(refused[i].text, open_secret);
		bool right = !c && why.code == AVP_BAD_CONFIG &&
			     strstr(why.text, refused[i].where) &&
			     strstr(why.text, refused[i].words);

		CU_ASSERT(right);
		if (!right)
			printf("%s\n  -> %s\n", refused[i].text, why.text);
		gw_conf_free(c);
	}
}

static void bad_tokens(void)
{
	static const char *const tokens[] = {"", "\n", "a b\n", "\303\251\n",
					     "a\001\n"};
	char path[512];

	for (size_t i = 0; i < sizeof(tokens) / sizeof(*tokens); i++) {
		put_file(path, "bad", tokens[i], 0600);
		CU_ASSERT_PTR_NULL(parse(
			"gateway: {tokens: [{name: a, file: %s}]}", path));
		CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "holds no token"));
	}
}

/* The example is right, also with its lists: what it shows is a default. */
static void example(void)
{
	FILE *f = fopen("ahp/avp.example.yaml", "re");
	char line[1000], text[16000] = "", name[512], *p;
	struct gw_conf *plain = parse("", ""), *c = NULL;
	size_t n = 0;

	CU_ASSERT_FATAL(f && plain);
	CU_ASSERT_EQUAL(gw_conf_load(&c, "ahp/avp.example.yaml", &why), 0);
	CU_ASSERT(c &&
		  !memcmp(&c->limits.body_bytes, &plain->limits.body_bytes,
			  sizeof(c->limits) -
				  offsetof(struct gw_conf_limits, body_bytes)));
	gw_conf_free(c);
	put_file(name, "any", "x\n", 0600);
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "  #", 3) && line[3] == '-')
			line[2] = ' ';
		if (!strncmp(line, "  #  ", 5))
			line[2] = ' ';
		if ((p = strstr(line, ": []\n")))
			memcpy(p, ":\n", 3);
		if ((p = strstr(line, ": /etc/avp/")))
			snprintf(p, 600, ": %s\n", name);
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", line);
	}
	fclose(f);
	c = parse("%s", text);
	if (!c)
		puts(why.text);
	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	CU_ASSERT_EQUAL(c->peers, 1);
	CU_ASSERT_EQUAL(c->peer[0].request_ns, 30000000000);
	gw_conf_free(c);
	gw_conf_free(plain);
}

int main(void)
{
	static const struct test tests[] = {TEST(defaults), TEST(every_key),
					    TEST(refusals), TEST(bad_tokens),
					    TEST(example),  {0}};

	return test_main("gateway_conf", tests);
}
