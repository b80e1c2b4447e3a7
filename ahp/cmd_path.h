/* SPDX-License-Identifier: Apache-2.0 */
/* The way between two agents of this host, tried out. */
#ifndef AVP_AHP_CMD_PATH_H
#define AVP_AHP_CMD_PATH_H

#include <avp/error.h>

struct cmd_path {
	double round_trip_ns; /* 64 bytes there and 64 back, median */
	double bytes_per_s;   /* bodies of 1 MiB, written and read */
};

/*
 * Starts a second process, lets an agent in each talk in a namespace of their
 * own, for some 0.3 s, and removes all of it. 0, or what the agents met.
 */
int cmd_path_measure(struct cmd_path *path, struct avp_reason *why);

#endif
