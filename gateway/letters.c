/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dead letter queue, and its way to the disk: letters that die within a few
 * milliseconds share one fdatasync(), which is the loop's. A turn that waited
 * for the disk would hold up every connection.
 */
#include <string.h>
#include <unistd.h>

#include "ahp/dlq_internal.h"
#include "gateway/gateway.h"

#define GATHER_NS INT64_C(10000000)

static void warn(struct gateway *gw, enum gw_log_level level, const char *event,
		 const struct avp_reason *why)
{
	char shown[GW_SHOWN_BYTES];

	gw_log(&gw->log, level, event, "code=%s reason=%s",
	       avp_error_name(why->code),
	       gw_shown(shown, avp_str_of(why->text)));
}

static void commit_here(struct gateway *gw)
{
	struct avp_reason why;

	if (gw->dlq && ahp_dlq_commit(gw->dlq, &why))
		warn(gw, GW_LOG_ERROR, "dead_letter", &why);
}

/* In the middle of a call of the agent, of which nothing here is used. */
static void synced(struct avp_sync *sync, int error)
{
	struct gateway *gw = sync->arg;
	struct gw_letters *l = &gw->letters;
	struct avp_reason why;

	l->under_way = false;
	if (avp__dlq_commit_end(gw->dlq, sync->fd, l->upto, error, &why))
		warn(gw, GW_LOG_ERROR, "dead_letter", &why);
	if (l->more)
		gw_letters_written(gw);
}

static void begin(struct gateway *gw)
{
	struct gw_letters *l = &gw->letters;
	struct avp_reason why;
	int fd = avp__dlq_commit_begin(gw->dlq, &l->upto, &why);

	if (fd == AVP_AGAIN) /* an agent of ours has committed it */
		return;
	if (fd < 0) {
		warn(gw, GW_LOG_ERROR, "dead_letter", &why);
		return;
	}
	l->sync = (struct avp_sync){.fd = fd, .done = synced, .arg = gw};
	l->under_way = !avp_loop_sync(gw->loop, &l->sync);
	if (l->under_way)
		return;
	close(fd);
	commit_here(gw); /* epoll has nothing of that kind */
}

static void gather_fired(struct gw_timer *timer)
{
	struct gateway *gw =
		(struct gateway *)((char *)timer -
				   offsetof(struct gateway, letters.gather));

	gw->letters.more = gw->letters.under_way;
	if (!gw->letters.under_way)
		begin(gw);
}

void gw_letters_written(struct gateway *gw)
{
	struct gw_letters *l = &gw->letters;

	l->more = false;
	if (!l->gather.due_ns)
		gw_timer_set(&gw->timers, &l->gather,
			     gw_clock_ns() + GATHER_NS);
}

bool gw_letters_idle(const struct gateway *gw)
{
	return !gw->letters.under_way && !gw->letters.gather.due_ns;
}

void gw_letters_open(struct gateway *gw)
{
	struct ahp_dlq_options options = {.name_space = gw->name_space};
	struct avp_reason why;

	gw->letters.gather.fire = gather_fired;
	ahp_config_dlq(&gw->conf->ahp, &options);
	if (ahp_dlq_open(&gw->dlq, &options, &why))
		warn(gw, GW_LOG_WARNING, "no_dlq", &why);
}

void gw_letters_settle(struct gateway *gw)
{
	gw_timer_clear(&gw->timers, &gw->letters.gather);
	commit_here(gw);
}

void gw_letters_close(struct gateway *gw)
{
	if (gw->letters.under_way)
		close(gw->letters.sync.fd);
	ahp_dlq_close(gw->dlq);
}
