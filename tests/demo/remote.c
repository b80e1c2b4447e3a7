/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make demo, the last scene: a planner here, and two agents behind a second
 * gateway, over HTTP/2 with TLS. "solver" runs the planner's model: it gets the
 * hidden state itself. "writer" runs another: a state is refused, so text goes.
 * The second host is another namespace of this one.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <avp/ahp.h>

#include "demo.h"

enum { DIM = 896 }; /* Qwen2.5-0.5B's hidden state */

#define PATIENCE_NS 10000000000ll

static const char *dir; /* for certificate and configurations */

/* ---- models ------------------------------------------------------------- */

static struct avp_identity qwen(void)
{
	return (struct avp_identity){.model_family = avp_str_of("qwen2"),
				     .model_id =
					     avp_str_of("Qwen/Qwen2.5-0.5B"),
				     .hidden_dim = DIM,
				     .num_layers = 24,
				     .num_kv_heads = 2,
				     .head_dim = 64};
}

static struct avp_identity llama(void)
{
	return (struct avp_identity){
		.model_family = avp_str_of("llama"),
		.model_id = avp_str_of("meta-llama/Llama-3.1-8B"),
		.hidden_dim = 4096,
		.num_layers = 32,
		.num_kv_heads = 8,
		.head_dim = 128};
}

static struct ahp_agent *open_agent(const char *name_space, const char *id,
				    struct avp_identity model)
{
	struct ahp_agent_options options = {
		.id = id, .name_space = name_space, .identity = &model};
	struct ahp_agent *agent;
	struct avp_reason why;

	need(!ahp_agent_open(&agent, &options, &why), id, &why);
	return agent;
}

/* ---- there: two agents -------------------------------------------------- */

static void answer(struct ahp_agent *agent, const struct ahp_message *task)
{
	const float *state = task->frame.payload;
	struct ahp_outgoing result = {.peer = task->peer,
				      .method = AHP_RESULT,
				      .kind = AHP_JSON,
				      .flags = AHP_PROMPT_ACK,
				      .task_id = task->task_id};
	struct ahp_receipt receipt;
	char text[128], json[200];
	struct avp_reason why;
	double sum = 0;

	if (task->kind == AHP_FRAME) {
		for (int i = 0; i < DIM; i++)
			sum += (double)state[i];
		snprintf(text, sizeof(text), "the state's sum is %g", sum);
	} else {
		snprintf(text, sizeof(text), "a text of %llu bytes was read",
			 (unsigned long long)task->body_bytes);
	}
	say("%s; RESULT", text);
	snprintf(json, sizeof(json),
		 "{\"result\": \"%s\", \"status\": \"success\"}", text);
	result.body = json;
	result.body_bytes = strlen(json);
	need(!ahp_send(agent, &result, PATIENCE_NS, &receipt, &why), "RESULT",
	     &why);
	need(!ahp_wait(agent, &receipt, PATIENCE_NS), "RESULT taken", NULL);
}

static void serve(const char *id, struct avp_identity model)
{
	struct ahp_agent *agent = open_agent("there", id, model);
	struct ahp_message task;

	me = id;
	need(!ahp_receive(agent, &task, PATIENCE_NS), "a TASK", NULL);
	answer(agent, &task);
	ahp_release(agent, &task);
	ahp_agent_close(agent);
	exit(0);
}

/* ---- the gateways ------------------------------------------------------- */

static void make_certificate(void)
{
	X509_EXTENSION *address;
	EVP_PKEY *pkey = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	char path[4096];
	FILE *f;

	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), -60);
	X509_gmtime_adj(X509_getm_notAfter(x), 3600);
	X509_set_pubkey(x, pkey);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
				   (const uint8_t *)"there", -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	address = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name,
				      "IP:127.0.0.1");
	X509_add_ext(x, address, -1);
	X509_EXTENSION_free(address);
	need(X509_sign(x, pkey, EVP_sha256()) > 0, "certificate", NULL);
	snprintf(path, sizeof(path), "%s/cert.pem", dir);
	f = fopen(path, "we");
	need(f && PEM_write_X509(f, x) && !fclose(f), path, NULL);
	snprintf(path, sizeof(path), "%s/key.pem", dir);
	f = fopen(path, "we");
	need(f && PEM_write_PrivateKey(f, pkey, NULL, NULL, 0, NULL, NULL) &&
		     !fclose(f),
	     path, NULL);
	X509_free(x);
	EVP_PKEY_free(pkey);
}

/* Starts avp-gateway; the port that it prints when it has a listener. */
static pid_t gateway(const char *program, const char *name, const char *yaml,
		     unsigned *port)
{
	char path[4096], line[200];
	int out[2];
	pid_t pid;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.yaml", dir, name);
	f = fopen(path, "we");
	need(f && fputs(yaml, f) >= 0 && !fclose(f), path, NULL);
	need(!pipe(out), "pipe", NULL);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(out[1], STDOUT_FILENO);
		execl(program, program, "--config", path, "--namespace", name,
		      (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	f = fdopen(out[0], "r");
	if (port)
		need(f && fgets(line, sizeof(line), f) && strstr(line, "port="),
		     "the gateway's port", NULL);
	if (port)
		*port = (unsigned)strtoul(strstr(line, "port=") + 5, NULL, 10);
	fclose(f);
	return pid;
}

static void start_gateways(const char *program, pid_t pid[2])
{
	char yaml[10000];
	unsigned port;

	make_certificate();
	snprintf(yaml, sizeof(yaml),
		 "gateway:\n"
		 "  log_level: error\n"
		 "  listeners:\n"
		 "    - {address: 127.0.0.1, port: 0,\n"
		 "       tls: {cert: %s/cert.pem, key: %s/key.pem}}\n",
		 dir, dir);
	pid[0] = gateway(program, "there", yaml, &port);
	snprintf(yaml, sizeof(yaml),
		 "gateway:\n"
		 "  log_level: error\n"
		 "  peers:\n"
		 "    - {url: \"https://127.0.0.1:%u\", wait_result: true,\n"
		 "       agents: [solver, writer], tls: {ca: %s/cert.pem}}\n",
		 port, dir);
	pid[1] = gateway(program, "here", yaml, NULL);
}

/* ---- here --------------------------------------------------------------- */

static void link_to(struct ahp_agent *agent, const char *id,
		    struct ahp_mode *mode)
{
	int64_t end_ns = now_ns() + PATIENCE_NS;
	struct avp_reason why;
	uint32_t peer;
	int error;

	while ((error = ahp_connect(agent, id, PATIENCE_NS, &peer, &why)) ==
		       AVP_AGENT_NOT_FOUND &&
	       now_ns() < end_ns)
		ahp_agent_run(agent, 1000000);
	need(!error, id, &why);
	need(!ahp_peer_mode(agent, peer, mode), "the mode", NULL);
	say("%s runs %.*s: %s", id, (int)mode->identity.model_id.len,
	    mode->identity.model_id.data,
	    mode->resolution.mode == AVP_MODE_LATENT ? "latent states"
						     : "JSON");
}

static void print_result(struct ahp_agent *agent, int64_t sent_ns)
{
	struct ahp_message m;

	need(!ahp_receive(agent, &m, PATIENCE_NS), "a RESULT", NULL);
	say("RESULT of %s after %.2f ms: %.*s", m.source,
	    (double)(now_ns() - sent_ns) * 1e-6, (int)m.body_bytes,
	    (const char *)m.body);
	ahp_release(agent, &m);
}

static int send_state(struct ahp_agent *agent, const char *target,
		      struct avp_reason *why)
{
	struct avp_metadata about = {.model_id = qwen().model_id,
				     .hidden_dim = DIM};
	struct avp_frame_template head;
	struct ahp_loan loan;
	struct ahp_outgoing task = {.target = target,
				    .method = AHP_TASK,
				    .kind = AHP_FRAME,
				    .task_id = avp_str_of("t-1"),
				    .frame = &head,
				    .loan = &loan};
	int error;

	need(!avp_frame_template_init(&head, &about, AVP_DIALECT_0_2, why) &&
		     !ahp_loan(agent, target, DIM * sizeof(float), 0, &loan,
			       why),
	     "a loan", why);
	for (int i = 0; i < DIM; i++)
		((float *)loan.data)[i] = (float)i;
	task.body = loan.data;
	task.body_bytes = loan.bytes;
	error = ahp_send(agent, &task, PATIENCE_NS, NULL, why);
	if (error)
		ahp_loan_release(agent, &loan);
	return error;
}

static void plan(void)
{
	struct ahp_agent *agent = open_agent("here", "planner", qwen());
	const char *text = "{\"content\": \"three shirts, please\"}";
	struct ahp_outgoing task = {.target = "writer",
				    .method = AHP_TASK,
				    .kind = AHP_JSON,
				    .task_id = avp_str_of("t-2"),
				    .body = text,
				    .body_bytes = strlen(text)};
	struct avp_reason why;
	struct ahp_mode mode;
	int64_t sent_ns;

	link_to(agent, "solver", &mode);
	sent_ns = now_ns();
	need(!send_state(agent, "solver", &why), "the state", &why);
	say("TASK: a hidden state of %d floats", DIM);
	print_result(agent, sent_ns);
	link_to(agent, "writer", &mode);
	need(send_state(agent, "writer", &why) == AVP_SHAPE_MISMATCH,
	     "a state that the writer cannot use was taken", NULL);
	say("a state is refused: %s", why.text);
	sent_ns = now_ns();
	need(!ahp_send(agent, &task, PATIENCE_NS, NULL, &why), "text", &why);
	say("TASK: text instead");
	print_result(agent, sent_ns);
	ahp_agent_close(agent);
}

static void ended(pid_t pid, const char *what)
{
	int status = 0;

	need(waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
		     !WEXITSTATUS(status),
	     what, NULL);
}

int main(int argc, char **argv)
{
	char program[4096];
	pid_t gateways[2], agents[2];

	(void)argc;
	dir = getenv("DEMO_DIR");
	if (!dir || !getenv("AVP_RUNTIME_DIR")) {
		fprintf(stderr, "run me by tests/demo/run\n");
		return 2;
	}
	/* Built into demo/, beside the gateway. */
	snprintf(program, sizeof(program), "%.*s../avp-gateway",
		 (int)(strrchr(argv[0], '/') + 1 - argv[0]), argv[0]);
	me = "planner";
	start_ns = now_ns();
	printf("\nTwo gateways, HTTP/2 with TLS between them (ms):\n");
	fflush(stdout);
	for (int i = 0; i < 2; i++) {
		agents[i] = fork();
		if (!agents[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			serve(i ? "writer" : "solver", i ? llama() : qwen());
		}
	}
	start_gateways(program, gateways);
	plan();
	for (int i = 0; i < 2; i++) {
		ended(agents[i], i ? "writer" : "solver");
		kill(gateways[i], SIGTERM);
		ended(gateways[i], "a gateway");
	}
	return 0;
}
