/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl: finds the subcommand that was asked for and runs it. */
#include <stdio.h>

int main(void)
{
	fputs("usage: avpctl COMMAND ...\n", stderr);
	return 2;
}
