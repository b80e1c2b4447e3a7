/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "ahp/agent_internal.h"

#define BEAT_EVERY_NS 100000000ll
#define WRITE_IDLE_NS 1000000000ll /* when there is nothing new to tell */
#define SHOWS	      16 /* before sleeps, from beat to beat: 0.3 % at most */

int ahp__page_open(struct ahp_agent *agent, struct avp_reason *why)
{
	struct page_map *page;
	int error = avp_segment_create(&agent->page_segment, "page",
				       sizeof(*page), NULL, why);

	if (error)
		return error;
	page = agent->page_segment.base;
	page->magic = PAGE_MAGIC;
	page->major = WIRE_MAJOR;
	page->minor = WIRE_MINOR;
	memcpy(page->epoch, agent->epoch, sizeof(page->epoch));
	/* release: pairs with the acquire in check_page(); covers the page */
	atomic_store_explicit(&page->ready, PAGE_READY, memory_order_release);
	agent->page = page;
	return 0;
}

void ahp__page_close(struct ahp_agent *agent)
{
	avp_segment_close(&agent->page_segment);
	agent->page = NULL;
}

static void fill_stats(const struct ahp_agent *agent, uint64_t *out)
{
	struct ahp_stats stats;

	static_assert(sizeof(stats) == sizeof(((struct page_record *)0)->stats),
		      "observers read struct ahp_stats");
	ahp__stats_fill(agent, &stats);
	memcpy(out, &stats, sizeof(stats));
}

/* At RLIMIT_FSIZE the kernel sends SIGXFSZ, which ends most programs. */
static bool may_write(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_FSIZE, &limit) ||
	       limit.rlim_cur >= sizeof(struct page_record);
}

static void write_record(struct ahp_agent *agent, int64_t now_ns)
{
	struct page_record r = {
		.magic = RECORD_MAGIC,
		.bytes = sizeof(r),
		.pid = (uint32_t)getpid(),
		.uid = agent->own_uid,
		/* relaxed: only this process writes it */
		.heartbeat = atomic_load_explicit(&agent->page->heartbeat,
						  memory_order_relaxed),
		.beat_ns = agent->alive_ns,
	};

	fill_stats(agent, r.stats);
	memcpy(r.id, agent->id, sizeof(agent->id));
	memcpy(r.model_id, agent->identity.id, sizeof(r.model_id));
	memcpy(r.model_hash, agent->identity.hash, sizeof(r.model_hash));
	/* An observer's view may be old; there is nothing better to do. */
	if (!may_write() ||
	    pwrite(agent->page_file, &r, sizeof(r), 0) != sizeof(r))
		return;
	memcpy(agent->page_stats, r.stats, sizeof(r.stats));
	agent->page_written_ns = now_ns;
}

static bool counted(const struct ahp_agent *agent)
{
	uint64_t stats[sizeof(agent->page_stats) / 8];

	fill_stats(agent, stats);
	return memcmp(stats, agent->page_stats, sizeof(stats));
}

/* Some 20 us to write the file (2 when one does nothing else): an idle agent does
 * little else. */
static bool is_news(const struct ahp_agent *agent, int64_t now_ns)
{
	return !agent->page_written_ns ||
	       now_ns - agent->page_written_ns >= WRITE_IDLE_NS ||
	       counted(agent);
}

void ahp__page_beat(struct ahp_agent *agent, int64_t now_ns)
{
	uint64_t beat;

	if (agent->page_written_ns && now_ns - agent->beat_ns < BEAT_EVERY_NS)
		return;
	agent->beat_ns = now_ns;
	agent->page_shows = SHOWS;
	if (!agent->silent) {
		agent->alive_ns = now_ns;
		/* relaxed: a counter that observers compare with itself */
		beat = atomic_load_explicit(&agent->page->heartbeat,
					    memory_order_relaxed);
		atomic_store_explicit(&agent->page->heartbeat, beat + 1,
				      memory_order_relaxed);
	}
	if (agent->page_file >= 0 && is_news(agent, now_ns))
		write_record(agent, now_ns);
}

void ahp_agent_set_beating(struct ahp_agent *agent, bool beating)
{
	AHP_ENTER(agent);
	agent->silent = !beating;
}

void ahp__page_show(struct ahp_agent *agent)
{
	if (agent->page_file < 0 || !agent->page_shows || !counted(agent))
		return;
	agent->page_shows--;
	write_record(agent, ahp__now_ns());
}
