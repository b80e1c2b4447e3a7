/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl top: what flows now, from one look at the counters to the next. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ahp/cmd_agent.h"

#define INTERVAL_NS 1000000000ll
#define SHORTEST_NS 100000000ll /* agents write their counters that often */

struct look {
	struct ahp_observation *seen;
	size_t count, room;
	int64_t at_ns;
	bool short_of_memory;
};

struct rates {
	double sent, received, bytes_sent, bytes_received, wakes;
};

static void keep(void *arg, const struct ahp_observation *seen)
{
	struct look *l = arg;
	size_t room = l->room ? 2 * l->room : 16;
	void *more;

	if (l->count == l->room) {
		more = realloc(l->seen, room * sizeof(*l->seen));
		if (!more) {
			l->short_of_memory = true;
			return;
		}
		l->seen = more;
		l->room = room;
	}
	l->seen[l->count++] = *seen;
}

static int look(struct look *l, struct avp_reason *why)
{
	int err;

	l->count = 0;
	l->at_ns = cmd_now_ns();
	err = cmd_observe(keep, l, why);
	if (!err && l->short_of_memory)
		err = avp__fail(why, AVP_NO_MEMORY, "no memory for %zu agents",
				l->count + 1);
	return err;
}

/* The same opening of the same agent, in the look before. */
static const struct ahp_observation *before(const struct look *old,
					    const struct ahp_observation *seen)
{
	for (size_t i = 0; i < old->count; i++)
		if (!strcmp(old->seen[i].id, seen->id) &&
		    old->seen[i].pid == seen->pid &&
		    old->seen[i].stats.sent <= seen->stats.sent &&
		    old->seen[i].stats.received <= seen->stats.received)
			return &old->seen[i];
	return NULL;
}

static struct rates rates_of(const struct look *old, const struct look *now,
			     const struct ahp_observation *seen)
{
	const struct ahp_observation *then = before(old, seen);
	double s = (double)(now->at_ns - old->at_ns) * 1e-9;
	const struct ahp_stats *a, *b = &seen->stats;
	struct rates r = {0};

	if (!then || s <= 0)
		return r;
	a = &then->stats;
	r.sent = (double)(b->sent - a->sent) / s;
	r.received = (double)(b->received - a->received) / s;
	r.bytes_sent = (double)(b->bytes_sent - a->bytes_sent) / s;
	r.bytes_received = (double)(b->bytes_received - a->bytes_received) / s;
	r.wakes = (double)(b->wakes - a->wakes) / s;
	return r;
}

static void put_rate(struct avp_json_writer *w, const char *key, double rate)
{
	avp_json_key(w, key);
	avp_json_put_double(w, rate);
}

static int show_json(const struct look *old, const struct look *now,
		     struct avp_reason *why)
{
	struct cmd_answer answer;
	struct avp_json_writer *w = cmd_answer_begin(&answer);

	avp_json_key(w, "agents");
	avp_json_open_array(w);
	for (size_t i = 0; i < now->count; i++) {
		const struct ahp_observation *seen = &now->seen[i];
		struct rates r = rates_of(old, now, seen);

		avp_json_open_object(w);
		avp_json_key(w, "id");
		avp_json_put_text(w, seen->id);
		avp_json_key(w, "state");
		avp_json_put_text(w, seen->state);
		put_rate(w, "sent_per_second", r.sent);
		put_rate(w, "received_per_second", r.received);
		put_rate(w, "bytes_sent_per_second", r.bytes_sent);
		put_rate(w, "bytes_received_per_second", r.bytes_received);
		put_rate(w, "wakes_per_second", r.wakes);
		avp_json_member_uint(w, "in_flight", seen->stats.in_flight);
		avp_json_member_uint(w, "bytes_lent", seen->stats.bytes_lent);
		avp_json_member_uint(w, "links", seen->stats.links);
		avp_json_close_object(w);
	}
	avp_json_close_array(w);
	return cmd_answer_end(&answer, 0, why);
}

static int show_table(const struct look *old, const struct look *now,
		      struct avp_reason *why)
{
	/* On a terminal each look replaces the one before. */
	if (isatty(STDOUT_FILENO))
		fputs("\033[H\033[J", stdout);
	printf("%-24s %-6s %10s %10s %9s %9s %8s %9s\n", "AGENT", "STATE",
	       "SENT/s", "RECV/s", "OUT MB/s", "IN MB/s", "IN FLIGHT",
	       "LENT MB");
	for (size_t i = 0; i < now->count; i++) {
		const struct ahp_observation *seen = &now->seen[i];
		struct rates r = rates_of(old, now, seen);

		printf("%-24s %-6s %10.0f %10.0f %9.1f %9.1f %8llu %9.1f\n",
		       seen->id, seen->state, r.sent, r.received,
		       r.bytes_sent * 1e-6, r.bytes_received * 1e-6,
		       (unsigned long long)seen->stats.in_flight,
		       (double)seen->stats.bytes_lent * 1e-6);
	}
	return cmd_flush(why);
}

/* Until the next look is due, or a signal comes. */
static void rest(int64_t until_ns)
{
	int64_t left;

	while (!cmd_signal() && (left = cmd_slice_ns(until_ns)) > 0)
		poll(NULL, 0, (int)(left / 1000000) + 1);
}

static int run(int64_t interval_ns, uint64_t count, bool json,
	       struct avp_reason *why)
{
	struct look looks[2] = {0}, *now = &looks[0], *old = &looks[1];
	int err = look(old, why);

	for (uint64_t i = 0; !err && (!count || i < count); i++) {
		struct look *third = old;

		rest(old->at_ns + interval_ns);
		if (cmd_signal())
			break;
		err = look(now, why);
		if (!err)
			err = json ? show_json(old, now, why)
				   : show_table(old, now, why);
		old = now;
		now = third;
	}
	free(looks[0].seen);
	free(looks[1].seen);
	return err;
}

int cmd_top(int argc, char **argv)
{
	static const struct cmd_page page = {
		"top", "", 0, 0,
		"Shows again and again what each agent of the namespace sends "
		"and receives a\n"
		"second, until a signal ends it.\n"};
	int64_t interval_ns = INTERVAL_NS;
	uint64_t count = 0;
	bool json = false;
	const struct cmd_option options[] = {
		{"interval", CMD_SECONDS, &interval_ns, "SECONDS",
		 "from one look to the next (1; at least 0.1)"},
		{"count", CMD_COUNT, &count, "N", "end after N looks"},
		{"json", CMD_FLAG, &json, NULL,
		 "an object a line instead of a table"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	if (interval_ns < SHORTEST_NS)
		return cmd_failf("top", AVP_USAGE,
				 "--interval has to be at least 0.1 seconds");
	cmd_catch_signals();
	return run(interval_ns, count, json, &why) ? cmd_fail("top", &why)
						   : CMD_DONE;
}
