/* SPDX-License-Identifier: Apache-2.0 */
/* avp-gateway as curl sees it: HTTP/1.1, HTTP/2 and TLS; tokens and reloads. */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/gateway.h"

#define LISTENER "    - {address: 127.0.0.1, port: 0, default_agent: echo"

extern char **environ;
static struct answer a;

/* Runs a program, its stdout into the file `out`; its exit status. */
static int run(const char *out, const char *const *words)
{
	posix_spawn_file_actions_t actions;
	char path[512];
	int status = -1;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/%s", test_dir(), out);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 1, path,
					 O_WRONLY | O_CREAT | O_TRUNC, 0600);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	CU_ASSERT_EQUAL_FATAL(posix_spawnp(&pid, words[0], &actions, NULL,
					   (char *const *)words, environ),
			      0);
	posix_spawn_file_actions_destroy(&actions);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* "200 2": the status and the version of HTTP that curl saw. */
static const char *curl(unsigned port, const char *scheme, const char *path,
			const char *const *more)
{
	static char said[64];
	/* Of two -o the first counts. */
	const char *words[32] = {"curl", "-s", "-m",
				 "20",	 "-w", "%{http_code} %{http_version}"};
	char url[256], file[512];
	unsigned n = 6;
	FILE *f;

	snprintf(url, sizeof(url), "%s://localhost:%u%s", scheme, port, path);
	while (*more && n < 28)
		words[n++] = *more++;
	words[n++] = "-o";
	words[n++] = "/dev/null";
	words[n++] = url;
	words[n] = NULL;
	run("curl", words);
	snprintf(file, sizeof(file), "%s/curl", test_dir());
	f = fopen(file, "re");
	CU_ASSERT_FATAL(f != NULL);
	said[fread(said, 1, sizeof(said) - 1, f)] = 0;
	fclose(f);
	return said;
}
#define CURL(port, scheme, path, ...) \
	curl(port, scheme, path, (const char *const[]){__VA_ARGS__, NULL})

static const char *path_of(const char *name)
{
	static char path[4][512];
	static int i;

	i = (i + 1) % 4;
	snprintf(path[i], sizeof(path[i]), "%s/%s", test_dir(), name);
	return path[i];
}

static void save(const char *name, const void *data, size_t n)
{
	FILE *f = fopen(path_of(name), "we");

	CU_ASSERT_FATAL(f && !fchmod(fileno(f), 0600) &&
			fwrite(data, 1, n, f) == n && !fclose(f));
}

/* A certificate of our own for localhost, in NAME.pem and NAME.key. */
static void make_certificate(const char *name)
{
	char key[64], cert[64];

	snprintf(key, sizeof(key), "%s.key", name);
	snprintf(cert, sizeof(cert), "%s.pem", name);
	CU_ASSERT_EQUAL_FATAL(
		run("openssl",
		    (const char *const[]){
			    "openssl", "req", "-x509", "-newkey", "ec",
			    "-pkeyopt", "ec_paramgen_curve:prime256v1",
			    "-nodes", "-subj", "/CN=localhost", "-addext",
			    "subjectAltName=DNS:localhost", "-days", "2",
			    "-keyout", path_of(key), "-out", path_of(cert),
			    NULL}),
		0);
}

static void every_version(void)
{
	static uint8_t frame[(5 << 20) + 64];
	size_t n = frame_make(frame, "", 5 << 20, 1);
	pid_t echo = gateway_plain_agent("echo", role_echo);
	struct gateway_run g;
	char yaml[2048], body[600];

	make_certificate("server");
	save("frame", frame, n);
	snprintf(body, sizeof(body), "@%s", path_of("frame"));
	snprintf(yaml, sizeof(yaml),
		 "gateway:\n  listeners:\n" LISTENER "}\n" LISTENER
		 ", tls: {cert: %s, key: %s}}\n",
		 path_of("server.pem"), path_of("server.key"));
	gateway_start(&g, yaml);
#define BODY "-H", "Content-Type: application/avp+binary", "--data-binary", body
#define PLAIN(...) \
	CURL(g.port[0], "http", "/avp/v2/transmit", BODY, __VA_ARGS__)
#define SECURE(...)                                                    \
	CURL(g.port[1], "https", "/avp/v2/transmit", BODY, "--cacert", \
	     path_of("server.pem"), __VA_ARGS__)
	CU_ASSERT_STRING_EQUAL(PLAIN("--http1.1"), "200 1.1");
	CU_ASSERT_STRING_EQUAL(PLAIN("--http1.0"), "200 1.1");
	CU_ASSERT_STRING_EQUAL(PLAIN("--http2-prior-knowledge"), "200 2");
	CU_ASSERT_STRING_EQUAL(
		PLAIN("--http1.1", "-H", "Transfer-Encoding: chunked"),
		"200 1.1");
	CU_ASSERT_STRING_EQUAL(SECURE("--http2"), "200 2");
	CU_ASSERT_STRING_EQUAL(SECURE("--http1.1"), "200 1.1");
	CU_ASSERT_STRING_EQUAL(SECURE("--no-alpn"), "200 1.1");
	CU_ASSERT_STRING_EQUAL(SECURE("--tls-max", "1.2"), "200 2");
	CU_ASSERT_STRING_EQUAL(SECURE("--tls-max", "1.1"), "000 0");
	/* The frame comes back as it was, over both. */
	CU_ASSERT_STRING_EQUAL(
		SECURE("-H", "AHP-Wait: result", "-o", path_of("back")),
		"200 2");
	CU_ASSERT_EQUAL(
		run("cmp", (const char *const[]){"cmp", path_of("frame"),
						 path_of("back"), NULL}),
		0);
	CU_ASSERT_STRING_EQUAL(SECURE("--http1.1", "-H", "AHP-Wait: result",
				      "-o", path_of("back")),
			       "200 1.1");
	CU_ASSERT_EQUAL(
		run("cmp", (const char *const[]){"cmp", path_of("frame"),
						 path_of("back"), NULL}),
		0);
	/* No TLS where there should be, and the other way about. */
	CU_ASSERT_STRING_EQUAL(CURL(g.port[1], "http", "/health", "-4"),
			       "000 0");
	CU_ASSERT_STRING_EQUAL(CURL(g.port[0], "https", "/health", "-4"),
			       "000 0");
	CU_ASSERT(gateway_lends_nothing(&g));
	gateway_agent_end(echo);
	gateway_stop(&g);
}

static void client_certificates(void)
{
	struct gateway_run g;
	char yaml[2048];

	make_certificate("server");
	make_certificate("client");
	snprintf(yaml, sizeof(yaml),
		 "gateway:\n  listeners:\n" LISTENER
		 ", tls: {cert: %s, key: %s, client_ca: %s}}\n",
		 path_of("server.pem"), path_of("server.key"),
		 path_of("client.pem"));
	gateway_start(&g, yaml);
#define HEALTH(...)                                                            \
	CURL(g.port[0], "https", "/health", "--cacert", path_of("server.pem"), \
	     __VA_ARGS__)
	CU_ASSERT_STRING_EQUAL(HEALTH("--cert", path_of("client.pem"), "--key",
				      path_of("client.key")),
			       "200 2");
	CU_ASSERT_STRING_EQUAL(HEALTH("-4"), "000 0");
	CU_ASSERT_STRING_EQUAL(HEALTH("--cert", path_of("server.pem"), "--key",
				      path_of("server.key")),
			       "000 0");
	gateway_stop(&g);
}

/* ---- who may do what ---------------------------------------------------- */

static int tells(const struct gateway_run *g, const char *token,
		 const char *path)
{
	char header[128] = "";

	if (token)
		snprintf(header, sizeof(header), "Authorization: %s\r\n",
			 token);
	return client_asks(g->port[0], "POST", path, header, "{}", 2, &a);
}

static void tokens(void)
{
	pid_t echo = gateway_plain_agent("echo", role_echo),
	      other = gateway_plain_agent("other", role_echo);
	struct gateway_run g;
	char yaml[2048];

	save("one", "sesame\n", 7);
	save("two", "abracadabra", 11);
	snprintf(yaml, sizeof(yaml),
		 "gateway:\n  listeners:\n" LISTENER "}\n  tokens:\n"
		 "    - {name: one, file: %s, agents: [echo]}\n"
		 "    - {name: two, file: %s, default_agent: other, "
		 "rate: 3}\n",
		 path_of("one"), path_of("two"));
	gateway_start(&g, yaml);
	CU_ASSERT_EQUAL(tells(&g, NULL, "/avp/v2/text"), 401);
	CU_ASSERT(answer_has(&a, "www-authenticate: Bearer"));
	CU_ASSERT_EQUAL(tells(&g, "Bearer open", "/avp/v2/text"), 401);
	CU_ASSERT_EQUAL(tells(&g, "Basic sesame", "/avp/v2/text"), 401);
	CU_ASSERT_EQUAL(tells(&g, "Bearer sesame", "/avp/v2/text"), 200);
	CU_ASSERT_EQUAL(tells(&g, "bearer sesame", "/avp/v2/text"), 200);
	CU_ASSERT_EQUAL(tells(&g, "Bearer sesam", "/avp/v2/text"), 401);
	CU_ASSERT_EQUAL(tells(&g, "Bearer sesame", "/agents/other/avp/v2/text"),
			403);
	CU_ASSERT_EQUAL(
		tells(&g, "Bearer sesame", "/agents/other/avp/v2/handshake"),
		403);
	CU_ASSERT_EQUAL(tells(&g, "Bearer abracadabra", "/avp/v2/handshake"),
			200);
	CU_ASSERT(answer_has(&a, "\"agent_id\":\"other\""));
	for (int i = 0; i < 10; i++)
		tells(&g, "Bearer abracadabra", "/avp/v2/text");
	CU_ASSERT_EQUAL(a.status, 429);
	CU_ASSERT(answer_has(&a, "retry-after: 1"));
	CU_ASSERT_EQUAL(tells(&g, "Bearer sesame", "/avp/v2/text"), 200);
	CU_ASSERT_EQUAL(
		client_asks(g.port[0], "GET", "/metrics", "", "", 0, &a), 401);
	CU_ASSERT_EQUAL(client_asks(g.port[0], "GET", "/health", "", "", 0, &a),
			200);
	/* None of them is in the log. */
	CU_ASSERT_NOT_EQUAL(
		run("grep",
		    (const char *const[]){"grep", "-E", "sesame|abracadabra",
					  path_of("log"), NULL}),
		0);
	gateway_agent_end(echo);
	gateway_agent_end(other);
	gateway_stop(&g);
}

static bool reloaded(void *arg)
{
	const struct gateway_run *g = arg;

	return tells(g, NULL, "/avp/v2/text") == 401;
}

/* A token is asked for from now on; what was connected stays connected. */
static void reloads(void)
{
	pid_t echo = gateway_plain_agent("echo", role_echo);
	struct gateway_run g;
	char yaml[1024];
	int fd;

	save("one", "sesame", 6);
	/* What agents may be told, and the gateway's own must not be. */
	gateway_start(&g, "ahp: {ack: auto, reliable: true,\n"
			  "      progress_thread: true}\n"
			  "gateway:\n  listeners:\n" LISTENER "}\n");
	fd = client_open(g.port[0]);
	client_says(fd, "GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
	CU_ASSERT(client_hears(fd, &a) && a.status == 200);
	CU_ASSERT_EQUAL(tells(&g, NULL, "/avp/v2/text"), 200);
	snprintf(yaml, sizeof(yaml),
		 "gateway:\n  listeners:\n" LISTENER "}\n  tokens:\n"
		 "    - {name: one, file: %s}\n",
		 path_of("one"));
	save("avp.yaml", yaml, strlen(yaml));
	kill(g.pid, SIGHUP);
	CU_ASSERT(test_wait(reloaded, &g, 20));
	CU_ASSERT_EQUAL(tells(&g, "Bearer sesame", "/avp/v2/text"), 200);
	client_says(fd, "GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
	CU_ASSERT(client_hears(fd, &a) && a.status == 200);
	close(fd);
	gateway_agent_end(echo);
	gateway_stop(&g);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(every_version),
		TEST(client_certificates),
		TEST(tokens),
		TEST(reloads),
		{0},
	};

	(void)argc;
	gateway_begin(argv[0]);
	return test_main("gateway_curl", tests);
}
