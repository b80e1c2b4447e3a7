/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks of a leader. Each task of each agent is a job, found by (task id,
 * agent) when something comes of it, and by its receipt when its delivery
 * ends. The body is held, not copied, as long as one of its jobs is open, so
 * that a dead letter has it.
 */
#include <stdlib.h>
#include <string.h>

#include "ahp/agent_internal.h"
#include "ahp/leader_internal.h"
#include "shm/options.h"

#define BUCKETS	    4096
#define SLICE_NS    20000000ll	 /* between two looks at events and deadlines */
#define GRACE_NS    1000000000ll /* for the RESULT of what was accepted late */
#define SHORT_BYTES 64 /* ahp__share_open() makes loans of longer ones */

/* What the jobs of one dispatch have in common. */
struct cargo {
	uint32_t jobs;
	uint32_t body; /* held; 0: short */
	uint32_t token_limit;
	uint8_t kind, session_bytes;
	uint64_t bytes;
	const void *data;
	char session[AVP_LANE_ID_BYTES];
	uint8_t copy[SHORT_BYTES];
};

struct job {
	struct cargo *cargo;
	struct ahp_receipt receipt;
	int64_t deadline_ns;
	uint32_t next_task, next_receipt; /* in the buckets; next_task: free */
	bool open, accepted, late, buried;
	uint8_t task_bytes, id[16];
	char task[AVP_LANE_ID_BYTES];
};

struct ahp_leader {
	struct ahp_agent *agent;
	struct ahp_inbox *inbox;
	struct ahp_tokens *tokens;
	struct job *job; /* [room]; 0 is not used */
	uint32_t room, free, open;
	int64_t look_ns; /* no deadline is earlier */
	uint32_t by_task[BUCKETS], by_receipt[BUCKETS];
	char task[AVP_LANE_ID_BYTES]; /* of the last news */
};

/* ---- jobs --------------------------------------------------------------- */

static uint32_t *task_bucket(struct ahp_leader *l, struct avp_str task,
			     uint32_t peer)
{
	uint32_t hash = peer * 2654435761u;

	for (size_t i = 0; i < task.len; i++)
		hash = (hash ^ (uint8_t)task.data[i]) * 16777619u;
	return &l->by_task[(hash ^ hash >> 15) % BUCKETS];
}

static uint32_t *receipt_bucket(struct ahp_leader *l,
				const struct ahp_receipt *r)
{
	uint64_t key = r->sequence + r->peer * UINT64_C(40503) +
		       r->generation * UINT64_C(2654435761);

	return &l->by_receipt[key % BUCKETS];
}

static struct avp_str task_of(const struct job *job)
{
	return (struct avp_str){job->task, job->task_bytes};
}

static uint32_t find_task(struct ahp_leader *l, struct avp_str task,
			  uint32_t peer)
{
	uint32_t i = *task_bucket(l, task, peer);

	while (i && (l->job[i].receipt.peer != peer ||
		     !avp_str_equal(task_of(&l->job[i]), task)))
		i = l->job[i].next_task;
	return i;
}

static uint32_t find_receipt(struct ahp_leader *l, const struct ahp_receipt *r)
{
	uint32_t i = *receipt_bucket(l, r);

	while (i && (l->job[i].receipt.sequence != r->sequence ||
		     l->job[i].receipt.peer != r->peer ||
		     l->job[i].receipt.generation != r->generation))
		i = l->job[i].next_receipt;
	return i;
}

static int reserve_job(struct ahp_leader *l, struct avp_reason *why)
{
	uint32_t room = l->room ? 2 * l->room : 64;
	struct job *job;

	if (l->open == AHP_LEADER_TASKS)
		return avp__fail(why, AVP_QUEUE_FULL,
				 "%d tasks are open, the limit",
				 AHP_LEADER_TASKS);
	if (l->free)
		return 0;
	job = realloc(l->job, room * sizeof(*job));
	if (!job)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a task");
	l->job = job;
	for (uint32_t i = l->room ? l->room : 1; i < room; i++)
		job[i] = (struct job){.next_task = i + 1 < room ? i + 1 : 0};
	l->free = l->room ? l->room : 1;
	l->room = room;
	return 0;
}

static void open_job(struct ahp_leader *l, const struct ahp_outgoing *task,
		     struct cargo *cargo, const struct ahp_receipt *receipt,
		     int64_t deadline_ns)
{
	uint32_t i = l->free, *by_task, *by_receipt;
	struct job *job = &l->job[i];

	l->free = job->next_task;
	l->open++;
	by_task = task_bucket(l, task->task_id, receipt->peer);
	by_receipt = receipt_bucket(l, receipt);
	*job = (struct job){.cargo = cargo,
			    .receipt = *receipt,
			    .deadline_ns = deadline_ns,
			    .next_task = *by_task,
			    .next_receipt = *by_receipt,
			    .open = true,
			    .task_bytes = (uint8_t)task->task_id.len};
	if (task->message_id)
		memcpy(job->id, task->message_id, sizeof(job->id));
	else
		ahp__receipt_id(l->agent, receipt, job->id);
	memcpy(job->task, task->task_id.data, task->task_id.len);
	*by_task = *by_receipt = i;
	cargo->jobs++;
	if (deadline_ns < l->look_ns)
		l->look_ns = deadline_ns;
}

static void unref_cargo(struct ahp_leader *l, struct cargo *cargo)
{
	if (--cargo->jobs)
		return;
	if (cargo->body)
		ahp__body_unref(l->agent, cargo->body);
	free(cargo);
}

static void close_job(struct ahp_leader *l, uint32_t i)
{
	struct job *job = &l->job[i];
	uint32_t *at = task_bucket(l, task_of(job), job->receipt.peer);

	while (*at != i)
		at = &l->job[*at].next_task;
	*at = job->next_task;
	at = receipt_bucket(l, &job->receipt);
	while (*at != i)
		at = &l->job[*at].next_receipt;
	*at = job->next_receipt;
	unref_cargo(l, job->cargo);
	job->open = false;
	job->next_task = l->free;
	l->free = i;
	l->open--;
}

/* ---- opening and closing ------------------------------------------------ */

int ahp_leader_open(struct ahp_leader **out, struct ahp_agent *agent,
		    const struct ahp_leader_options *options,
		    struct avp_reason *why)
{
	struct ahp_leader_options o;
	struct ahp_leader *l;
	int error;

	AHP_GUARD(agent);
	error = avp__options_copy(&o, sizeof(o), sizeof(o), options, 0, why);
	if (!error)
		error = avp__options_reserved(o.reserved, 4, why);
	if (error)
		return error;
	l = calloc(1, sizeof(*l));
	if (!l)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a leader");
	error = ahp_inbox_open(&l->inbox, agent, why);
	if (error) {
		free(l);
		return error;
	}
	l->agent = agent;
	l->tokens = o.tokens;
	l->look_ns = AHP_FOREVER;
	*out = l;
	return 0;
}

void ahp_leader_close(struct ahp_leader *l)
{
	if (!l)
		return;
	AHP_ENTER(l->agent);
	for (uint32_t i = 1; i < l->room; i++)
		if (l->job[i].open)
			close_job(l, i);
	ahp_inbox_close(l->inbox);
	free(l->job);
	free(l);
}

uint32_t ahp_leader_open_tasks(const struct ahp_leader *l)
{
	return l->open;
}

/* ---- dispatching -------------------------------------------------------- */

static struct cargo *new_cargo(struct ahp_leader *l,
			       const struct ahp_outgoing *m)
{
	uint32_t head = m->frame ? m->frame->len : 0;
	struct cargo *cargo = calloc(1, sizeof(*cargo));

	if (!cargo)
		return NULL;
	cargo->jobs = 1; /* the dispatch's own hold */
	cargo->kind = m->kind;
	cargo->token_limit =
		m->token_limit ? m->token_limit : l->agent->options.token_limit;
	cargo->session_bytes = (uint8_t)m->session_id.len;
	if (m->session_id.len)
		memcpy(cargo->session, m->session_id.data, m->session_id.len);
	cargo->bytes = head + m->body_bytes;
	cargo->data = cargo->copy;
	if (m->loan) {
		cargo->body = m->loan->handle;
		ahp__body_ref(l->agent, cargo->body);
		cargo->data = (const uint8_t *)m->body - head;
	} else if (m->body_bytes) {
		memcpy(cargo->copy, m->body, m->body_bytes);
	}
	return cargo;
}

static int dispatch_one(struct ahp_leader *l, const struct ahp_outgoing *m,
			struct cargo *cargo, int64_t deadline_ns,
			int64_t timeout_ns, struct avp_reason *why)
{
	struct ahp_receipt receipt;
	int error = reserve_job(l, why);

	if (error)
		return error;
	if (find_task(l, m->task_id, ahp__peer_find(l->agent, m->target)))
		return avp__fail(why, AVP_USAGE, "%s has task \"%.*s\" already",
				 m->target, (int)m->task_id.len,
				 m->task_id.data);
	error = ahp_send(l->agent, m, timeout_ns, &receipt, why);
	if (!error)
		open_job(l, m, cargo, &receipt, deadline_ns);
	return error;
}

static int64_t deadline_of(const struct ahp_agent *agent,
			   const struct ahp_outgoing *task)
{
	int64_t ns = task->deadline_ns ? task->deadline_ns
				       : agent->options.task_timeout_ns;
	int64_t now_ns = ahp__now_ns();

	return ns < AHP_FOREVER - now_ns ? now_ns + ns : AHP_FOREVER;
}

int ahp_leader_dispatch(struct ahp_leader *l, const struct ahp_outgoing *task,
			const char *const *target, uint32_t targets,
			int64_t timeout_ns, int *code, struct avp_reason *why)
{
	struct ahp__shared shared;
	struct cargo *cargo;
	int error, sent = 0;

	AHP_GUARD(l->agent);
	if (!task->task_id.len || task->task_id.len > AVP_LANE_ID_BYTES ||
	    task->session_id.len > AVP_LANE_ID_BYTES)
		return avp__fail(
			why, AVP_USAGE,
			"task id of %zu bytes, session id of %zu: a "
			"task id is needed, and %d bytes are the limit",
			task->task_id.len, task->session_id.len,
			AVP_LANE_ID_BYTES);
	error = ahp__share_open(l->agent, task, &shared, why);
	if (error)
		return error;
	shared.message.method = AHP_TASK;
	shared.message.flags |= AHP_RELIABLE | AHP_NOTIFY;
	shared.message.peer = 0;
	cargo = new_cargo(l, &shared.message);
	if (!cargo) {
		ahp__share_close(l->agent, task, &shared, false);
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a task");
	}
	for (uint32_t i = 0; i < targets; i++) {
		shared.message.target = target[i];
		error = dispatch_one(l, &shared.message, cargo,
				     deadline_of(l->agent, task), timeout_ns,
				     why);
		if (code)
			code[i] = error;
		sent += !error;
	}
	unref_cargo(l, cargo);
	ahp__share_close(l->agent, task, &shared, sent > 0);
	return sent;
}

/* ---- tokens ------------------------------------------------------------- */

static int read_request(const struct ahp_message *m, uint64_t *tokens)
{
	struct ahp_token_request_payload request;
	struct avp_json_doc *doc;
	struct avp_reason why;
	int error = ahp__payload_parse(m, &doc, &why);

	if (error)
		return error;
	error = ahp_token_request_read(&request, avp_json_root(doc), &why);
	avp_json_free(doc);
	if (!error)
		*tokens = request.tokens;
	return error;
}

static int send_grant(struct ahp_leader *l, const struct ahp_message *m,
		      uint64_t granted, uint64_t left)
{
	struct ahp_token_response_payload payload = {granted, left};
	struct ahp_outgoing answer = {.peer = m->peer,
				      .method = AHP_TOKEN_RESPONSE,
				      .task_id = m->task_id,
				      .session_id = m->session_id};
	struct avp_buf buf = {0};
	struct avp_json_writer w;
	int error;

	avp_json_begin(&w, &buf, AVP_JSON_COMPACT);
	ahp_token_response_put(&w, &payload);
	error = avp_json_finish(&w);
	answer.body = buf.data;
	answer.body_bytes = buf.len;
	if (!error)
		error = ahp_send(l->agent, &answer, 0, NULL, NULL);
	avp_buf_fini(&buf);
	return error;
}

/*
 * What cannot be read asks for nothing, and is told so. A grant that cannot be
 * sent is not one: nobody can use it.
 */
static void answer_tokens(struct ahp_leader *l, const struct ahp_message *m)
{
	struct avp_str name = avp_str_of(m->source);
	uint64_t wanted = 0, granted = 0;
	int error = read_request(m, &wanted);

	if (!error)
		error = ahp_tokens_grant(l->tokens, name, wanted, &granted,
					 NULL);
	if (error)
		ahp__log_task(l->agent, AHP_LOG_WARNING, error, m->task_id,
			      "%s asks for tokens, and gets none: %s",
			      m->source, avp_error_name(error));
	error = send_grant(l, m, granted,
			   (uint64_t)ahp_tokens_remaining(l->tokens, name));
	if (!error)
		return;
	ahp_tokens_return(l->tokens, name, granted);
	ahp__log_task(l->agent, AHP_LOG_WARNING, error, m->task_id,
		      "%s cannot be told of %llu tokens", m->source,
		      (unsigned long long)granted);
}

/* ---- news --------------------------------------------------------------- */

/* Tells of a job, and closes it unless it is only late. */
static int tell(struct ahp_leader *l, uint32_t i, enum ahp_news_kind kind,
		int code, struct ahp_message *message, struct ahp_news *news)
{
	const struct job *job = &l->job[i];
	const char *source = ahp_peer_id(l->agent, job->receipt.peer);

	memcpy(l->task, job->task, job->task_bytes);
	*news = (struct ahp_news){
		.kind = (uint8_t)kind,
		.code = code,
		.peer = job->receipt.peer,
		.source = source ? source : "",
		.task_id = {l->task, job->task_bytes},
		.message = message,
	};
	if (kind == AHP_NEWS_RESULT || kind == AHP_NEWS_DEAD)
		close_job(l, i);
	return 1;
}

/*
 * Accepted, and no RESULT in time: the collector makes it a dead letter. Its
 * news is an event again, which comes when the letter is kept; false without
 * memory for that one.
 */
static bool bury(struct ahp_leader *l, struct job *job)
{
	bool told = !ahp__events_reserve(l->agent, NULL);
	struct ahp_event event = {
		.receipt = job->receipt, .code = AVP_TIMEOUT, .deliveries = 1};
	const struct cargo *cargo = job->cargo;
	struct ahp_dead_letter letter = {
		.target = ahp_peer_id(l->agent, job->receipt.peer),
		.code = AVP_TIMEOUT,
		.error = "accepted, and no result at its deadline",
		.deliveries = 1,
		.token_limit = cargo->token_limit,
		.method = AHP_TASK,
		.kind = cargo->kind,
		.task_id = task_of(job),
		.session_id = {cargo->session, cargo->session_bytes},
		.body = cargo->data,
		.body_bytes = cargo->bytes,
		.receipt = job->receipt,
	};

	memcpy(letter.message_id, job->id, sizeof(letter.message_id));
	job->buried = true;
	job->deadline_ns = AHP_FOREVER;
	ahp__bury(l->agent, &letter, told ? &event : NULL);
	return told;
}

/* Ends of deliveries. 1 when one of them is news. */
static int take_events(struct ahp_leader *l, struct ahp_news *news)
{
	struct ahp_event event;

	while (ahp__events_pop(l->agent, &event)) {
		uint32_t i = find_receipt(l, &event.receipt);
		struct job *job = &l->job[i];

		if (!i)
			continue; /* its RESULT was faster */
		if (event.code)
			return tell(l, i, AHP_NEWS_DEAD, event.code, NULL,
				    news);
		job->accepted = true;
		if (!job->late)
			continue;
		job->deadline_ns = ahp__now_ns() + GRACE_NS;
		if (job->deadline_ns < l->look_ns)
			l->look_ns = job->deadline_ns;
	}
	return 0;
}

/* Deadlines that have passed. 1 when one of them is news; the others' is to
 * come. */
static int take_late(struct ahp_leader *l, int64_t now_ns,
		     struct ahp_news *news)
{
	int64_t earliest_ns = AHP_FOREVER;

	if (now_ns < l->look_ns)
		return 0;
	for (uint32_t i = 1; i < l->room; i++) {
		struct job *job = &l->job[i];

		if (!job->open)
			continue;
		if (job->deadline_ns <= now_ns && job->accepted) {
			if (!bury(l, job))
				return tell(l, i, AHP_NEWS_DEAD, AVP_TIMEOUT,
					    NULL, news);
		} else if (job->deadline_ns <= now_ns) {
			job->late = true;
			job->deadline_ns = AHP_FOREVER;
			return tell(l, i, AHP_NEWS_LATE, AVP_TIMEOUT, NULL,
				    news);
		}
		if (job->deadline_ns < earliest_ns)
			earliest_ns = job->deadline_ns;
	}
	l->look_ns = earliest_ns;
	return 0;
}

/* 1 when it is news, 0 when it was dealt with here. */
static int sort(struct ahp_leader *l, struct ahp_message *m,
		struct ahp_news *news)
{
	uint32_t i = 0;

	if (m->method == AHP_TOKEN_REQUEST && l->tokens) {
		answer_tokens(l, m);
		ahp_inbox_done(l->inbox, m);
		return 0;
	}
	if (m->method == AHP_RESULT || m->method == AHP_PROGRESS)
		i = find_task(l, m->task_id, m->peer);
	if (i && !l->job[i].buried)
		return tell(l, i,
			    m->method == AHP_RESULT ? AHP_NEWS_RESULT
						    : AHP_NEWS_PROGRESS,
			    0, m, news);
	*news = (struct ahp_news){.kind = AHP_NEWS_MESSAGE,
				  .peer = m->peer,
				  .source = m->source,
				  .task_id = m->task_id,
				  .message = m};
	return 1;
}

int ahp_leader_next(struct ahp_leader *l, struct ahp_news *news,
		    int64_t timeout_ns)
{
	int64_t now_ns = ahp__now_ns(), end_ns = AHP_FOREVER, wait_ns;
	struct ahp_message *m;
	int error;

	AHP_GUARD(l->agent);
	if (timeout_ns == AHP_USUAL)
		timeout_ns = l->agent->options.receive_timeout_ns;
	if (timeout_ns < AHP_FOREVER - now_ns)
		end_ns = now_ns + timeout_ns;
	for (;;) {
		/* Messages first: a RESULT ends a task before its deadline. */
		error = ahp_inbox_receive(l->inbox, &m, 0);
		if (!error && sort(l, m, news))
			return 0;
		if (!error)
			continue;
		if (error != AVP_TIMEOUT)
			return error;
		if (take_events(l, news) || take_late(l, now_ns, news) ||
		    take_events(l, news))
			return 0;
		now_ns = ahp__now_ns();
		if (now_ns >= end_ns)
			return AVP_TIMEOUT;
		wait_ns = end_ns - now_ns;
		ahp_agent_run(l->agent, l->open && wait_ns > SLICE_NS
						? SLICE_NS
						: wait_ns);
		now_ns = ahp__now_ns();
	}
}

void ahp_leader_done(struct ahp_leader *l, struct ahp_news *news)
{
	struct ahp_message *m = news->message;

	if (!m)
		return;
	news->message = NULL;
	if (l->agent->explicit_ack)
		ahp_accept(l->agent, m); /* or it was answered already */
	ahp_inbox_done(l->inbox, m);
}
