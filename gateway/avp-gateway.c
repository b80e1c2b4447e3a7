/* SPDX-License-Identifier: Apache-2.0 */
/* avp-gateway: options, signals, and the turns in which everything is done. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "gateway/gateway.h"

#define SECOND	 INT64_C(1000000000)
#define BEAT_NS	 (SECOND / 10) /* proxies are looked at, for their heartbeat */
#define READY_NS (2 * SECOND)  /* that peers have for their first answer */

static const char usage[] =
	"usage: avp-gateway [--config FILE] [--check] [--namespace NAME]\n"
	"\n"
	"Serves local agents to remote peers, and remote ones to local "
	"agents,\n"
	"over HTTP. Runs in the foreground; logs to stderr; ready when it has\n"
	"printed \"listening address=.. port=..\" for each listener.\n"
	"  --config FILE     $AVP_CONFIG, else ~/.config/avp/avp.yaml, else\n"
	"                    /etc/avp/avp.yaml\n"
	"  --check           only see whether that file is valid: 0 or 2\n"
	"  --namespace NAME  $AVP_NAMESPACE, else the file's, else "
	"\"default\"\n"
	"SIGHUP reloads the file, SIGTERM and SIGINT finish what is under way "
	"and\n"
	"exit with 0; a second one ends at once.\n";

/* What main needs beside the gateway. */
struct program {
	struct gateway gw;
	struct gw_conf *conf;
	const char *config; /* --config */
	struct avp_watch signals;
	bool hup, term; /* came, and are to be seen to */
	bool announced, ending;
	int64_t opened_ns;
	struct gw_timer beat, drain;
};

int64_t gw_clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

static int status_of(int code)
{
	return code == AVP_BAD_CONFIG || code == AVP_USAGE ? 2 : 3;
}

static int fail(const char *what, const struct avp_reason *why)
{
	fprintf(stderr, "avp-gateway: %s: %s: %s\n", what,
		avp_error_name(why->code), why->text);
	return status_of(why->code);
}

/* ---- the ready list ----------------------------------------------------- */

void gw_ready_add(struct gateway *gw, struct gw_ready *item)
{
	if (item->link)
		return;
	item->next = NULL;
	item->link = gw->ready_end;
	*gw->ready_end = item;
	gw->ready_end = &item->next;
}

void gw_ready_remove(struct gateway *gw, struct gw_ready *item)
{
	if (!item->link)
		return;
	*item->link = item->next;
	if (item->next)
		item->next->link = item->link;
	else
		gw->ready_end = item->link;
	item->link = NULL;
}

/* Those that are there now: what they add has the next turn. */
static void run_ready(struct gateway *gw)
{
	struct gw_ready mark = {0}, *item;

	if (!gw->ready)
		return;
	gw_ready_add(gw, &mark);
	while ((item = gw->ready) != &mark) {
		gw_ready_remove(gw, item);
		item->run(item);
	}
	gw_ready_remove(gw, &mark);
}

/* ---- systemd ------------------------------------------------------------ */

/* sd_notify(3)'s protocol: a datagram to the socket that $NOTIFY_SOCKET
 * names. */
static void notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t n = path ? strlen(path) : 0;
	int fd;

	if (!n || n >= sizeof(to.sun_path))
		return;
	memcpy(to.sun_path, path, n);
	if (*path == '@')
		to.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to,
	       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
	close(fd);
}

/* ---- ready -------------------------------------------------------------- */

static void print_listener(void *arg, const char *address, unsigned port,
			   bool tls)
{
	(void)arg;
	(void)tls;
	printf("listening address=%s port=%u\n", address, port);
}

static void log_listener(void *arg, const char *address, unsigned port,
			 bool tls)
{
	struct gateway *gw = arg;

	gw_log(&gw->log, GW_LOG_INFO, "listening", "address=%s port=%u tls=%s",
	       address, port, tls ? "yes" : "no");
}

/* When local agents can find the remote ones, or their peers do not answer. */
static void announce(struct program *p)
{
	struct gateway *gw = &p->gw;

	if (p->announced ||
	    (!gw_outbound_ready(gw) && gw->now_ns - p->opened_ns < READY_NS))
		return;
	p->announced = true;
	gw_inbound_visit(gw, log_listener, gw);
	gw_log(&gw->log, GW_LOG_INFO, "ready",
	       "id=%s listeners=%u peers=%u loop=%s version=" AVP_VERSION,
	       gw_conf_id(gw->conf), gw->conf->listeners, gw->conf->peers,
	       avp_loop_backend(gw->loop));
	gw_inbound_visit(gw, print_listener, gw);
	fflush(stdout);
	notify("READY=1");
}

/* ---- signals ------------------------------------------------------------ */

static void signal_came(struct avp_watch *watch, uint32_t events)
{
	struct program *p = watch->arg;
	struct signalfd_siginfo info;

	(void)events;
	while (read(watch->fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			p->hup = true;
		else if (p->term || p->gw.draining)
			p->ending = true;
		else
			p->term = true;
	}
}

static int watch_signals(struct program *p, struct avp_reason *why)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return avp__fail(why, AVP_IO, "signalfd: %s", strerror(errno));
	p->signals = (struct avp_watch){fd, AVP_READABLE, signal_came, p};
	return avp_loop_add(p->gw.loop, &p->signals, why);
}

/* Sections of agents hold from their opening on. */
static void tell_unchanged(struct program *p, const struct gw_conf *next)
{
	if (memcmp(&p->conf->ahp, &next->ahp, sizeof(next->ahp)))
		gw_log(&p->gw.log, GW_LOG_WARNING, "reload",
		       "reason=\"sections ahp, shm, ring and dlq are read at "
		       "the start only\"");
}

static void reload(struct program *p)
{
	struct gateway *gw = &p->gw;
	char shown[GW_SHOWN_BYTES];
	struct gw_conf *next;
	struct avp_reason why;
	int err;

	p->hup = false;
	notify("RELOADING=1");
	err = gw_conf_load(&next, p->config, &why);
	if (!err) {
		err = gw_inbound_reload(gw, next, &why);
		if (err)
			gw_conf_free(next);
	}
	if (err) {
		gw->metrics.reloads_failed++;
		gw_log(&gw->log, GW_LOG_ERROR, "reload_failed",
		       "code=%s reason=%s", avp_error_name(err),
		       gw_shown(shown, avp_str_of(why.text)));
	} else {
		gw_outbound_reload(gw, next);
		tell_unchanged(p, next);
		gw_conf_free(p->conf);
		gw->conf = p->conf = next;
		gw->log.level = next->log_level;
		gw->metrics.reloads++;
		gw_log(&gw->log, GW_LOG_INFO, "reloaded",
		       "listeners=%u tokens=%u peers=%u", next->listeners,
		       next->tokens, next->peers);
	}
	notify("READY=1");
}

static void drain_over(struct gw_timer *timer)
{
	struct program *p = (struct program *)((char *)timer -
					       offsetof(struct program, drain));

	gw_log(&p->gw.log, GW_LOG_WARNING, "drain",
	       "reason=\"drain_time is over, what is under way is cut off\"");
	p->ending = true;
}

static void drain(struct program *p)
{
	struct gateway *gw = &p->gw;

	p->term = false;
	gw->draining = true;
	notify("STOPPING=1");
	gw_log(&gw->log, GW_LOG_INFO, "draining", "seconds=%g",
	       (double)gw->conf->limits.drain_ns * 1e-9);
	gw_inbound_drain(gw);
	gw_outbound_drain(gw);
	gw_timer_set(&gw->timers, &p->drain,
		     gw->now_ns + gw->conf->limits.drain_ns + 1);
}

/* ---- turns -------------------------------------------------------------- */

static void beat(struct gw_timer *timer)
{
	struct program *p = (struct program *)((char *)timer -
					       offsetof(struct program, beat));

	for (struct gw_agent *a = p->gw.agents; a; a = a->next)
		a->due = true;
	gw_timer_set(&p->gw.timers, timer, p->gw.now_ns + BEAT_NS);
}

static void turn(struct program *p, bool sleep)
{
	struct gateway *gw = &p->gw;
	int64_t next_ns, left = 0;

	if (!gw_agents_arm(gw) && sleep && !gw->ready) {
		next_ns = gw_timers_next(&gw->timers);
		left = next_ns - gw_clock_ns();
		left = left < 0 ? 0 : left;
	}
	ahp_agent_run(gw->own->agent, left);
	gw->now_ns = gw_clock_ns();
	run_ready(gw);
}

static void serve(struct program *p)
{
	struct gateway *gw = &p->gw;
	bool more = true;

	while (!p->ending) {
		turn(p, !more);
		more = gw_agents_turn(gw);
		gw_timers_run(&gw->timers, gw->now_ns);
		run_ready(gw);
		announce(p);
		if (p->hup && !gw->draining)
			reload(p);
		if (p->term)
			drain(p);
		if (gw->draining && gw_inbound_idle(gw) &&
		    gw_outbound_idle(gw) && gw_letters_idle(gw))
			return;
	}
}

/* ---- opening and closing ------------------------------------------------ */

static int open_all(struct program *p, struct avp_reason *why)
{
	struct gateway *gw = &p->gw;
	int err;

	p->opened_ns = gw->now_ns = gw->metrics.started_ns = gw_clock_ns();
	gw->ready_end = &gw->ready;
	gw->conf = p->conf;
	gw->log.level = p->conf->log_level;
	p->beat.fire = beat;
	p->drain.fire = drain_over;
	err = gw_agent_open(gw, gw_conf_id(gw->conf), NULL, NULL, &gw->own,
			    why);
	if (err)
		return err;
	gw->loop = ahp_agent_loop(gw->own->agent);
	err = watch_signals(p, why);
	if (err)
		return err;
	gw_letters_open(gw);
	err = gw_inbound_open(gw, why);
	if (err)
		return err;
	err = gw_outbound_open(gw, why);
	if (!err)
		gw_timer_set(&gw->timers, &p->beat, gw->now_ns + BEAT_NS);
	return err;
}

static void close_all(struct program *p)
{
	struct gateway *gw = &p->gw;

	if (gw->in)
		gw_inbound_close(gw);
	if (gw->out)
		gw_outbound_close(gw);
	if (gw->loop)
		gw_letters_settle(gw);
	free(gw->spare);
	if (p->signals.ready)
		avp_loop_remove(gw->loop, &p->signals);
	if (p->signals.fd > 0)
		close(p->signals.fd);
	if (gw->own)
		gw_agent_close(gw->own);
	gw_letters_close(gw);
	gw_conf_free(p->conf);
}

static int run(struct program *p)
{
	struct avp_reason why;
	int err, status = 0;

	err = open_all(p, &why);
	if (err)
		status = fail("start", &why);
	else
		serve(p);
	if (!err)
		gw_log(&p->gw.log, GW_LOG_INFO, "stopped", "reason=%s",
		       p->ending ? "cut" : "drained");
	close_all(p);
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"namespace", required_argument, NULL, 'n'},
		{"check", no_argument, NULL, 'k'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{0},
	};
	static struct program p;
	struct avp_reason why = {.code = AVP_USAGE};
	bool check = false;
	int c;

	signal(SIGPIPE, SIG_IGN);
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1)
		switch (c) {
		case 'c': p.config = optarg; break;
		case 'n': p.gw.name_space = optarg; break;
		case 'k': check = true; break;
		case 'h': return fputs(usage, stdout), 0;
		case 'v': return puts("avp-gateway " AVP_VERSION), 0;
		default:
			avp__fail(&why, AVP_USAGE,
				  "%s %s; see avp-gateway "
				  "--help",
				  argv[optind - 1],
				  c == ':' ? "needs a value"
					   : "is no option here");
			return fail("options", &why);
		}
	if (optind != argc) {
		avp__fail(&why, AVP_USAGE,
			  "\"%s\" is one word too many; see "
			  "avp-gateway --help",
			  argv[optind]);
		return fail("options", &why);
	}
	if (gw_conf_load(&p.conf, p.config, &why))
		return fail("config", &why);
	if (check) {
		gw_conf_free(p.conf);
		return 0;
	}
	return run(&p);
}
