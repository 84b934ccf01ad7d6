/* Whole small files, many in a call: written, given their names, closed. cffi lets go of Python's lock
 * for the call, so that a group of files takes it once for each step and not once for each system call.
 * Which step makes which promise is argued in uringio/_ring/small_files.py, whose order of steps and
 * whose layout of struct uringio_small_file these are. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* A prefix, a number in hexadecimal and a suffix: file systems take 255. */
#define URINGIO_SMALL_NAME_BYTES 256

#define URINGIO_RENAME_NOREPLACE 1

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80 /* pwritev2(2), linux/fs.h */
#endif

/* What writes past the page cache want of memory, offset and length. */
#define URINGIO_SMALL_BLOCK_BYTES 4096u

enum uringio_small_step {
    URINGIO_SMALL_NONE,
    URINGIO_SMALL_OPEN,
    URINGIO_SMALL_LOCK,
    URINGIO_SMALL_WRITE,
    URINGIO_SMALL_SYNC,
    URINGIO_SMALL_RENAME,
};

struct uringio_small_file {
    const uint8_t *data;
    const char *name;
    uint64_t number;
    uint32_t length;
    int32_t dir_fd;
    int32_t replace;

    int32_t fd;
    int32_t result;
    int32_t step;
    uint64_t inode;
    int64_t modified_s, modified_ns;
};

static void uringio_small_spool_name(char *name, const char *prefix, const struct uringio_small_file *file)
{
    snprintf(name, URINGIO_SMALL_NAME_BYTES, "%s%llx.put", prefix, (unsigned long long)file->number);
}

static void uringio_small_failed(struct uringio_small_file *file, enum uringio_small_step step)
{
    file->result = -errno;
    file->step = step;
}

/* Write whole blocks of a file straight from its memory; how many bytes are written so, or -1.
 * Who cannot do that says so by F_SETFL, or by EINVAL: then the page cache has to. So it goes on, too,
 * behind a write that was cut short within a block: asked again from there, it would be cut short for ever. */
static ssize_t uringio_small_write_direct(const struct uringio_small_file *file)
{
    uint32_t blocks = file->length & ~(URINGIO_SMALL_BLOCK_BYTES - 1), done = 0;
    if ((uintptr_t)file->data % URINGIO_SMALL_BLOCK_BYTES || fcntl(file->fd, F_SETFL, O_DIRECT) < 0)
        return 0;
    /* Blocks that are reserved are written faster; where they cannot be, the write says what is wrong. */
    (void)fallocate(file->fd, 0, 0, file->length);
    while (done < blocks) {
        ssize_t count = pwrite(file->fd, file->data + done, blocks - done, done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno != EINVAL)
            return -1;
        if (count < (ssize_t)URINGIO_SMALL_BLOCK_BYTES)
            break;
        done += (uint32_t)count & ~(URINGIO_SMALL_BLOCK_BYTES - 1);
    }
    return fcntl(file->fd, F_SETFL, 0) < 0 ? -1 : (ssize_t)done;
}

/* Write the file from `done` on. */
static int uringio_small_write_rest(const struct uringio_small_file *file, uint32_t done, int flags)
{
    while (done < file->length) {
        struct iovec rest = {(void *)(file->data + done), file->length - done};
        ssize_t count = flags ? pwritev2(file->fd, &rest, 1, done, flags) : pwritev(file->fd, &rest, 1, done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && flags) {
            flags = 0; /* who does not know them says so in several ways: what is wrong, the plain call says */
            continue;
        }
        if (count == 0)
            errno = EIO;
        if (count <= 0)
            return -1;
        done += (uint32_t)count;
    }
    return 0;
}

static void uringio_small_write_one(int spool_fd, const char *prefix, struct uringio_small_file *file,
                                    int sync, uint32_t uncached_bytes_min, uint32_t direct_bytes_min)
{
    int uncached = uncached_bytes_min && file->length >= uncached_bytes_min;
    ssize_t done = 0;
    char name[URINGIO_SMALL_NAME_BYTES];
    uringio_small_spool_name(name, prefix, file);
    file->fd = openat(spool_fd, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file->fd < 0) {
        uringio_small_failed(file, URINGIO_SMALL_OPEN);
        return;
    }
    if (flock(file->fd, LOCK_EX | LOCK_NB) < 0) {
        uringio_small_failed(file, URINGIO_SMALL_LOCK);
        return;
    }
    if (file->length >= direct_bytes_min)
        done = uringio_small_write_direct(file);
    if (done < 0 || uringio_small_write_rest(file, (uint32_t)done, uncached ? RWF_DONTCACHE : 0) < 0) {
        uringio_small_failed(file, URINGIO_SMALL_WRITE);
        return;
    }
    if (sync && fsync(file->fd) < 0)
        uringio_small_failed(file, URINGIO_SMALL_SYNC);
}

/* Write each file under its temporary name; uncached from so many bytes on, 0: never; from so many straight
 * from its memory, where that begins at a page. */
static void uringio_small_write(int spool_fd, const char *prefix, struct uringio_small_file *files,
                                unsigned count, int sync, uint32_t uncached_bytes_min, uint32_t direct_bytes_min)
{
    for (unsigned i = 0; i < count; i++)
        uringio_small_write_one(spool_fd, prefix, &files[i], sync, uncached_bytes_min, direct_bytes_min);
}

static int uringio_small_barrier(int fd)
{
    return syncfs(fd) < 0 ? -errno : 0;
}

/* Give each file that has not failed its name. renameat2 by number: musl has no function for it. */
static void uringio_small_rename(int spool_fd, const char *prefix, struct uringio_small_file *files,
                                 unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct uringio_small_file *file = &files[i];
        struct stat found;
        char name[URINGIO_SMALL_NAME_BYTES];
        if (file->result < 0)
            continue;
        uringio_small_spool_name(name, prefix, file);
        if (fstat(file->fd, &found) < 0 ||
            syscall(SYS_renameat2, spool_fd, name, file->dir_fd, file->name,
                    file->replace ? 0 : URINGIO_RENAME_NOREPLACE) < 0) {
            uringio_small_failed(file, URINGIO_SMALL_RENAME);
            continue;
        }
        file->inode = found.st_ino;
        file->modified_s = found.st_mtim.tv_sec;
        file->modified_ns = found.st_mtim.tv_nsec;
    }
}

/* Close each file, and remove what got no name. */
static void uringio_small_close(int spool_fd, const char *prefix, struct uringio_small_file *files,
                                unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct uringio_small_file *file = &files[i];
        if (file->fd < 0)
            continue;
        if (file->inode == 0) {
            char name[URINGIO_SMALL_NAME_BYTES];
            uringio_small_spool_name(name, prefix, file);
            unlinkat(spool_fd, name, 0);
        }
        close(file->fd);
        file->fd = -1;
    }
}
