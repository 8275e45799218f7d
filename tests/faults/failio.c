/* Makes the n-th write, fsync or rename under a folder fail, as a full disk would.
 *
 * Loaded with LD_PRELOAD. The process arms it with failio_arm(n, errno, folder) and asks failio_count() how many such
 * calls it has seen; n = 0 only counts. Calls on files outside the folder are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int armed, seen, cause;
static char folder[PATH_MAX];
static char last[PATH_MAX + 32];

void failio_arm(int n, int error, const char *under) {
    armed = n, seen = 0, cause = error;
    snprintf(folder, sizeof folder, "%s", under);
}
int failio_count(void) { return seen; }
const char *failio_last(void) { return last; }

static int hit(const char *call, const char *path) {
    if (!folder[0] || strncmp(path, folder, strlen(folder))) return 0;
    if (++seen != armed) return 0;
    snprintf(last, sizeof last, "%s %s", call, path);
    errno = cause;
    return 1;
}

static int hit_fd(const char *call, int fd) {
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(name, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return hit(call, path);
}

#define NEXT(name) static __typeof__(&name) next; if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
    NEXT(write);
    return hit_fd("write", fd) ? -1 : next(fd, data, size);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    NEXT(pwrite64);
    return hit_fd("pwrite", fd) ? -1 : next(fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
int fsync(int fd) {
    NEXT(fsync);
    return hit_fd("fsync", fd) ? -1 : next(fd);
}
int rename(const char *from, const char *to) {
    NEXT(rename);
    return hit("rename", to) ? -1 : next(from, to);
}
