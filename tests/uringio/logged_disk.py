"""A disk that logs what is done to it: `logged_disk.py DIRECTORY LOG IMAGE`, as root.

Mounts a file system of one file, DIRECTORY/disk, of IMAGE's size, for a loop device to stand on
(FUSE, fuse(4), spoken by hand: nothing has to be installed). Every write goes to IMAGE, and to LOG
as a record of what was written where; every flush of the device (an fsync of the file) is a record
too. So the state of the disk at any moment can be built again. Ends when DIRECTORY is unmounted.

A record: kind (W or F), offset, length; then, for W, the bytes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

RECORD = struct.Struct("<cQI")
REQUEST = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
REPLY = struct.Struct("<IiQ")  # length, -errno, unique
ATTRIBUTES = struct.Struct("<6Q10I")
WRITE_BYTES = 1 << 20
ROOT, DISK = 1, 2
FOREVER_S = 3600
(
    LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, RELEASE, FSYNC, FLUSH, INIT, OPENDIR,
    RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET,
) = (1, 2, 3, 4, 14, 15, 16, 18, 20, 25, 26, 27, 29, 36, 38, 42)  # fmt: skip
UNANSWERED = {FORGET, INTERRUPT, BATCH_FORGET}
BIG_WRITES, MAX_PAGES = 1 << 5, 1 << 22
DIRECT_IO = 1


class Server:
    """Answers the kernel, one request at a time."""

    def __init__(self, fuse: int, log: int, image: int) -> None:
        self.fuse = fuse
        self.log = log
        self.image = image
        self.size = os.fstat(image).st_size

    def run(self) -> None:
        """Serve until the file system is unmounted."""
        while True:
            try:
                request = os.read(self.fuse, WRITE_BYTES + (64 << 10))
            except OSError as exc:
                if exc.errno == errno.ENODEV:
                    return
                raise
            _, opcode, unique, node, *_ = REQUEST.unpack_from(request)
            if opcode in UNANSWERED:
                continue
            try:
                body, number = self.answer(opcode, node, request[REQUEST.size :]), 0
            except OSError as exc:
                body, number = b"", exc.errno or errno.EIO
            head = REPLY.pack(REPLY.size + len(body), -number, unique)
            os.write(self.fuse, head + body)

    def answer(self, opcode: int, node: int, body: bytes) -> bytes:
        """Do what is asked for; the result is the reply's body."""
        if opcode == INIT:
            _, _, read_ahead, flags = struct.unpack_from("<4I", body)
            limits = (16, 12, WRITE_BYTES, 1, WRITE_BYTES // 4096, 0, 0)
            flags &= BIG_WRITES | MAX_PAGES
            reply = struct.pack("<4I2H2I2HI28x", 7, 31, read_ahead, flags, *limits)
        elif opcode == LOOKUP and body == b"disk\0":
            reply = struct.pack("<4Q2I", DISK, 0, FOREVER_S, FOREVER_S, 0, 0)
            reply += self.attributes(DISK)
        elif opcode in {GETATTR, SETATTR}:
            reply = struct.pack("<QII", FOREVER_S, 0, 0) + self.attributes(node)
        elif opcode in {OPEN, OPENDIR}:
            reply = struct.pack("<QII", 0, DIRECT_IO if node == DISK else 0, 0)
        elif opcode == READ:
            _, offset, length = struct.unpack_from("<QQI", body)
            reply = os.pread(self.image, length, offset)
        elif opcode == WRITE:
            _, offset, length = struct.unpack_from("<QQI", body)
            data = body[-length:]
            os.write(self.log, RECORD.pack(b"W", offset, length) + data)
            os.pwrite(self.image, data, offset)
            reply = struct.pack("<II", length, 0)
        elif opcode == FSYNC:
            os.write(self.log, RECORD.pack(b"F", 0, 0))
            reply = b""
        elif opcode in {RELEASE, RELEASEDIR, FLUSH, DESTROY}:
            reply = b""
        else:
            raise OSError(errno.ENOENT if opcode == LOOKUP else errno.ENOSYS, "not here")
        return reply

    def attributes(self, node: int) -> bytes:
        """Lay out struct fuse_attr of the directory or of the disk."""
        if node == ROOT:
            size, mode = 0, stat.S_IFDIR | 0o755
        else:
            size, mode = self.size, stat.S_IFREG | 0o600
        times = (0,) * 6
        return ATTRIBUTES.pack(node, size, size // 512, *times, mode, 1, 0, 0, 0, 4096, 0)


def main() -> None:
    """Mount and serve."""
    directory, log, image = sys.argv[1:]
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,max_read={WRITE_BYTES}".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"disk", directory.encode(), b"fuse", 0, options):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), directory)
    print("mounted", flush=True)  # noqa: T201  # who waits for it reads this
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    Server(fuse, os.open(log, flags, 0o600), os.open(image, os.O_RDWR)).run()


if __name__ == "__main__":
    main()
