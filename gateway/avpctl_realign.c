/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl-realign, which avpctl starts for `avpctl realign`: it needs BLAS. */
#include "gateway/cmd.h"

int main(int argc, char **argv)
{
	return cmd_main(cmd_realign, argc, argv);
}
