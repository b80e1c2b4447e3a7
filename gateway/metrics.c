/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include "gateway/gateway.h"

#define FIRST_BUCKET_NS INT64_C(64000)

void gw_histogram_add(struct gw_histogram *h, int64_t ns)
{
	int64_t bound = FIRST_BUCKET_NS;
	unsigned i = 0;

	for (; i < GW_BUCKETS && ns > bound; i++)
		bound *= 2;
	h->bucket[i]++;
	h->count++;
	h->sum_ns += ns > 0 ? (uint64_t)ns : 0;
}

const char *gw_endpoint_name(enum gw_endpoint endpoint)
{
	static const char *const names[GW_ENDPOINTS] = {
		"other", "handshake", "transmit", "text", "health", "metrics"};

	return names[endpoint];
}

/* ---- lines -------------------------------------------------------------- */

static void put(struct avp_buf *to, const char *line, int n, size_t cap)
{
	/* Without memory the text is short: gw_metrics_write() sees it. */
	if (n > 0 && (size_t)n < cap && avp_buf_append(to, line, (size_t)n))
		return;
}

void gw_metric_head(struct avp_buf *to, const char *name, const char *type,
		    const char *help)
{
	char line[400];
	int n = snprintf(line, sizeof(line),
			 "# HELP avp_%s %s\n# TYPE avp_%s %s\n", name, help,
			 name, type);

	put(to, line, n, sizeof(line));
}

void gw_metric(struct avp_buf *to, const char *name, const char *labels,
	       double value)
{
	char line[400];
	int n = snprintf(line, sizeof(line), "avp_%s%s%s%s %.17g\n", name,
			 *labels ? "{" : "", labels, *labels ? "}" : "", value);

	put(to, line, n, sizeof(line));
}

static void one(struct avp_buf *to, const char *name, const char *type,
		const char *help, double value)
{
	gw_metric_head(to, name, type, help);
	gw_metric(to, name, "", value);
}

static void histogram(struct avp_buf *to, const char *name, const char *help,
		      const struct gw_histogram *h)
{
	char part[80], label[40];
	uint64_t below = 0;
	int64_t bound = FIRST_BUCKET_NS;

	gw_metric_head(to, name, "histogram", help);
	snprintf(part, sizeof(part), "%s_bucket", name);
	for (unsigned i = 0; i < GW_BUCKETS; i++, bound *= 2) {
		below += h->bucket[i];
		snprintf(label, sizeof(label), "le=\"%.9g\"",
			 (double)bound * 1e-9);
		gw_metric(to, part, label, (double)below);
	}
	gw_metric(to, part, "le=\"+Inf\"", (double)h->count);
	snprintf(part, sizeof(part), "%s_sum", name);
	gw_metric(to, part, "", (double)h->sum_ns * 1e-9);
	snprintf(part, sizeof(part), "%s_count", name);
	gw_metric(to, part, "", (double)h->count);
}

/* ---- what is counted ---------------------------------------------------- */

static const struct {
	const char *name, *help;
	size_t off;
} counters[] = {
#define C(name, field, help)                                   \
	{                                                      \
		name, help, offsetof(struct gw_metrics, field) \
	}
	C("connections_total", connections_opened, "Connections accepted."),
	C("connections_refused_total", connections_refused,
	  "Connections closed at once, at the limit of connections."),
	C("tls_failures_total", tls_failures, "TLS handshakes that failed."),
	C("received_bytes_total", bytes_received, "Read from clients."),
	C("sent_bytes_total", bytes_sent, "Written to clients."),
	C("protocol_errors_total", protocol_errors,
	  "Requests or connections that broke the rules of HTTP."),
	C("unauthorized_total", unauthorized, "Answers 401 and 403."),
	C("rate_limited_total", rate_limited, "Answers 429."),
	C("too_large_total", too_large, "Answers 413."),
	C("timed_out_total", timed_out, "Requests that were too slow."),
	C("out_messages_total", out_messages,
	  "Messages taken from local agents for remote ones."),
	C("out_accepted_total", out_accepted, "Of them, accepted."),
	C("out_refused_total", out_refused, "Of them, refused."),
	C("out_dead_total", out_dead, "Of them, dead letters."),
	C("out_retries_total", out_retried, "Requests made again."),
	C("out_bytes_total", out_bytes, "Bodies sent to peers."),
	C("out_handshakes_total", out_handshakes, "Handshakes made."),
	C("out_handshakes_failed_total", out_handshakes_failed,
	  "Handshakes that failed."),
	C("out_heartbeats_total", out_heartbeats,
	  "HEARTBEATs sent to remote agents."),
	C("out_fallbacks_total", out_fallbacks,
	  "Sessions that a peer switched to JSON."),
	C("reloads_total", reloads, "Configurations loaded by SIGHUP."),
	C("reloads_failed_total", reloads_failed,
	  "Configurations refused by SIGHUP."),
#undef C
};

static void requests(const struct gw_metrics *m, struct avp_buf *to)
{
	char label[64];

	gw_metric_head(to, "requests_total", "counter",
		       "Requests answered, by endpoint and class of status.");
	for (unsigned e = 0; e < GW_ENDPOINTS; e++)
		for (unsigned s = 1; s < 6; s++) {
			snprintf(label, sizeof(label),
				 "endpoint=\"%s\",status=\"%uxx\"",
				 gw_endpoint_name(e), s);
			if (m->requests[e][s])
				gw_metric(to, "requests_total", label,
					  (double)m->requests[e][s]);
		}
}

static void agents(struct gateway *gw, struct avp_buf *to)
{
	double lent = 0, in_flight = 0, sent = 0, received = 0;
	struct ahp_stats stats;

	for (struct gw_agent *a = gw->agents; a; a = a->next) {
		ahp_agent_stats(a->agent, &stats);
		lent += (double)stats.bytes_lent;
		in_flight += (double)stats.in_flight;
		sent += (double)stats.sent;
		received += (double)stats.received;
	}
	one(to, "local_sent_total", "counter",
	    "Messages sent to local agents, by those that are open.", sent);
	one(to, "local_received_total", "counter",
	    "Messages taken from local agents, by those that are open.",
	    received);
	one(to, "local_in_flight", "gauge",
	    "Messages to local agents that are not acknowledged.", in_flight);
	one(to, "local_lent_bytes", "gauge", "Memory lent to local agents.",
	    lent);
}

int gw_metrics_write(struct gateway *gw, struct avp_buf *to)
{
	const struct gw_metrics *m = &gw->metrics;
	size_t begin = to->len;

	if (avp_buf_reserve(to, 32768))
		return AVP_NO_MEMORY;
	one(to, "uptime_seconds", "gauge", "Since the gateway was started.",
	    (double)(gw_clock_ns() - m->started_ns) * 1e-9);
	requests(m, to);
	for (size_t i = 0; i < sizeof(counters) / sizeof(*counters); i++)
		one(to, counters[i].name, "counter", counters[i].help,
		    (double)*(const uint64_t *)((const char *)m +
						counters[i].off));
	one(to, "connections", "gauge", "Connections that are open.",
	    (double)m->connections_now);
	histogram(to, "receive_seconds", "A request, from begin to end.",
		  &m->receive);
	histogram(to, "hand_over_seconds",
		  "From a request's end to the local agent.", &m->hand_over);
	histogram(to, "ack_seconds", "From there to its acknowledgement.",
		  &m->ack);
	histogram(to, "out_request_seconds", "Requests to peers.",
		  &m->out_request);
	agents(gw, to);
	gw_inbound_metrics(gw, to);
	gw_outbound_metrics(gw, to);
	return to->len > begin ? 0 : AVP_NO_MEMORY;
}
