"""A disk in user space: `fuse_disk.py DIRECTORY KIND IMAGE [LOG]`, as root.

Mounts a file system with the file DIRECTORY/disk, of IMAGE's size, for a loop device to stand on
(FUSE, fuse(4), spoken by hand: nothing has to be installed). What is written to DIRECTORY/control
is a command to the disk; its size is how many writes are held. Ends when DIRECTORY is unmounted.
Kinds:

logged   Every write goes to IMAGE, and to LOG as a record of what was written where; every flush of
         the device (an fsync of the file) is a record too: kind (W or F), offset, length; then,
         for W, the bytes. So the state of the disk at any moment can be built again.
scratch  Writes are kept in memory and IMAGE is only read; "reset" forgets them.
faulty   Data with a mark in it is treated as the mark says (see FaultyDisk).
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
WRITE_HEAD_BYTES = 40
WRITE_BYTES = 1 << 20
BLOCK = 4096
ROOT, DISK, CONTROL = 1, 2, 3
NODES = {b"disk\0": DISK, b"control\0": CONTROL}
FOREVER_S = 3600
(
    LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, RELEASE, FSYNC, FLUSH, INIT, OPENDIR,
    RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET,
) = (1, 2, 3, 4, 14, 15, 16, 18, 20, 25, 26, 27, 29, 36, 38, 42)  # fmt: skip
UNANSWERED = {FORGET, INTERRUPT, BATCH_FORGET}
BIG_WRITES, ASYNC_DIRECT, MAX_PAGES = 1 << 5, 1 << 15, 1 << 22
DIRECT_IO, PARALLEL_DIRECT_WRITES = 1, 1 << 6
MARK = b"uringd-test-disk:"
ERRORS = {b"EIO": errno.EIO, b"ENOSPC": errno.ENOSPC}


class HeldError(Exception):
    """A write is not to be answered yet."""


class Disk:
    """A disk that is its image."""

    def __init__(self, image: int) -> None:
        self.image = image
        self.size = os.fstat(image).st_size

    def read(self, offset: int, length: int) -> bytes | bytearray:
        """Return what is there."""
        return os.pread(self.image, length, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Take data. Raises OSError, HeldError."""
        os.pwrite(self.image, data, offset)

    def flush(self) -> None:
        """Make durable what was written. Raises OSError."""

    def control(self, command: bytes) -> None:
        """Do as told."""
        raise OSError(errno.EINVAL, f"no command: {command!r}")


class LoggedDisk(Disk):
    """A disk that remembers every write and flush, in their order."""

    def __init__(self, image: int, log: str) -> None:
        super().__init__(image)
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, offset: int, data: bytes) -> None:
        """Take data, logged."""
        os.writev(self.log, [RECORD.pack(b"W", offset, len(data)), data])
        super().write(offset, data)

    def flush(self) -> None:
        """Log it."""
        os.write(self.log, RECORD.pack(b"F", 0, 0))


class ScratchDisk(Disk):
    """A disk whose writes are laid over its image until "reset"."""

    def __init__(self, image: int) -> None:
        super().__init__(image)
        self.over: dict[int, bytearray] = {}  # by number of the block

    def read(self, offset: int, length: int) -> bytes | bytearray:
        """Return the image's bytes, and over them what was written."""
        data = os.pread(self.image, length, offset)
        numbers = range(offset // BLOCK, -(-(offset + length) // BLOCK))
        covered = [number for number in numbers if number in self.over]
        if not covered:
            return data
        whole = bytearray(data)
        for number in covered:
            begin = number * BLOCK - offset
            block = self.over[number]
            low, high = max(0, -begin), min(BLOCK, length - begin)
            whole[begin + low : begin + high] = block[low:high]
        return whole

    def write(self, offset: int, data: bytes) -> None:
        """Keep data in memory."""
        at = 0
        while at < len(data):
            number, low = divmod(offset + at, BLOCK)
            count = min(BLOCK - low, len(data) - at)
            block = self.over.get(number)
            if block is None:
                below = b"" if count == BLOCK else os.pread(self.image, BLOCK, number * BLOCK)
                block = self.over[number] = bytearray(below.ljust(BLOCK, b"\0"))
            block[low : low + count] = data[at : at + count]
            at += count

    def control(self, command: bytes) -> None:
        """Forget what was written."""
        if command != b"reset":
            super().control(command)
        self.over.clear()


class FaultyDisk(Disk):
    """A disk that data tells what to do: no moment has to be met, and nothing else is hit.

    A write in which MARK stands, with a word and a semicolon, fails (EIO, ENOSPC), is held until
    "release" (HOLD), or has the next flush fail, once (FLUSH).
    """

    def __init__(self, image: int) -> None:
        super().__init__(image)
        self.flush_fails = False
        self.holds = True

    def write(self, offset: int, data: bytes) -> None:
        """Take data, or do as it says."""
        at = data.find(MARK)
        word = b"" if at < 0 else data[at + len(MARK) : at + BLOCK].partition(b";")[0]
        if word in ERRORS:
            raise OSError(ERRORS[word], os.strerror(ERRORS[word]))
        if word == b"HOLD" and self.holds:
            raise HeldError
        if word == b"FLUSH":
            self.flush_fails = True
        super().write(offset, data)

    def flush(self) -> None:
        """Fail, once, when data has asked for it."""
        failing, self.flush_fails = self.flush_fails, False
        if failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def control(self, command: bytes) -> None:
        """Hold nothing any more."""
        if command != b"release":
            super().control(command)
        self.holds = False


class Server:
    """Answers the kernel, one request at a time."""

    def __init__(self, fuse: int, disk: Disk) -> None:
        self.fuse = fuse
        self.disk = disk
        self.held: list[tuple[int, bytes]] = []  # writes: unique, body

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
            if opcode not in UNANSWERED:
                self.serve(opcode, unique, node, request[REQUEST.size :])

    def serve(self, opcode: int, unique: int, node: int, request: bytes) -> None:
        """Answer one request, or hold it."""
        body: bytes | bytearray = b""
        number = 0
        try:
            body = self.answer(opcode, node, request)
        except HeldError:
            self.held.append((unique, request))
            return
        except OSError as exc:
            number = exc.errno or errno.EIO
        os.writev(self.fuse, [REPLY.pack(REPLY.size + len(body), -number, unique), body])
        if node == CONTROL and opcode == WRITE:
            held, self.held = self.held, []
            for waiting, write in held:
                self.serve(WRITE, waiting, DISK, write)

    def answer(self, opcode: int, node: int, body: bytes) -> bytes | bytearray:
        """Do what is asked for; the result is the reply's body."""
        reply: bytes | bytearray = b""
        if opcode == INIT:
            _, _, read_ahead, flags = struct.unpack_from("<4I", body)
            limits = (16, 12, WRITE_BYTES, 1, WRITE_BYTES // 4096, 0, 0)
            flags &= BIG_WRITES | ASYNC_DIRECT | MAX_PAGES
            reply = struct.pack("<4I2H2I2HI28x", 7, 31, read_ahead, flags, *limits)
        elif opcode == LOOKUP and body in NODES:
            found = NODES[body]
            valid_s = 0 if found == CONTROL else FOREVER_S
            reply = struct.pack("<4Q2I", found, 0, FOREVER_S, valid_s, 0, 0)
            reply += self.attributes(found)
        elif opcode in {GETATTR, SETATTR}:
            valid_s = 0 if node == CONTROL else FOREVER_S
            reply = struct.pack("<QII", valid_s, 0, 0) + self.attributes(node)
        elif opcode in {OPEN, OPENDIR}:
            flags = 0 if node == ROOT else DIRECT_IO | PARALLEL_DIRECT_WRITES
            reply = struct.pack("<QII", 0, flags, 0)
        elif opcode == READ and node == DISK:
            _, offset, length = struct.unpack_from("<QQI", body)
            reply = self.disk.read(offset, length)
        elif opcode == WRITE:
            _, offset, length = struct.unpack_from("<QQI", body)
            data = body[WRITE_HEAD_BYTES : WRITE_HEAD_BYTES + length]
            if node == DISK:
                self.disk.write(offset, data)
            else:
                self.disk.control(data)
            reply = struct.pack("<II", length, 0)
        elif opcode == FSYNC:
            self.disk.flush()
        elif opcode not in {RELEASE, RELEASEDIR, FLUSH, DESTROY}:
            raise OSError(errno.ENOENT if opcode == LOOKUP else errno.ENOSYS, "not here")
        return reply

    def attributes(self, node: int) -> bytes:
        """Lay out struct fuse_attr of the directory or of a file."""
        size = {DISK: self.disk.size, CONTROL: len(self.held)}.get(node, 0)
        mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o600
        times = (0,) * 6
        return ATTRIBUTES.pack(node, size, size // 512, *times, mode, 1, 0, 0, 0, 4096, 0)


KINDS = {"logged": LoggedDisk, "scratch": ScratchDisk, "faulty": FaultyDisk}


def main() -> None:
    """Mount and serve."""
    directory, kind, image, *more = sys.argv[1:]
    disk = KINDS[kind](os.open(image, os.O_RDWR), *more)
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,max_read={WRITE_BYTES}".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"disk", directory.encode(), b"fuse", 0, options):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), directory)
    print("mounted", flush=True)  # noqa: T201  # who waits for it reads this
    Server(fuse, disk).run()


if __name__ == "__main__":
    main()
