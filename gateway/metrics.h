/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What GET /metrics shows, as Prometheus text (exposition format 0.0.4). Names
 * begin with avp_ and end in their unit; counters in _total.
 */
#ifndef AVP_GATEWAY_METRICS_H
#define AVP_GATEWAY_METRICS_H

#include <stdint.h>

#include <avp/json.h>

struct gateway;

/* Seconds, in buckets of powers of two from 64 us to 67 s. */
#define GW_BUCKETS 21
struct gw_histogram {
	uint64_t bucket[GW_BUCKETS + 1]; /* the last: longer */
	uint64_t count, sum_ns;
};

void gw_histogram_add(struct gw_histogram *h, int64_t ns);

enum gw_endpoint {
	GW_OTHER_ENDPOINT,
	GW_HANDSHAKE,
	GW_TRANSMIT,
	GW_TEXT,
	GW_HEALTH,
	GW_METRICS,
	GW_ENDPOINTS
};
const char *gw_endpoint_name(enum gw_endpoint endpoint);

struct gw_metrics {
	int64_t started_ns;
	/* Answers that were given, by the hundreds of their status, 1-5. */
	uint64_t requests[GW_ENDPOINTS][6];
	uint64_t connections_opened, connections_refused, connections_now;
	uint64_t tls_failures;
	uint64_t bytes_received, bytes_sent; /* of sockets, inbound */
	uint64_t protocol_errors;	     /* HTTP that broke its rules */
	uint64_t unauthorized, rate_limited, too_large, timed_out;
	/* Of a transmit or text request: to its last byte, to the local agent,
	 * to its answer. */
	struct gw_histogram receive, hand_over, ack;
	/* Outbound. */
	uint64_t out_messages, out_accepted, out_refused, out_retried, out_dead,
		out_bytes, out_handshakes, out_handshakes_failed, out_fallbacks,
		out_heartbeats;
	struct gw_histogram out_request;
	uint64_t reloads, reloads_failed;
};

/* Appends everything: 0 or AVP_NO_MEMORY. */
int gw_metrics_write(struct gateway *gw, struct avp_buf *to);

/*
 * For parts with values of their own: a HELP and TYPE line, and a value. labels
 * is empty or as in: peer="a",mode="b"; a value has no quote or backslash.
 */
void gw_metric_head(struct avp_buf *to, const char *name, const char *type,
		    const char *help);
void gw_metric(struct avp_buf *to, const char *name, const char *labels,
	       double value);

#endif
