/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How agents of one host find each other without a daemon: a directory that
 * only their users can write, in it one per namespace, in that three names for
 * each agent:
 *
 *	<id>.lock	held by flock while the agent lives
 *	<id>.sock	where it listens
 *	<id>.page	what observers read
 *
 * Names change under a short flock on <namespace>/.lock. Everything is opened
 * relative to a directory fd and without following links; a socket, which has
 * no *at() calls, is reached through /proc/self/fd.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ahp/agent_internal.h"
#include "ahp/rendezvous.h"

bool ahp__id_ok(const char *id)
{
	size_t n = id ? strlen(id) : 0;

	return n && n <= AHP_ID_BYTES && id[0] != '.' &&
	       strspn(id, "abcdefghijklmnopqrstuvwxyz"
			  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

static int system_error(struct avp_reason *why, const char *what,
			const char *name)
{
	int error = errno, code = AVP_IO;

	if (error == EACCES || error == EPERM || error == EROFS)
		code = AVP_PERMISSION;
	else if (error == ENOMEM || error == EMFILE || error == ENFILE ||
		 error == ENOSPC)
		code = AVP_NO_MEMORY;
	return avp__fail(why, code, "%s %s: %s", what, name, strerror(error));
}

/* The same for a name of ours, where something else may stand in its place. */
static int name_error(struct avp_reason *why, const char *what, int dir,
		      const char *name)
{
	char link[32], path[4096];
	int error = errno;
	struct stat st;
	ssize_t n;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) ||
	    (!S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode))) {
		errno = error;
		return system_error(why, what, name);
	}
	snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	n = readlink(link, path, sizeof(path) - 1);
	path[n < 0 ? 0 : n] = 0;
	return avp__fail(
		why, AVP_IO,
		"%s %s: it is %s, which no agent has made; remove it "
		"from %s",
		what, name,
		S_ISDIR(st.st_mode) ? "a directory" : "a symbolic link", path);
}

/* ---- directories -------------------------------------------------------- */

static int no_directory(const char *path, int at, const char *name,
			struct avp_reason *why)
{
	int error = errno;
	struct stat st;

	if (error == ENOENT)
		return avp__fail(
			why, AVP_IO,
			"cannot make directory %s: what it would be in "
			"is not there; make that first",
			path);
	if (!fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) &&
	    !S_ISDIR(st.st_mode))
		return avp__fail(
			why, AVP_IO,
			"%s is %s; a directory is needed, by its own name",
			path,
			S_ISLNK(st.st_mode) ? "a symbolic link" : "a file");
	errno = error;
	return system_error(why, "cannot make or open directory", path);
}

/*
 * Opens the directory name in at, whose whole path is told when it fails.
 * Nobody else can plant names in it. It is made if it is missing.
 */
static int open_safe(int at, const char *name, mode_t mode, const char *path,
		     struct avp_reason *why)
{
	bool made = !mkdirat(at, name, 0700);
	struct stat st;
	int fd;

	if (!made && errno != EEXIST)
		return no_directory(path, at, name, why);
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return no_directory(path, at, name, why);
	/* Not by mkdir: the umask would keep a group out that is let in. */
	if (made && mode != 0700)
		fchmod(fd, mode);
	if (!fstat(fd, &st) && (st.st_uid == geteuid() || !st.st_uid) &&
	    !(st.st_mode & S_IWOTH))
		return fd;
	close(fd);
	return avp__fail(
		why, AVP_PERMISSION,
		"%s belongs to uid %u with mode %o; it must be ours or "
		"root's (who makes it for several users) and not "
		"writable by others",
		path, (unsigned)st.st_uid, st.st_mode & 07777u);
}

/* The directory that was asked for must do; the others are tried in turn. */
static int open_runtime_dir(const char *wanted, char *path, size_t cap,
			    struct avp_reason *why)
{
	const char *named = wanted ? wanted : getenv("AVP_RUNTIME_DIR");
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	int fd = -1;

	if (named && *named) {
		if ((size_t)snprintf(path, cap, "%s", named) >= cap)
			return avp__fail(why, AVP_USAGE,
					 "the runtime directory's path has %zu "
					 "bytes; up to %zu are possible",
					 strlen(named), cap - 1);
		return open_safe(AT_FDCWD, path, 0700, path, why);
	}
	if (xdg && *xdg && (size_t)snprintf(path, cap, "%s/avp", xdg) < cap)
		fd = open_safe(AT_FDCWD, path, 0700, path, why);
	if (fd < 0) {
		snprintf(path, cap, "/run/avp");
		fd = open_safe(AT_FDCWD, path, 0700, path, why);
	}
	if (fd < 0 || faccessat(fd, ".", W_OK | X_OK, AT_EACCESS)) {
		if (fd >= 0)
			close(fd);
		snprintf(path, cap, "/tmp/avp-%u", (unsigned)geteuid());
		fd = open_safe(AT_FDCWD, path, 0700, path, why);
	}
	return fd;
}

int ahp_runtime_dir(char *path, size_t cap, struct avp_reason *why)
{
	char found[4096];
	int fd = open_runtime_dir(NULL, found, sizeof(found), why);

	if (fd < 0)
		return fd;
	close(fd);
	if (strlen(found) >= cap)
		return avp__fail(why, AVP_USAGE, "%s does not fit %zu bytes",
				 found, cap);
	memcpy(path, found, strlen(found) + 1);
	return (int)strlen(found);
}

const char *ahp__name_space(const char *given, struct avp_reason *why)
{
	const char *name = given ? given : getenv("AVP_NAMESPACE");

	if (!name || !*name)
		return "default";
	if (ahp__id_ok(name))
		return name;
	avp__fail(why, AVP_USAGE,
		  "namespace \"%.80s\": must be 1-64 of [A-Za-z0-9._-], no "
		  "leading dot",
		  name);
	return NULL;
}

int ahp__names_dir(const char *runtime_dir, const char *name_space,
		   struct avp_reason *why)
{
	const char *name = ahp__name_space(name_space, why);
	char path[4096 + AHP__NAME_BYTES];
	struct stat st;
	int top, fd;

	if (!name)
		return AVP_USAGE;
	top = open_runtime_dir(runtime_dir, path, 4096, why);
	if (top < 0)
		return top;
	/* As the directory above: for a group with setgid, which is
	 * inherited. */
	if (fstat(top, &st)) {
		fd = system_error(why, "fstat of", path);
	} else {
		snprintf(path + strlen(path), AHP__NAME_BYTES, "/%s", name);
		fd = open_safe(top, name, st.st_mode & 02770, path, why);
	}
	close(top);
	return fd;
}

/* ---- locks -------------------------------------------------------------- */

/* Does the name still lead to the file that is open? */
static bool same_file(int fd, int dir, const char *name)
{
	struct stat held, named;

	return !fstat(fd, &held) &&
	       !fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) &&
	       held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

/* Who may make names in the directory may lock it, whatever our umask. */
static void share_lock(int fd, int dir)
{
	struct stat st, lock;

	if (!fstat(dir, &st) && st.st_mode & S_IWGRP && !fstat(fd, &lock) &&
	    lock.st_uid == geteuid() && !(lock.st_mode & S_IWGRP))
		fchmod(fd, 0660);
}

int ahp__names_lock(int dir, struct avp_reason *why)
{
	for (;;) {
		int fd =
			openat(dir, ".lock",
			       O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0660);

		if (fd < 0)
			return name_error(why, "cannot open", dir, ".lock");
		while (flock(fd, LOCK_EX))
			if (errno != EINTR) {
				close(fd);
				return system_error(why, "cannot lock",
						    ".lock");
			}
		if (same_file(fd, dir, ".lock")) {
			share_lock(fd, dir);
			return fd;
		}
		close(fd); /* the last agent has removed it meanwhile */
	}
}

/* The last one out leaves nothing behind: not even the lock, which it holds. */
static void remove_lock_if_last(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	bool last = d;

	while (d && last && (entry = readdir(d)))
		last = !strcmp(entry->d_name, ".") ||
		       !strcmp(entry->d_name, "..") ||
		       !strcmp(entry->d_name, ".lock");
	if (last)
		unlinkat(dir, ".lock", 0);
	if (d)
		closedir(d);
	else if (fd >= 0)
		close(fd);
}

void ahp__names_unlock(int dir, int lock)
{
	if (lock < 0)
		return;
	remove_lock_if_last(dir);
	close(lock);
}

static void name_of(char out[AHP__NAME_BYTES], const char *id,
		    const char *suffix)
{
	snprintf(out, AHP__NAME_BYTES, "%s%s", id, suffix);
}

/* What it listens under before anybody may find it. */
static void hidden_name(char out[AHP__NAME_BYTES], const char *id)
{
	snprintf(out, AHP__NAME_BYTES, ".%s.new", id);
}

void ahp__names_remove(int dir, const char *id)
{
	static const char *const suffix[] = {".sock", ".page", ".lock"};
	char name[AHP__NAME_BYTES];

	hidden_name(name, id);
	unlinkat(dir, name, 0);
	/* The lock last: as long as it is there, observers find the others. */
	for (size_t i = 0; i < sizeof(suffix) / sizeof(*suffix); i++) {
		name_of(name, id, suffix[i]);
		unlinkat(dir, name, 0);
	}
}

/*
 * The lock of an id: fd, or AVP_NAME_TAKEN while somebody holds it. The caller
 * holds the namespace's lock, so nobody renews the file meanwhile.
 */
int ahp__names_hold(int dir, const char *id, bool create,
		    struct avp_reason *why)
{
	char name[AHP__NAME_BYTES];
	int fd;

	name_of(name, id, ".lock");
	fd = openat(dir, name,
		    O_RDWR | O_NOFOLLOW | O_CLOEXEC | (create ? O_CREAT : 0),
		    0600);
	if (fd < 0)
		return name_error(why, "cannot open", dir, name);
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return fd;
	close(fd);
	return avp__fail(
		why, AVP_NAME_TAKEN,
		"agent id %s is held by a live process; choose another "
		"id or stop it",
		id);
}

/*
 * The lock is held, but the one who listens has died: its forked child has
 * inherited both. Such a name may be taken over.
 */
bool ahp__names_holder_dead(int dir, const char *id)
{
	struct avp_peer_id who;
	int sock = ahp__names_connect(dir, id, NULL), error;
	bool dead;

	if (sock < 0)
		return false;
	error = avp_peer_open(&who, sock, NULL);
	dead = error == AVP_CLOSED || (!error && avp_pidfd_dead(who.pidfd) > 0);
	if (!error)
		avp_peer_close(&who);
	close(sock);
	return dead;
}

static int take_name(struct ahp_agent *agent, struct avp_reason *why)
{
	int fd = ahp__names_hold(agent->dir, agent->id, true, why);

	if (fd == AVP_NAME_TAKEN &&
	    ahp__names_holder_dead(agent->dir, agent->id)) {
		ahp__names_remove(agent->dir, agent->id);
		fd = ahp__names_hold(agent->dir, agent->id, true, why);
	}
	return fd;
}

/* ---- sockets ------------------------------------------------------------ */

static int make_socket(int dir, const char *name, struct sockaddr_un *address,
		       struct avp_reason *why)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
			0);

	if (fd < 0)
		return system_error(why, "cannot make a socket for", name);
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	snprintf(address->sun_path, sizeof(address->sun_path),
		 "/proc/self/fd/%d/%s", dir, name);
	return fd;
}

int ahp__names_connect(int dir, const char *id, struct avp_reason *why)
{
	struct sockaddr_un address;
	char name[AHP__NAME_BYTES];
	int fd;

	name_of(name, id, ".sock");
	fd = make_socket(dir, name, &address, why);
	if (fd < 0)
		return fd;
	if (!connect(fd, (void *)&address, sizeof(address)))
		return fd;
	int error = errno;

	close(fd);
	errno = error;
	if (error == EAGAIN)
		return avp__fail(why, AVP_AGAIN,
				 "%s is being connected by too "
				 "many at once",
				 id);
	if (error == ENOENT || error == ECONNREFUSED)
		return avp__fail(why, AVP_AGENT_NOT_FOUND,
				 "no agent %s in this namespace; avpctl ls "
				 "shows those that there are",
				 id);
	return system_error(why, "cannot connect to", id);
}

/* Listens under a name of its own first: who finds <id>.sock can connect. */
static int listen_as(struct ahp_agent *agent, struct avp_reason *why)
{
	bool shared = agent->options.allowed_uid_count > 0;
	struct sockaddr_un address;
	char name[AHP__NAME_BYTES], hidden[AHP__NAME_BYTES];
	int fd;

	hidden_name(hidden, agent->id);
	name_of(name, agent->id, ".sock");
	if (unlinkat(agent->dir, hidden, 0) && errno != ENOENT)
		return name_error(why, "cannot remove", agent->dir, hidden);
	fd = make_socket(agent->dir, hidden, &address, why);
	if (fd < 0)
		return fd;
	/* The directory keeps strangers away; uids are checked on
	 * connection. */
	if (bind(fd, (void *)&address, sizeof(address)) ||
	    fchmodat(agent->dir, hidden, shared ? 0666 : 0600, 0) ||
	    listen(fd, SOMAXCONN) ||
	    renameat(agent->dir, hidden, agent->dir, name)) {
		int error =
			name_error(why, "cannot listen as", agent->dir, name);

		unlinkat(agent->dir, hidden, 0);
		close(fd);
		return error;
	}
	return fd;
}

static int open_page_file(struct ahp_agent *agent, struct avp_reason *why)
{
	char name[AHP__NAME_BYTES];
	int fd;

	name_of(name, agent->id, ".page");
	unlinkat(agent->dir, name, 0);
	fd = openat(agent->dir, name,
		    O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	return fd < 0 ? name_error(why, "cannot make", agent->dir, name) : fd;
}

/* ---- an agent's own names ----------------------------------------------- */

static int make_names(struct ahp_agent *agent, struct avp_reason *why)
{
	agent->lock = take_name(agent, why);
	if (agent->lock < 0)
		return agent->lock;
	agent->page_file = open_page_file(agent, why);
	if (agent->page_file < 0)
		return agent->page_file;
	agent->listener = listen_as(agent, why);
	return agent->listener < 0 ? agent->listener : 0;
}

int ahp__names_open(struct ahp_agent *agent, const char *runtime_dir,
		    const char *name_space, struct avp_reason *why)
{
	int lock, error;

	agent->lock = agent->listener = agent->page_file = -1;
	agent->dir = ahp__names_dir(runtime_dir, name_space, why);
	if (agent->dir < 0)
		return agent->dir;
	lock = ahp__names_lock(agent->dir, why);
	if (lock < 0) {
		close(agent->dir);
		agent->dir = -1;
		return lock;
	}
	error = make_names(agent, why);
	if (error && agent->lock >= 0)
		ahp__names_remove(agent->dir, agent->id);
	ahp__names_unlock(agent->dir, lock);
	if (error)
		ahp__names_forget(agent);
	return error;
}

/* Closes the fds; the names stay with the process that made them. */
void ahp__names_forget(struct ahp_agent *agent)
{
	int *fd[] = {&agent->listener, &agent->page_file, &agent->lock,
		     &agent->dir};

	for (size_t i = 0; i < sizeof(fd) / sizeof(*fd); i++) {
		if (*fd[i] >= 0)
			close(*fd[i]);
		*fd[i] = -1;
	}
}

void ahp__names_close(struct ahp_agent *agent)
{
	char name[AHP__NAME_BYTES];
	int lock;

	if (agent->dir < 0)
		return;
	lock = ahp__names_lock(agent->dir, NULL);
	name_of(name, agent->id, ".lock");
	if (same_file(agent->lock, agent->dir, name))
		ahp__names_remove(agent->dir, agent->id);
	ahp__names_unlock(agent->dir, lock);
	ahp__names_forget(agent);
}
