/* Makes calls fail by which the process that it is loaded into (LD_PRELOAD) changes files below the
   directory KVS_FAULTS_DIR, as the file KVS_FAULTS_CONTROL says, which the test changes meanwhile.
   It counts those calls there. A write that fails may leave half of its bytes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* tests/support/faults.rs knows this layout. */
struct control {
    _Atomic uint64_t calls;   /* so far */
    _Atomic uint64_t first;   /* this call fails, */
    _Atomic uint64_t failing; /* and so many from there on, */
    _Atomic uint64_t again;   /* and this one, if it is not zero, */
    _Atomic uint64_t error;   /* with this errno */
    _Atomic uint64_t half;    /* writes leave half of their bytes */
    _Atomic uint64_t failed;  /* so far */
    _Atomic uint64_t last;    /* what the call that failed last was, a letter */
};

static struct control *control;
static char dir[4097];
static size_t dir_length;

__attribute__((constructor)) static void open_control(void) {
    const char *name = getenv("KVS_FAULTS_CONTROL"), *below = getenv("KVS_FAULTS_DIR");
    if (!name || !below) return;
    int file = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC);
    if (file < 0 || !realpath(below, dir)) abort();
    dir_length = strlen(dir);
    void *at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) abort();
    syscall(SYS_close, file);
    control = at;
}

/* The log for people is not data. */
static int counts(const char *path) {
    const char *name = strrchr(path, '/');
    return strncmp(path, dir, dir_length) == 0 && path[dir_length] == '/' &&
           !(name && strncmp(name, "/LOG", 4) == 0);
}

static int counts_file(int file) {
    char link[64], path[4097];
    if (!control) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return counts(path);
}

/* Counts a call; nonzero: it is to fail, and errno is set. */
static int fails(char what) {
    uint64_t number = atomic_fetch_add(&control->calls, 1) + 1;
    if (number < atomic_load(&control->first)) return 0;
    if (number != atomic_load(&control->again)) {
        uint64_t left = atomic_load(&control->failing);
        do {
            if (left == 0) return 0;
        } while (!atomic_compare_exchange_weak(&control->failing, &left, left - 1));
    }
    atomic_fetch_add(&control->failed, 1);
    atomic_store(&control->last, (uint64_t)what);
    errno = (int)atomic_load(&control->error);
    return 1;
}

static int keeps_half(size_t length) { return length > 1 && atomic_load(&control->half); }

ssize_t write(int file, const void *bytes, size_t length) {
    int kept = errno;
    if (counts_file(file) && fails('w')) {
        int error = errno;
        if (keeps_half(length)) syscall(SYS_write, file, bytes, length / 2);
        errno = error;
        return -1;
    }
    errno = kept;
    return syscall(SYS_write, file, bytes, length);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
    int kept = errno;
    if (counts_file(file) && fails('p')) {
        int error = errno;
        if (keeps_half(length)) syscall(SYS_pwrite64, file, bytes, length / 2, at);
        errno = error;
        return -1;
    }
    errno = kept;
    return syscall(SYS_pwrite64, file, bytes, length, at);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) {
    return pwrite64(file, bytes, length, at);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    int kept = errno;
    if (counts_file(file) && fails('w')) return -1;
    errno = kept;
    return syscall(SYS_writev, file, parts, count);
}

/* A call that takes a file and has no bytes. */
#define PLAIN(what, file, call) \
    int kept = errno;           \
    if (counts_file(file) && fails(what)) return -1; \
    errno = kept;               \
    return (int)(call)

int fsync(int file) { PLAIN('s', file, syscall(SYS_fsync, file)); }

int fdatasync(int file) { PLAIN('s', file, syscall(SYS_fdatasync, file)); }

int sync_file_range(int file, off64_t at, off64_t length, unsigned flags) {
    PLAIN('s', file, syscall(SYS_sync_file_range, file, at, length, flags));
}

int ftruncate64(int file, off64_t length) {
    PLAIN('t', file, syscall(SYS_ftruncate, file, length));
}

int ftruncate(int file, off_t length) { return ftruncate64(file, length); }

int fallocate64(int file, int mode, off64_t at, off64_t length) {
    PLAIN('a', file, syscall(SYS_fallocate, file, mode, at, length));
}

int fallocate(int file, int mode, off_t at, off_t length) {
    return fallocate64(file, mode, at, length);
}

int rename(const char *from, const char *to) {
    int kept = errno;
    if (control && counts(to) && fails('r')) return -1;
    errno = kept;
    return (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
}

/* Only paths that begin with the directory count, which is how the database names its files. */
static int open_at(int at, const char *path, int flags, mode_t mode) {
    int kept = errno;
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
    if (control && writes && counts(path) && fails('o')) return -1;
    errno = kept;
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

#define MODE(flags)                                        \
    mode_t mode = 0;                                       \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list arguments;                                 \
        va_start(arguments, flags);                        \
        mode = va_arg(arguments, mode_t);                  \
        va_end(arguments);                                 \
    }

int open(const char *path, int flags, ...) {
    MODE(flags);
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags);
    return open_at(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE(flags);
    return open_at(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE(flags);
    return open_at(at, path, flags | O_LARGEFILE, mode);
}
