/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: what is read, and where and why what is not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <avp/config.h>

#include "tests/vectors.h"

static struct avp_reason why;
static struct ahp_config config;

static int parse(const char *text)
{
	return ahp_config_parse(&config, "f.yaml", text, strlen(text), &why);
}

static void defaults(void)
{
	struct ahp_config plain;

	ahp_config_defaults(&plain);
	CU_ASSERT_EQUAL(plain.token_limit, 500);
	CU_ASSERT_EQUAL(plain.task_timeout_ns, 60000000000);
	CU_ASSERT_EQUAL(plain.heartbeat_interval_ns, 30000000000);
	CU_ASSERT_EQUAL(plain.max_retries, 3);
	CU_ASSERT_EQUAL(plain.retry_delay_ns, 1000000000);
	snprintf(plain.file, sizeof(plain.file), "f.yaml");
	for (int i = 0; i < 5; i++) {
		static const char *const empty[] = {"", "# nothing\n", "---\n",
						    "ahp:\nshm:\n", "{}"};

		CU_ASSERT_EQUAL(parse(empty[i]), 0);
		CU_ASSERT(!memcmp(&config, &plain, sizeof(plain)));
	}
}

static void every_key(void)
{
	CU_ASSERT_EQUAL(
		parse("ahp:\n"
		      "  token_limit: 700\n  task_timeout: 2.5s\n"
		      "  receive_timeout: 3m\n  dedup_ids: 99\n"
		      "  heartbeat_interval: 500ms\n  max_retries: 0\n"
		      "  retry_delay: 1.000000001\n  namespace: blue\n"
		      "  runtime_dir: \"/run/my avp\"\n  ack: explicit\n"
		      "  reliable: true\n  progress_thread: true\n"
		      "  allowed_uids: [1000, 1001]\n"
		      "shm: {quota: 2GiB, first_segment: 1 MiB, lock: true,\n"
		      "      reserve: 512MiB,\n"
		      "      huge_pages: false, prefault: true, strict: true}\n"
		      "ring:\n  window: 64\n  wait: block\n  yield: true\n  "
		      "spin: 20us\n"
		      "dlq:\n  dir: /d\n  max_bytes: 65536\n"
		      "  when_full: drop_oldest\n"
		      "latent: [whatever, {a: b}]\n"
		      "gateway:\n  routes: [[x]]\n"),
		0);
	CU_ASSERT_EQUAL(config.token_limit, 700);
	CU_ASSERT_EQUAL(config.task_timeout_ns, 2500000000);
	CU_ASSERT_EQUAL(config.receive_timeout_ns, 180000000000);
	CU_ASSERT_EQUAL(config.dedup_ids, 99);
	CU_ASSERT_EQUAL(config.spin_ns, 20000);
	CU_ASSERT_EQUAL(config.heartbeat_interval_ns, 500000000);
	CU_ASSERT_EQUAL(config.max_retries, 0);
	CU_ASSERT_EQUAL(config.retry_delay_ns, 1000000001);
	CU_ASSERT_STRING_EQUAL(config.name_space, "blue");
	CU_ASSERT_STRING_EQUAL(config.runtime_dir, "/run/my avp");
	CU_ASSERT_EQUAL(config.explicit_ack, 1);
	CU_ASSERT(config.reliable && config.progress_thread && config.yield);
	CU_ASSERT_EQUAL(config.allowed_uid_count, 2);
	CU_ASSERT_EQUAL(config.allowed_uids[1], 1001);
	CU_ASSERT_EQUAL(config.quota_bytes, 2ull << 30);
	CU_ASSERT_EQUAL(config.first_segment_bytes, 1ull << 20);
	CU_ASSERT_EQUAL(config.reserve_bytes, 512ull << 20);
	CU_ASSERT(config.lock && !config.huge_pages && config.prefault &&
		  config.strict);
	CU_ASSERT_EQUAL(config.window, 64);
	CU_ASSERT_EQUAL(config.wait, AHP_WAIT_BLOCK);
	CU_ASSERT_STRING_EQUAL(config.dlq_dir, "/d");
	CU_ASSERT_EQUAL(config.dlq_max_bytes, 65536);
	CU_ASSERT_EQUAL(config.dlq_when_full, 1);
}

/* Where it is, and words of what was found and expected. */
static const struct {
	const char *text, *place, *found, *expected;
} refused[] = {
	{"x: 1", "f.yaml:1:1:", "unknown section \"x\"", "one of ahp, shm"},
	{"ahp:\n  tokens: 1", "f.yaml:2:3:", "unknown key \"tokens\" in ahp",
	 "one of token_limit, task_timeout"},
	{"ahp:\n  max_retries: 1\n  max_retries: 1",
	 ":3:3:", "max_retries comes twice", "once"},
	{"ahp: {}\nring: {}\nahp: {}", ":3:1:", "section ahp comes twice",
	 "once"},
	{"ahp: 5", ":1:6:", "section ahp is \"5\"", "a mapping"},
	{"ahp: [a]", ":1:6:", "section ahp is a list", "a mapping"},
	{"[ahp]", ":1:1:", "the file is a list", "a mapping of sections"},
	{"just words", ":1:1:", "the file is \"just words\"", "a mapping"},
	{"ring: {window: 1000}", ":1:16:", "window is \"1000\"",
	 "a power of two from 16 to 65536"},
	{"ring: {window: 8}", ":1:16:", "window is \"8\"", "16"},
	{"ring: {wait: often}", ":1:14:", "wait is \"often\"",
	 "one of adaptive, busy, block"},
	{"ahp: {max_retries: -1}", ":1:20:", "\"-1\"", "from 0 to 1000"},
	{"ahp: {max_retries: 1001}", ":1:20:", "\"1001\"", "from 0 to 1000"},
	{"ahp: {max_retries: 3.0}", ":1:20:", "\"3.0\"", "whole number"},
	{"ahp: {max_retries: 03}", ":1:20:", "\"03\"", "whole number"},
	{"ahp: {max_retries: 0x3}", ":1:20:", "\"0x3\"", "whole number"},
	{"ahp: {max_retries: \"3\"}", ":1:20:", "the quoted \"3\"",
	 "whole number"},
	{"ahp: {max_retries: }", ":1:20:", "max_retries is nothing",
	 "whole number"},
	{"ahp: {max_retries: [3]}", ":1:20:", "a list", "whole number"},
	{"ahp: {max_retries: 99999999999999999999}", ":1:20:", "\"9999",
	 "1000"},
	{"ahp: {token_limit: 4294967297}", ":1:20:", "\"4294967297\"",
	 "2147483647"},
	{"ahp: {task_timeout: 5 minutes}", ":1:21:", "\"5 minutes\"",
	 "a time, as 30, 2.5s"},
	{"ahp: {task_timeout: 0}", ":1:21:", "\"0\"", "from 0.001s"},
	{"ahp: {task_timeout: 1.s}", ":1:21:", "\"1.s\"", "a time"},
	{"ahp: {task_timeout: 9999999999h}", ":1:21:", "h\"", "a time"},
	{"ahp: {task_timeout: -1s}", ":1:21:", "\"-1s\"", "a time"},
	{"ahp: {namespace: .x}", ":1:18:", "\".x\"", "no leading dot"},
	{"shm: {quota: 64MB}", ":1:14:", "\"64MB\"", "64KiB"},
	{"shm: {quota: 1.5GiB}", ":1:14:", "\"1.5GiB\"", "bytes"},
	{"shm: {quota: 99999999TiB}", ":1:14:", "TiB\"", "bytes"},
	{"shm: {reserve: -1MiB}", ":1:16:", "\"-1MiB\"", "64KiB"},
	{"shm: {reserve: 65TiB}", ":1:16:", "\"65TiB\"", "bytes"},
	{"shm: {lock: yes}", ":1:13:", "\"yes\"", "true or false"},
	{"ahp: {progress_thread: 1}", ":1:24:", "\"1\"", "true or false"},
	{"ahp: {reliable: \"true\"}", ":1:17:", "quoted", "true or false"},
	{"ahp: {namespace: ../x}", ":1:18:", "\"../x\"", "no leading dot"},
	{"ahp: {runtime_dir: rel}", ":1:20:", "\"rel\"", "begins with /"},
	{"ahp: {runtime_dir: \"/a\\0b\"}", ":1:20:", "quoted", "begins with /"},
	{"ahp: {\"max_retries\\0\": 1}", ":1:7:", "unknown key", "one of"},
	{"ahp: {allowed_uids: 5}", ":1:21:", "\"5\"", "a list of up to 64"},
	{"ahp: {allowed_uids: [5, x]}", ":1:25:", "\"x\"", "whole number"},
	{"ahp: {allowed_uids: [4294967295]}", ":1:22:", "\"42949", "whole"},
	{"ahp: &a {}\nring: *a", ":1:6:", "an anchor, alias or tag", "write"},
	{"gateway: &a [*a, *a]", ":1:10:", "an anchor", "write"},
	{"ahp: {max_retries: !!int 3}", ":1:20:", "tag", "write"},
	{"ahp: {[a]: b}", ":1:7:", "a list", "a key"},
	{"ahp: {}\n---\nring: {}", ":2:1:", "a second document", "one"},
	{"ahp: {", ":2:1:", "", "expected YAML"},
	{"ahp:\n\tx: 1", ":2:1:", "", "expected YAML"},
	{"ahp:\n  \xff: 1", ":2:3:", "", "UTF-8"},
};

static void refusals(void)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		bool ok = parse(refused[i].text) == AVP_BAD_CONFIG &&
			  strstr(why.text, refused[i].place) &&
			  strstr(why.text, refused[i].found) &&
			  strstr(why.text, refused[i].expected);

		if (!ok)
			printf("  %s\n  -> %s\n", refused[i].text, why.text);
		CU_ASSERT(ok);
	}
}

static void limits(void)
{
	char *text = malloc(AHP_CONFIG_MAX_BYTES + 2);

	memset(text, '#', AHP_CONFIG_MAX_BYTES + 1);
	text[AHP_CONFIG_MAX_BYTES + 1] = 0;
	CU_ASSERT_EQUAL(parse(text), AVP_BAD_CONFIG);
	CU_ASSERT(strstr(why.text, "1048577 bytes; expected at most 1048576") !=
		  NULL);
	text[AHP_CONFIG_MAX_BYTES] = 0;
	CU_ASSERT_EQUAL(parse(text), 0);
	memcpy(text, "gateway: ", 9);
	memset(text + 9, '[', 30);
	memset(text + 39, ']', 30);
	text[69] = 0;
	CU_ASSERT_EQUAL(parse(text), 0);
	memset(text + 9, '[', 1000);
	text[1009] = 0;
	CU_ASSERT_EQUAL(parse(text), AVP_BAD_CONFIG);
	CU_ASSERT(strstr(why.text, "deeper than 32") != NULL);
	free(text);
}

/* ---- files --------------------------------------------------------------- */

static const char *place(const char *name)
{
	static char path[400];

	snprintf(path, sizeof(path), "%s/%s", test_dir(), name);
	return path;
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	CU_ASSERT_FATAL(f != NULL);
	fputs(text, f);
	fclose(f);
}

static void example(void)
{
	struct ahp_config plain;

	ahp_config_defaults(&plain);
	CU_ASSERT_EQUAL(ahp_config_read(&config, "ahp/avp.example.yaml", &why),
			0);
	/* It says the defaults, and nothing else. */
	CU_ASSERT_STRING_EQUAL(config.file, "ahp/avp.example.yaml");
	memcpy(plain.file, config.file, sizeof(plain.file));
	config.window = 0; /* 1024, which the agent's own default is */
	CU_ASSERT(!memcmp(&config, &plain, sizeof(plain)));
}

/* With every "# key:" made a key the example is still right. */
static void example_keys(void)
{
	FILE *f = fopen("ahp/avp.example.yaml", "re");
	char line[200], text[16000] = "", *mark;
	size_t n = 0;

	CU_ASSERT_FATAL(f != NULL);
	while (fgets(line, sizeof(line), f)) {
		mark = strstr(line, "  # ");
		if (mark == line && line[4] >= 'a' && strchr(line, ':'))
			memcpy(line, "    ", 4), memmove(line + 2, line + 4,
							 strlen(line + 4) + 1);
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", line);
	}
	fclose(f);
	CU_ASSERT_EQUAL(parse(text), 0);
	CU_ASSERT_STRING_EQUAL(config.name_space, "default");
	CU_ASSERT_STRING_EQUAL(config.dlq_dir, "/var/lib/avp/dlq");
	CU_ASSERT_EQUAL(config.quota_bytes, 4ull << 30);
}

static void search_order(void)
{
	char home[400];

	snprintf(home, sizeof(home), "%s", place("home"));
	mkdir(home, 0700);
	setenv("HOME", home, 1);
	unsetenv("AVP_CONFIG");
	if (access("/etc/avp/avp.yaml", F_OK)) {
		CU_ASSERT_EQUAL(ahp_config_load(&config, NULL, &why), 0);
		CU_ASSERT_STRING_EQUAL(config.file, "");
	}
	mkdir(place("home/.config"), 0700);
	mkdir(place("home/.config/avp"), 0700);
	write_file(place("home/.config/avp/avp.yaml"), "ring: {window: 16}");
	CU_ASSERT_EQUAL(ahp_config_load(&config, NULL, &why), 0);
	CU_ASSERT_EQUAL(config.window, 16);
	write_file(place("env.yaml"), "ring: {window: 32}");
	setenv("AVP_CONFIG", place("env.yaml"), 1);
	CU_ASSERT_EQUAL(ahp_config_load(&config, NULL, &why), 0);
	CU_ASSERT_EQUAL(config.window, 32);
	write_file(place("arg.yaml"), "ring: {window: 64}");
	CU_ASSERT_EQUAL(ahp_config_load(&config, place("arg.yaml"), &why), 0);
	CU_ASSERT_EQUAL(config.window, 64);
	setenv("AVP_CONFIG", place("missing.yaml"), 1);
	CU_ASSERT_EQUAL(ahp_config_load(&config, NULL, &why), AVP_BAD_CONFIG);
	CU_ASSERT(strstr(why.text, "missing.yaml:1:1: No such file") != NULL);
	CU_ASSERT_EQUAL(ahp_config_load(&config, home, &why), AVP_BAD_CONFIG);
	CU_ASSERT(strstr(why.text, ":1:1: a directory; expected") != NULL);
	unsetenv("AVP_CONFIG");
}

static void what_follows(void)
{
	struct ahp_agent_options a = {.window = 256};
	struct ahp_dlq_options d = {0};

	unsetenv("AVP_NAMESPACE");
	unsetenv("AVP_RUNTIME_DIR");
	CU_ASSERT_EQUAL(
		parse("ahp: {namespace: blue, ack: explicit, runtime_dir: /r}\n"
		      "shm: {quota: 1GiB, lock: true, huge_pages: false,\n"
		      "      reserve: 1MiB}\n"
		      "ring: {window: 64, wait: busy}\n"
		      "dlq: {dir: /d, when_full: drop_oldest}\n"),
		0);
	ahp_config_agent(&config, &a);
	ahp_config_dlq(&config, &d);
	CU_ASSERT_EQUAL(a.size, sizeof(a));
	CU_ASSERT_EQUAL(a.window, 256); /* the caller's word counts */
	CU_ASSERT_EQUAL(a.wait, AHP_WAIT_BUSY);
	CU_ASSERT_EQUAL(a.flags, AHP_EXPLICIT_ACK);
	CU_ASSERT_STRING_EQUAL(a.name_space, "blue");
	CU_ASSERT_STRING_EQUAL(a.runtime_dir, "/r");
	CU_ASSERT_EQUAL(a.quota_bytes, 1ull << 30);
	CU_ASSERT_EQUAL(a.reserve_bytes, 1ull << 20);
	CU_ASSERT_EQUAL(a.memory_flags,
			AVP_MEMORY_LOCK | AVP_MEMORY_SMALL_PAGES);
	CU_ASSERT_STRING_EQUAL(d.dir, "/d");
	CU_ASSERT_STRING_EQUAL(d.name_space, "blue");
	CU_ASSERT_EQUAL(d.flags, AHP_DLQ_DROP_OLDEST);
	CU_ASSERT_EQUAL(d.max_bytes, AHP_DLQ_MAX_BYTES);
	setenv("AVP_NAMESPACE", "red", 1);
	a = (struct ahp_agent_options){0};
	ahp_config_agent(&config, &a);
	CU_ASSERT_PTR_NULL(a.name_space);
	unsetenv("AVP_NAMESPACE");
}

/* Every key of ahp, and that 0 stays what the file says, not a default. */
static void what_follows_of_ahp(void)
{
	struct ahp_agent_options a = {0};

	CU_ASSERT_EQUAL(parse("ahp: {token_limit: 700, task_timeout: 2s,\n"
			      "receive_timeout: 3s, heartbeat_interval: 4s,\n"
			      "max_retries: 5, retry_delay: 6s,\n"
			      "dedup_ids: 32}\nring: {spin: 7us}\n"),
			0);
	ahp_config_agent(&config, &a);
	CU_ASSERT_EQUAL(a.token_limit, 700);
	CU_ASSERT_EQUAL(a.task_timeout_ns, 2000000000);
	CU_ASSERT_EQUAL(a.receive_timeout_ns, 3000000000);
	CU_ASSERT_EQUAL(a.heartbeat_interval_ns, 4000000000);
	CU_ASSERT_EQUAL(a.dedup_ids, 32);
	CU_ASSERT_EQUAL(a.spin_ns, 7000);
	CU_ASSERT_EQUAL(a.max_retries, 5);
	CU_ASSERT_EQUAL(a.retry_delay_ns, 6000000000);
	CU_ASSERT_EQUAL(a.flags, 0);
	CU_ASSERT_EQUAL(parse("ahp: {reliable: true}\n"), 0);
	ahp_config_agent(&config, &a);
	CU_ASSERT_EQUAL(a.flags, AHP_RELIABLE);
	CU_ASSERT_EQUAL(parse("ring: {yield: true}\n"), 0);
	a = (struct ahp_agent_options){0};
	ahp_config_agent(&config, &a);
	CU_ASSERT_EQUAL(a.flags, AHP_YIELD);
	CU_ASSERT_EQUAL(parse("ahp: {progress_thread: true}\n"), 0);
	a = (struct ahp_agent_options){.flags = AHP_EXPLICIT_ACK};
	ahp_config_agent(&config, &a);
	CU_ASSERT_EQUAL(a.flags, AHP_EXPLICIT_ACK | AHP_PROGRESS_THREAD);
	CU_ASSERT_EQUAL(parse("ahp: {max_retries: 0, retry_delay: 0}\n"), 0);
	a = (struct ahp_agent_options){.task_timeout_ns = 5};
	ahp_config_agent(&config, &a);
	CU_ASSERT_EQUAL(a.max_retries, AHP_NO_RETRY);
	CU_ASSERT_EQUAL(a.retry_delay_ns, 1);
	CU_ASSERT_EQUAL(a.task_timeout_ns, 5);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(defaults),
		TEST(every_key),
		TEST(refusals),
		TEST(limits),
		TEST(example),
		TEST(example_keys),
		TEST(search_order),
		TEST(what_follows),
		TEST(what_follows_of_ahp),
		{0},
	};

	return test_main("config", tests);
}
