/* Preloaded into a process, lets calls on files below a folder fail with EIO while a switch is on: a disk that is dying.
 *
 * FAULTY_BELOW is the folder; a switch is on while a file of its name is in FAULTY_SWITCHES: "read" fails pread64,
 * "write" pwrite64, "sync" fsync and fdatasync. Only what goes through libc is seen. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_on(const char *name) {
    const char *switches = getenv("FAULTY_SWITCHES");
    char path[PATH_MAX];
    if (switches == NULL || snprintf(path, sizeof path, "%s/%s", switches, name) >= (int)sizeof path) return 0;
    return access(path, F_OK) == 0;
}

static int is_below(int fd) {
    const char *below = getenv("FAULTY_BELOW");
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (below == NULL || length < 0) return 0;
    path[length] = 0;
    return strncmp(path, below, strlen(below)) == 0;
}

static int fails(const char *name, int fd) {
    int before = errno;
    int failing = is_on(name) && is_below(fd);
    errno = failing ? EIO : before;
    return failing;
}

ssize_t pread64(int fd, void *into, size_t bytes, off64_t at) {
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "pread64");
    return fails("read", fd) ? -1 : real(fd, into, bytes, at);
}

ssize_t pwrite64(int fd, const void *from, size_t bytes, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
    return fails("write", fd) ? -1 : real(fd, from, bytes, at);
}

int fsync(int fd) {
    static int (*real)(int);
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "fsync");
    return fails("sync", fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
    return fails("sync", fd) ? -1 : real(fd);
}
