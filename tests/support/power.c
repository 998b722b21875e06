/* Notes which bytes of its files the process that it is loaded into (LD_PRELOAD) has made safe from
   a loss of power, in the file that KVS_POWER_LOG names: a line "S size path" after each sync that
   went well, with the size from before it, and a line "R from, tab, to" after each rename. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int log_file = -1;

__attribute__((constructor)) static void open_log(void) {
    const char *name = getenv("KVS_POWER_LOG");
    if (name) log_file = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* One write, so that lines of threads do not mix. */
static void note(const char *format, ...) {
    char line[8300];
    int kept = errno;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (log_file >= 0 && (length >= (int)sizeof line || write(log_file, line, length) != length))
        abort(); /* a sync that is not noted would pass for data that is not safe */
    errno = kept;
}

static int sync_and_note(long call, int file) {
    char link[64], path[4097];
    struct stat before;
    int known = fstat(file, &before);
    int status = (int)syscall(call, file);
    if (status != 0 || known != 0 || !S_ISREG(before.st_mode)) return status;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        note("S %lld %s\n", (long long)before.st_size, path);
    }
    return status;
}

int fsync(int file) { return sync_and_note(SYS_fsync, file); }

int fdatasync(int file) { return sync_and_note(SYS_fdatasync, file); }

int rename(const char *from, const char *to) {
    int status = (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    if (status == 0) note("R %s\t%s\n", from, to);
    return status;
}
