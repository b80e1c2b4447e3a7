/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container whose seccomp filter forbids io_uring, wholly or only to enter a
 * ring: the loop is epoll, the same things work, and who insists is told why.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/ring.h>

#include "tests/harness.h"

static bool forbid(unsigned number, unsigned error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {sizeof(code) / sizeof(*code), code};

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

static void heard(struct avp_watch *watch, uint32_t events)
{
	char c;

	if (events == AVP_READABLE && read(watch->fd, &c, 1) == 1)
		*(int *)watch->arg += 1;
}

/* In the child: 0, or the number of the step that failed. */
static int epoll_serves(void)
{
	struct avp_loop *loop;
	struct avp_watch watch;
	struct avp_reason why = {0};
	int sock[2], calls = 0;

	setenv("AVP_LOOP", "io_uring", 1);
	if (avp_loop_open(&loop, &why) != AVP_UNSUPPORTED ||
	    !strstr(why.text, "AVP_LOOP=epoll"))
		return 1;
	unsetenv("AVP_LOOP");
	if (avp_loop_open(&loop, &why))
		return 2;
	if (strcmp(avp_loop_backend(loop), "epoll"))
		return 3;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sock))
		return 4;
	watch = (struct avp_watch){sock[0], AVP_READABLE, heard, &calls};
	if (avp_loop_add(loop, &watch, NULL) || avp_loop_run(loop, 0))
		return 5;
	if (write(sock[1], "xy", 2) != 2 || avp_loop_run(loop, -1) != 1 ||
	    avp_loop_run(loop, -1) != 1 || avp_loop_run(loop, 0) || calls != 2)
		return 6;
	avp_loop_remove(loop, &watch);
	avp_loop_close(loop);
	return 0;
}

static void under_filter(unsigned number, unsigned error)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid)
		_exit(forbid(number, error) ? epoll_serves() : 77);
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_EQUAL(WEXITSTATUS(status), 0);
	CU_ASSERT_TRUE(WIFEXITED(status));
}

static void setup_is_forbidden(void)
{
	under_filter(SYS_io_uring_setup, EPERM);
	under_filter(SYS_io_uring_setup, ENOSYS);
}

static void enter_is_forbidden(void)
{
	under_filter(SYS_io_uring_enter, EPERM);
	under_filter(SYS_io_uring_enter, ENOSYS);
}

/* An old kernel in effect: the loop must do without this one too. */
static void no_pwait2(void)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid)
		_exit(forbid(SYS_io_uring_setup, EPERM) &&
				      forbid(SYS_epoll_pwait2, ENOSYS)
			      ? epoll_serves()
			      : 77);
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_EQUAL(status, 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(setup_is_forbidden),
		TEST(enter_is_forbidden),
		TEST(no_pwait2),
		{0},
	};

	return test_main("loop_seccomp", tests);
}
