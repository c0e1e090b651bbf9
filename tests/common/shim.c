/*
 * Preloaded into the server: notes what a power cut could undo.
 *
 * Writes go to the files as usual. Before each one, the bytes that it replaces are appended to a
 * journal outside of the data directory, and each sync is noted there too. When the server has been
 * killed, the test reads the journal and takes back what was never synced, whole or in sectors.
 *
 * Environment:
 *   SHIM_DIR      the data directory
 *   SHIM_JOURNAL  the journal, which is appended to; without it nothing is noted
 *   SHIM_KILL_AT  the process kills itself before this write, sync or rename, counted from 1
 *   SHIM_MARKS    how the names of some files begin, and while they exist:
 *     .full         the disk is full, no file can grow
 *     .badwrite     writes to the log fail
 *     .badsync      syncs of the log fail
 *     .stall        syncs of the log wait
 *
 * A journal entry: kind (1 byte), seven zeroes, then inode, number, offset, length and old file size
 * (u64 each, native), then length bytes. A write's bytes are the old contents, cut at the old file
 * size. For kinds that name files, the bytes are their paths, each ended by a zero.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    WRITE = 'w',   /* old bytes at offset; length 0 if the file only grew */
    SYNC = 's',    /* all writes to the inode with a smaller number are durable */
    DURABLE = 'd', /* the one write with this number is durable */
    CREATE = 'c',  /* path */
    RENAME = 'r',  /* from, to, backup of what stood at to or nothing */
    UNLINK = 'u',  /* path, backup */
    SYNC_DIR = 'D' /* path */
};

struct entry {
    char kind;
    char pad[7];
    uint64_t inode, number, offset, length, old_size;
};

#define BACKUP_TEMPLATE "%s.%llu"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char dir[PATH_MAX];
static size_t dir_length;
static const char *journal_path, *marks;
static int journal = -1;
static uint64_t number, operations, kill_at;

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static void start(void)
{
    const char *root = getenv("SHIM_DIR"), *kill = getenv("SHIM_KILL_AT");
    journal_path = getenv("SHIM_JOURNAL");
    marks = getenv("SHIM_MARKS");
    if (!root || !realpath(root, dir)) return;
    dir_length = strlen(dir);
    if (!journal_path) return;
    journal = syscall(SYS_openat, AT_FDCWD, journal_path,
                      O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    if (kill) kill_at = strtoull(kill, NULL, 10);
}

static int active(void)
{
    pthread_once(&once, start);
    return dir_length > 0;
}

static int in_dir(const char *path)
{
    return strncmp(path, dir, dir_length) == 0 && path[dir_length] == '/';
}

/* LMDB's lock file and ours are no data: a power cut ends all locks. */
static int is_lock(const char *path)
{
    const char *name = strrchr(path, '/');
    return name && (strcmp(name, "/lock.mdb") == 0 || strcmp(name, "/rusd.lock") == 0);
}

/* Whether the descriptor is a file (or, if directory is set, a directory) of the data directory. */
static int tracked(int fd, struct stat *stat, char *path, int directory)
{
    char link[64];
    ssize_t length;
    if (!active() || fstat(fd, stat) != 0) return 0;
    if (directory ? !S_ISDIR(stat->st_mode) : !S_ISREG(stat->st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    if (directory && strcmp(path, dir) == 0) return 1;
    return in_dir(path) && !is_lock(path);
}

static int absolute(int at, const char *path, char *full)
{
    char parent[PATH_MAX], resolved[PATH_MAX], link[64];
    const char *name;
    if (path[0] == '/' || at == AT_FDCWD) {
        snprintf(parent, sizeof parent, "%s", path);
    } else {
        ssize_t length;
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        length = readlink(link, resolved, sizeof resolved - 1);
        if (length <= 0) return 0;
        resolved[length] = 0;
        if (snprintf(parent, sizeof parent, "%s/%s", resolved, path) >= (int)sizeof parent) return 0;
    }
    name = strrchr(parent, '/');
    if (name) {
        parent[name - parent] = 0;
        name++;
        if (!realpath(parent[0] ? parent : "/", resolved)) return 0;
    } else {
        name = path;
        if (!realpath(".", resolved)) return 0;
    }
    if (snprintf(full, PATH_MAX, "%s/%s", resolved, name) >= PATH_MAX) return 0;
    return active() && in_dir(full) && !is_lock(full);
}

/* One write call, so that a killed process leaves at most the last entry incomplete. */
static void note(char kind, uint64_t inode, uint64_t id, uint64_t offset, uint64_t old_size,
                 const void *bytes, uint64_t length)
{
    if (journal < 0) return;
    struct entry entry = { .kind = kind, .inode = inode, .number = id, .offset = offset,
                           .length = length, .old_size = old_size };
    struct iovec parts[2] = { { &entry, sizeof entry }, { (void *)bytes, length } };
    if (syscall(SYS_writev, journal, parts, 2) != (ssize_t)(sizeof entry + length)) {
        fprintf(stderr, "shim: the journal cannot be written\n");
        abort();
    }
}

static void count(void)
{
    if (++operations == kill_at) kill(getpid(), SIGKILL);
}

/* Under the lock, before a write. */
static void before_write(const struct stat *stat, int fd, const char *path, uint64_t offset,
                         uint64_t length)
{
    uint64_t size = stat->st_size, old = 0;
    char *bytes = NULL;
    count();
    number++;
    if (journal >= 0 && offset < size && length > 0) {
        int reader = fd;
        old = offset + length > size ? size - offset : length;
        bytes = malloc(old);
        if (!bytes) abort();
        /* The descriptor may be open for writing only. */
        if (syscall(SYS_pread64, reader, bytes, old, offset) != (ssize_t)old) {
            reader = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
            if (reader < 0 || syscall(SYS_pread64, reader, bytes, old, offset) != (ssize_t)old) abort();
            close(reader);
        }
    }
    note(WRITE, stat->st_ino, number, offset, size, bytes, old);
    free(bytes);
}

static int marked(const char *what)
{
    char mark[PATH_MAX];
    if (!marks) return 0;
    snprintf(mark, sizeof mark, "%s.%s", marks, what);
    return access(mark, F_OK) == 0;
}

static int disk_full(const struct stat *stat, uint64_t end)
{
    return end > (uint64_t)stat->st_size && marked("full");
}

static int is_log(const char *path)
{
    return strstr(path, "/wal/") != NULL;
}

static uint64_t total(const struct iovec *parts, int count)
{
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) sum += parts[i].iov_len;
    return sum;
}

/* The common way of all writes. offset < 0: at the descriptor's position. */
#define WRITE_THROUGH(fd, length, at, call) \
    struct stat stat; \
    char path[PATH_MAX]; \
    ssize_t done; \
    int flags; \
    if (!tracked(fd, &stat, path, 0)) return call; \
    pthread_mutex_lock(&lock); \
    flags = fcntl(fd, F_GETFL); \
    fstat(fd, &stat); \
    off_t offset = (at); \
    if (offset < 0) offset = flags & O_APPEND ? stat.st_size : lseek(fd, 0, SEEK_CUR); \
    if (disk_full(&stat, offset + (length))) { \
        pthread_mutex_unlock(&lock); \
        errno = ENOSPC; \
        return -1; \
    } \
    if (is_log(path) && marked("badwrite")) { \
        pthread_mutex_unlock(&lock); \
        errno = EIO; \
        return -1; \
    } \
    before_write(&stat, fd, path, offset, length); \
    uint64_t mine = number; \
    done = call; \
    if (done >= 0 && (flags & (O_DSYNC | O_SYNC))) note(DURABLE, stat.st_ino, mine, 0, 0, NULL, 0); \
    pthread_mutex_unlock(&lock); \
    return done

ssize_t write(int fd, const void *bytes, size_t length)
{
    REAL(write);
    WRITE_THROUGH(fd, length, -1, real(fd, bytes, length));
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
    REAL(pwrite);
    WRITE_THROUGH(fd, length, at, real(fd, bytes, length, at));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at)
{
    REAL(pwrite64);
    WRITE_THROUGH(fd, length, at, real(fd, bytes, length, at));
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    WRITE_THROUGH(fd, total(parts, count), -1, real(fd, parts, count));
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    REAL(pwritev);
    WRITE_THROUGH(fd, total(parts, count), at, real(fd, parts, count, at));
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at)
{
    REAL(pwritev64);
    WRITE_THROUGH(fd, total(parts, count), at, real(fd, parts, count, at));
}

#define SYNC_THROUGH(fd, call) \
    struct stat stat; \
    char path[PATH_MAX]; \
    int done, file = tracked(fd, &stat, path, 0), directory = !file && tracked(fd, &stat, path, 1); \
    uint64_t reached; \
    if (!file && !directory) return call; \
    pthread_mutex_lock(&lock); \
    count(); \
    reached = ++number; \
    pthread_mutex_unlock(&lock); \
    if (file && is_log(path)) { \
        while (marked("stall")) usleep(10000); \
        if (marked("badsync")) { \
            errno = EIO; \
            return -1; \
        } \
    } \
    done = call; \
    if (done == 0) { \
        pthread_mutex_lock(&lock); \
        if (file) note(SYNC, stat.st_ino, reached, 0, 0, NULL, 0); \
        else note(SYNC_DIR, stat.st_ino, reached, 0, 0, path, strlen(path) + 1); \
        pthread_mutex_unlock(&lock); \
    } \
    return done

int fsync(int fd)
{
    REAL(fsync);
    SYNC_THROUGH(fd, real(fd));
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    SYNC_THROUGH(fd, real(fd));
}

/* Under the lock, before a file is cut or grown. */
static void before_truncate(int fd, const char *path, uint64_t to)
{
    struct stat stat;
    fstat(fd, &stat);
    if (to < (uint64_t)stat.st_size) before_write(&stat, fd, path, to, stat.st_size - to);
    else before_write(&stat, fd, path, stat.st_size, 0);
}

#define TRUNCATE_THROUGH(fd, to, call) \
    struct stat stat; \
    char path[PATH_MAX]; \
    int done; \
    if (!tracked(fd, &stat, path, 0)) return call; \
    pthread_mutex_lock(&lock); \
    before_truncate(fd, path, to); \
    done = call; \
    pthread_mutex_unlock(&lock); \
    return done

int ftruncate(int fd, off_t to)
{
    REAL(ftruncate);
    TRUNCATE_THROUGH(fd, to, real(fd, to));
}

int ftruncate64(int fd, off64_t to)
{
    REAL(ftruncate64);
    TRUNCATE_THROUGH(fd, to, real(fd, to));
}

static int opened(int at, const char *path, int flags, mode_t mode)
{
    char full[PATH_MAX];
    struct stat stat;
    int fd, existed;
    if (!(flags & (O_CREAT | O_TRUNC)) || !absolute(at, path, full))
        return syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    existed = lstat(full, &stat) == 0;
    if (existed && (flags & O_TRUNC)) {
        int old = syscall(SYS_openat, AT_FDCWD, full, O_RDWR | O_CLOEXEC, 0);
        if (old >= 0) {
            before_truncate(old, full, 0);
            syscall(SYS_close, old);
        }
    }
    if (!existed) count();
    fd = syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && !existed && fstat(fd, &stat) == 0)
        note(CREATE, stat.st_ino, ++number, 0, 0, full, strlen(full) + 1);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list list; \
        va_start(list, flags); \
        mode = va_arg(list, mode_t); \
        va_end(list); \
    }

int open(const char *path, int flags, ...) { MODE(flags); return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags); return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags); return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags); return opened(at, path, flags | O_LARGEFILE, mode); }

/* Keeps a file that is about to lose its name, under a name beside the journal. */
static void keep(const char *path, char *backup)
{
    backup[0] = 0;
    if (journal < 0 || access(path, F_OK) != 0) return;
    snprintf(backup, PATH_MAX, BACKUP_TEMPLATE, journal_path, (unsigned long long)number);
    if (link(path, backup) != 0) backup[0] = 0;
}

static int renamed(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    char old[PATH_MAX], new[PATH_MAX], backup[PATH_MAX], names[3 * PATH_MAX + 3];
    size_t length = 0;
    int done;
    if (!absolute(from_at, from, old) || !absolute(to_at, to, new))
        return syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&lock);
    count();
    number++;
    keep(new, backup);
    for (int i = 0; i < 3; i++) {
        const char *name = i == 0 ? old : i == 1 ? new : backup;
        memcpy(names + length, name, strlen(name) + 1);
        length += strlen(name) + 1;
    }
    done = syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (done == 0) note(RENAME, 0, number, 0, 0, names, length);
    pthread_mutex_unlock(&lock);
    return done;
}

int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return renamed(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return renamed(a, from, b, to, flags); }

static int unlinked(int at, const char *path, int flags)
{
    char full[PATH_MAX], backup[PATH_MAX], names[2 * PATH_MAX + 2];
    size_t length;
    int done;
    if ((flags & AT_REMOVEDIR) || !absolute(at, path, full)) return syscall(SYS_unlinkat, at, path, flags);
    pthread_mutex_lock(&lock);
    count();
    number++;
    keep(full, backup);
    length = strlen(full) + 1;
    memcpy(names, full, length);
    memcpy(names + length, backup, strlen(backup) + 1);
    done = syscall(SYS_unlinkat, at, path, flags);
    if (done == 0) note(UNLINK, 0, number, 0, 0, names, length + strlen(backup) + 1);
    pthread_mutex_unlock(&lock);
    return done;
}

int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return unlinked(at, path, flags); }
