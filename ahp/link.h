/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What link.c (a link's life) and greeting.c (how it begins) ask of each other.
 * The rest of ahp/ needs only what agent_internal.h says of links.
 */
#ifndef AVP_AHP_LINK_H
#define AVP_AHP_LINK_H

#include "ahp/agent_internal.h"

/*
 * Messages read from a socket at once: few in a turn, since a peer can write
 * bells as fast as we read them; all of them, which the other's send buffer
 * bounds to some 300, when something must not be missed.
 */
#define SERVE_TURN 64
#define SERVE_ALL  1024

/* ---- link.c ------------------------------------------------------------- */

/* A link without a socket; NULL at LINKS_MAX or without memory. */
struct ahp__link *ahp__link_new(struct ahp_agent *agent, bool ours,
				struct avp_reason *why);
/* Adds the socket and the pidfd to the loop. */
int ahp__link_watch(struct ahp__link *link, struct avp_reason *why);
/* Its lane is there: waits for its word too, if the agent can. */
int ahp__link_hear_bell(struct ahp__link *link, struct avp_reason *why);
/* The books of what is sent on it: both lanes are there. */
int ahp__link_open_ledger(struct ahp__link *link, struct avp_reason *why);
/* Reads at most that many messages off the socket; may free the link. */
void ahp__link_listen(struct ahp__link *link, int most);
/* Is it still one of the agent's, and connected? */
bool ahp__link_alive(const struct ahp_agent *agent,
		     const struct ahp__link *link);
/* The peer is gone. What it had published is still to be read. */
void ahp__link_hang_up(struct ahp__link *link);
/* Says why, hangs up, frees: for one that was never up. */
void ahp__link_refuse(struct ahp__link *link, const struct avp_reason *why);
/* Whoever waits for this link learns why there is none. */
void ahp__link_fail(struct ahp__link *link, const struct avp_reason *why);

/* ---- greeting.c: what came on a link that is not up yet; may free it ---- */

void ahp__greeting_hello(struct ahp__link *link, const struct wire_hello *hello,
			 size_t bytes);
/* Takes the fds. */
void ahp__greeting_share(struct ahp__link *link, const int *fds, unsigned n);
void ahp__greeting_refused(struct ahp__link *link, struct wire_refuse *say,
			   size_t bytes);

#endif
