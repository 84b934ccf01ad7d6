"""The mutants: one line each of the durability path, made wrong in a way that loses or tears data.

Each names the tests that have to notice. `old` stands in its file exactly once; a test of the suite
holds this list against the code, so that a line that moves takes its mutant along.
"""

from __future__ import annotations

from tests.mutation.mutant import Mutant
from tests.mutation.mutants_beside import BESIDE

LIBRARY, DAEMON = "uringio/_trio/", "service/uringd/"
WRITER = ("tests/uringio/trio/test_writer.py", "tests/uringio/trio/test_publish.py")
ORDER = ("tests/uringd/test_order.py",)
UPLOADS = (*ORDER, "tests/uringd/test_uploads.py", "tests/uringd/test_reconcile.py")
RESUME = ("tests/uringd/test_resume.py", "tests/uringd/test_registry.py")
CHUNKS = ("tests/uringd/test_chunks.py", "tests/uringd/test_page_checksums.py")
SLAB = ("tests/uringd/test_slab.py",)


MUTANTS = (
    Mutant(
        "publish without the file's fsync",
        LIBRARY + "publish.py",
        'if durability != "written":',
        "if False:",
        WRITER,
    ),
    Mutant(
        "publish without the directory's fsync",
        LIBRARY + "publish.py",
        'if durability == "published":',
        "if False:",
        WRITER,
    ),
    Mutant(
        "publish renames before the fsync",
        LIBRARY + "publish.py",
        "    steps.append(Step(rename, target.path))\n",
        "    steps.insert(0, Step(rename, target.path))\n",
        WRITER,
    ),
    Mutant(
        "publish links the rename behind the fsync",
        LIBRARY + "publish.py",
        "        if not stops and operation.opcode is not Opcode.FSYNC:",
        "        if False:",
        WRITER,
    ),
    Mutant(
        "publish replaces a file that was to be kept",
        LIBRARY + "publish.py",
        "target.name, replace=overwrite",
        "target.name, replace=True",
        WRITER,
    ),
    Mutant(
        "publish leaves the padding in the file",
        LIBRARY + "publish.py",
        "    if cut_to is not None:",
        "    if False:",
        WRITER,
    ),
    Mutant(
        "publish takes a short tail for a whole one",
        LIBRARY + "publish.py",
        "            if rest is not None:",
        "            if is_write and result > 0:\n                left = left[at + 1 :]\n"
        "            elif rest is not None:",
        (*WRITER, "tests/uringio/trio/test_short_writes.py"),
    ),
    Mutant(
        "links are hard: they go on after an error",
        "uringio/_ring/uring.py",
        "IOSQE_IO_LINK = 1 << 2",
        "IOSQE_IO_LINK = 1 << 3",
        (*WRITER, "tests/uringio/ring/test_uring.py", "tests/uringio/ring/test_conformance.py"),
    ),
    Mutant(
        "links are left out: the rename does not wait for the fsync",
        "uringio/_ring/uring.py",
        "IOSQE_IO_LINK = 1 << 2",
        "IOSQE_IO_LINK = 0",
        (*WRITER, "tests/uringio/ring/test_uring.py", "tests/uringio/ring/test_conformance.py"),
    ),
    Mutant(
        "commit does not wait for the last completion",
        LIBRARY + "writer.py",
        "            await self._behind.wait_written()\n"
        "            await trio.lowlevel.checkpoint_if_cancelled()",
        "            await trio.lowlevel.checkpoint_if_cancelled()",
        WRITER,
    ),
    Mutant(
        "a short write counts as whole",
        LIBRARY + "write_behind.py",
        "if progress == self.padded:",
        "if result > 0:",
        ("tests/uringio/trio/test_short_writes.py", "tests/uringio/trio/test_writer.py"),
    ),
    Mutant(
        "a failed write is forgotten",
        LIBRARY + "write_behind.py",
        "        self.owner.fail(failure)\n        self._done(failure)",
        "        self._done(None)",
        WRITER,
    ),
    Mutant(
        "a cancelled task leaves before the completion",
        LIBRARY + "waits.py",
        "            self.reactor.cancel(token)\n        return trio.lowlevel.Abort.FAILED",
        "            self.reactor.cancel(token)\n        return trio.lowlevel.Abort.SUCCEEDED",
        ("tests/uringio/trio/test_reactor.py", "tests/uringio/trio/test_cancellation.py"),
    ),
    Mutant(
        "an fsync is carried by the last of several writes",
        LIBRARY + "carried.py",
        "if owed == 1 and",
        "if owed and",
        ("tests/uringio/trio/test_carried.py",),
    ),
    Mutant(
        "an fsync is carried although the file owes more",
        LIBRARY + "access.py",
        "        return all(durable(fd) for fd in self.descriptors())",
        "        return bool(durable)",
        ("tests/uringio/trio/test_carried.py",),
    ),
    Mutant(
        "a writer that is left closes its file before its writes have ended",
        LIBRARY + "writer.py",
        "            await self._behind.wait_settled()\n            await self._close()\n",
        "            await self._close()\n",
        (*WRITER, "tests/uringio/trio/test_cancellation.py"),
    ),
    Mutant(
        "a slot is free before its write has ended",
        DAEMON + "filling.py",
        "        self._behind.submit(slot, offset, length, written)\n",
        "        self._behind.submit(slot, offset, length, written)\n"
        "        on_done(slot)\n        on_done = bool\n",
        CHUNKS,
    ),
    Mutant(
        "a file's failed fsync is asked again",
        LIBRARY + "file.py",
        '            if result < 0:\n                raise operation_error(-result, "fsync"',
        "            if result < 0:\n"
        "                result = await self._reactor.perform(\n"
        "                    operations.fsync(self._access.file.fd, data_only=data_only)\n"
        "                )\n"
        '            if result < 0:\n                raise operation_error(-result, "fsync"',
        ("tests/uringio/trio/test_file.py",),
    ),
    Mutant(
        "an upload's failed fsync is asked again",
        DAEMON + "uploads.py",
        "        if result < 0:\n            raise self.filling.fail(",
        "        if result < 0:\n"
        "            result = await self._ring.reactor.perform(operations.fsync(fd))\n"
        "        if result < 0:\n            raise self.filling.fail(",
        UPLOADS,
    ),
    Mutant(
        "a checkpoint without the fsync",
        DAEMON + "uploads.py",
        "                await self._fsync(self._file.fd, self.name)\n",
        "",
        (*UPLOADS, *RESUME),
    ),
    Mutant(
        "a checkpoint without the spool directory's fsync",
        DAEMON + "uploads.py",
        "                if not self._spool_durable:\n",
        "                if False:\n",
        (*UPLOADS, *RESUME),
    ),
    Mutant(
        "a checkpoint counts what was written while it synced",
        DAEMON + "uploads.py",
        "                await self._record_progress(ranges)\n"
        "                self.durable_ranges = ranges",
        "                ranges = self.filling.written.ranges()\n"
        "                await self._record_progress(ranges)\n"
        "                self.durable_ranges = ranges",
        (*UPLOADS, *RESUME),
    ),
    Mutant(
        "durable is acknowledged before the catalog has it",
        DAEMON + "uploads.py",
        "                await self._record_progress(ranges)\n"
        "                self.durable_ranges = ranges",
        "                self.durable_ranges = ranges\n"
        "                await self._record_progress(ranges)",
        (*UPLOADS, *RESUME),
    ),
    Mutant(
        "SYNC answers before its chunks are written",
        DAEMON + "uploads.py",
        "        await self.filling.wait_arrived()\n",
        "",
        (*UPLOADS, "tests/uringd/test_session.py"),
    ),
    Mutant(
        "COMMIT publishes while chunks are in flight",
        DAEMON + "uploads.py",
        "                    await self.filling.wait_settled()\n"
        "                    async with self._syncing:\n",
        "                    async with self._syncing:\n",
        (*UPLOADS, "tests/uringd/test_session.py"),
    ),
    Mutant(
        "COMMIT looks for a failed checkpoint before it has waited for it",
        DAEMON + "uploads.py",
        "                        self.filling.check()\n                        receipt = ",
        "                        receipt = ",
        UPLOADS,
    ),
    Mutant(
        "COMMIT renames before it is recorded",
        DAEMON + "uploads.py",
        "            await self._catalog.begin_commit(receipt)\n",
        "",
        UPLOADS,
    ),
    Mutant(
        "COMMIT is answered before its receipt is recorded",
        DAEMON + "uploads.py",
        "                await self._catalog.publish(receipt)\n",
        "",
        UPLOADS,
    ),
    Mutant(
        "COMMIT publishes holes",
        DAEMON + "uploads.py",
        "        if missing:\n",
        "        if False:\n",
        (*UPLOADS, "tests/uringd/test_session.py"),
    ),
    Mutant(
        "COMMIT believes any checksum",
        DAEMON + "uploads.py",
        "if theirs is not None and theirs != ours:",
        "if False:",
        (*UPLOADS, "tests/uringd/test_session.py"),
    ),
    Mutant(
        "an upload is suspended before it is durable",
        DAEMON + "uploads.py",
        "                await self.filling.wait_settled()\n"
        "                await self.checkpoint()\n",
        "",
        (*UPLOADS, *RESUME),
    ),
    Mutant(
        "a takeover is not recorded",
        DAEMON + "uploads.py",
        "                await self._record_progress(self.durable_ranges)\n",
        "                pass\n",
        (*UPLOADS, *RESUME),
    ),
    Mutant(
        "lost writes keep the instance",
        DAEMON + "session.py",
        "        if upload.lost_writes:\n",
        "        if False:\n",
        (*UPLOADS, "tests/uringd/test_session.py", "tests/uringd/test_server.py"),
    ),
    Mutant(
        "a chunk's checksum is not compared",
        DAEMON + "intake.py",
        "if crc != event.crc32c:",
        "if False:",
        CHUNKS,
    ),
    Mutant(
        "damaged pages are written",
        DAEMON + "intake.py",
        "agreeing = runs[crc32c(chunk[start : start + length]) == expected]",
        "agreeing = runs[number != 0]",
        CHUNKS,
    ),
    Mutant(
        "other bytes at a written offset are no conflict",
        DAEMON + "filling.py",
        "if verdict is Verdict.CONFLICT:",
        "if False:",
        CHUNKS,
    ),
    Mutant(
        "a fenced session goes on writing",
        DAEMON + "filling.py",
        "            if hold.is_fenced:\n",
        "            if False:\n",
        (*CHUNKS, *RESUME, "tests/uringd/test_lanes.py"),
    ),
    Mutant(
        "what is read back is not compared",
        DAEMON + "reading_back.py",
        "elif crc32c(slot.memory[: chunk.length]) != chunk.crc32c:",
        "elif False:",
        SLAB,
    ),
    Mutant(
        "a chunk is written before it was read back",
        DAEMON + "filling.py",
        "if failure is not None or read_back is None:",
        "if True:",
        SLAB,
    ),
    Mutant(
        "a slab is registered and not sealed",
        DAEMON + "slab.py",
        "fcntl.fcntl(self.fd, F_ADD_SEALS, LAST_SEALS)",
        "pass",
        SLAB,
    ),
    Mutant(
        "a slab goes before the last write from it",
        DAEMON + "slab.py",
        "if not self._ended or self._in_flight:",
        "if not self._ended:",
        SLAB,
    ),
    Mutant(
        "memory that could change is taken for sealed",
        DAEMON + "client_memory.py",
        "if seals & SEALS_WANTED != SEALS_WANTED:",
        "if False:",
        ("tests/uringd/test_sealed_memory.py",),
    ),
    Mutant(
        "a closed file takes chunks",
        DAEMON + "filling.py",
        "        if self.closed:\n",
        "        if False:\n",
        (*ORDER, *CHUNKS),
    ),
    Mutant(
        "a chunk that is in flight is written already",
        DAEMON + "filling.py",
        "        self.accepted.add(offset, length, crc32c)\n",
        "        self.accepted.add(offset, length, crc32c)\n"
        "        self.written.add(offset, length, crc32c)\n",
        (*CHUNKS, *UPLOADS),
    ),
    Mutant(
        "an upload's record is not read again under its lock",
        DAEMON + "resting.py",
        "            if await self._catalog.find(record.upload_id) == record:\n",
        "            if True:\n",
        ("tests/uringd/workers/test_resting.py",),
    ),
    Mutant(
        "no lock on a spool file",
        DAEMON + "spool_files.py",
        "        fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        pass\n",
        ("tests/uringd/test_reconcile.py",),
    ),
    Mutant(
        "a start trusts a file by its name",
        DAEMON + "reconcile.py",
        "if inode_of(fd) != receipt.inode or os.fstat(fd).st_size != receipt.size:",
        "if False:",
        ("tests/uringd/test_reconcile.py",),
    ),
    Mutant(
        "a start publishes without the fsyncs",
        DAEMON + "reconcile.py",
        "and those above up to ROOT\n            os.fsync(fd)\n",
        "and those above up to ROOT\n            pass\n",
        ("tests/uringd/test_reconcile.py",),
    ),
    Mutant(
        "a start believes a file that was only written",
        DAEMON + "reconcile.py",
        "return receipt.durability is not Durability.WRITTEN or _crc32c(fd) == receipt.crc32c",
        "return True",
        ("tests/uringd/test_reconcile.py",),
    ),
    Mutant(
        "the catalog does not sync its log",
        DAEMON + "catalog_schema.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = OFF",
        ("tests/uringd/test_catalog.py",),
    ),
    Mutant(
        "the ring reaps until the queue is empty, not until the work is done",
        "uringio/_binding/liburing.csrc.c",
        "if (!(flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) {",
        "if (!(flags & IORING_SQ_CQ_OVERFLOW)) {",
        ("tests/uringio/ring/test_uring.py", "tests/uringio/trio/test_chain.py"),
    ),
    *BESIDE,
)
