/* SPDX-License-Identifier: Apache-2.0 */
/* What an agent has to say: to its application, which may write it down. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ahp/agent_internal.h"

static void tell(struct ahp_agent *agent, enum ahp_log_level level, int code,
		 const char *task, const char *format, va_list args)
{
	char text[320];

	vsnprintf(text, sizeof(text), format, args);
	agent->options.log(agent->options.log_arg, level, code, agent->id, task,
			   text);
}

void ahp__logf(struct ahp_agent *agent, enum ahp_log_level level, int code,
	       const char *format, ...)
{
	va_list args;

	if (!agent->options.log)
		return;
	va_start(args, format);
	tell(agent, level, code, "", format, args);
	va_end(args);
}

void ahp__log_task(struct ahp_agent *agent, enum ahp_log_level level, int code,
		   struct avp_str task, const char *format, ...)
{
	char name[AVP_LANE_ID_BYTES + 1];
	va_list args;

	if (!agent->options.log)
		return;
	if (task.len > AVP_LANE_ID_BYTES)
		task.len = AVP_LANE_ID_BYTES;
	if (task.len)
		memcpy(name, task.data, task.len);
	name[task.len] = 0;
	va_start(args, format);
	tell(agent, level, code, name, format, args);
	va_end(args);
}
