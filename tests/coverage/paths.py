"""The commit path: what stands between a client's bytes and the promise that they are kept.

Every branch of these modules is taken by a test (`make coverage`). One that no test can take has a
comment that says why: `# never:` in Python, `/* never: */` in C.

Not among them, though bytes pass there: how rings are set up and register memory (`_ring/uring.py`
and its like, whose half in C is here), and who holds an upload when several processes do
(`registry.py`, `resting.py`, `workers/`), which tests with processes of their own try, where
nothing is measured.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MODULES = {
    "service/uringd/intake.py": "a chunk's checksum is compared, and its slot handed over, here",
    "service/uringd/filling.py": "which chunk is taken, and what of it counts as written",
    "service/uringd/wire/ranges.py": "which ranges are there, which chunk is the same again",
    "service/uringd/reading_back.py": "chunks of memory that can change: what the disk has of them",
    "service/uringd/uploads.py": "what an upload may acknowledge when",
    "service/uringd/acknowledging.py": "the positions that a client is told",
    "service/uringd/spool_files.py": "the lock that fences a spool file",
    "service/uringd/root.py": "directories on the way to a name, made durable; ROOT's own lock",
    "service/uringd/publishing.py": "the daemon's publish chain",
    "service/uringd/catalog.py": "the records, and what a failed one costs",
    "service/uringd/catalog_schema.py": "the tables, how they last, and room for an end",
    "service/uringd/reconcile.py": "what each remainder of a killed server becomes",
    "service/uringd/upload_errors.py": "which code an error of the disk has for the client",
    "service/uringd/small/group.py": "small uploads: one barrier, then the names",
    "service/uringd/small/uploads.py": "their order, and what each is answered",
    "uringio/_trio/write_behind.py": "every completion of a chunk's write is looked at here",
    "uringio/_trio/writer.py": "the library's file, from its first byte to its name",
    "uringio/_trio/publish.py": "the publish chain",
    "uringio/_trio/chain.py": "chains of a user's own",
    "uringio/_trio/preallocation.py": "blocks are reserved, so that a full disk is known early",
    "uringio/_trio/replacing.py": "a range in place, whole or not at all: who may, and when",
    "uringio/_trio/replace_steps.py": "the same: the order of its writes and fsyncs",
    "uringio/_trio/replace_journal.py": "its journal's bytes: what of them is believed",
    "uringio/_trio/recovery.py": "what an open makes of a replace that was broken off",
    "uringio/_trio/pieces.py": "the writes of a replace: which bytes by which descriptor",
    "uringio/_trio/reading_back.py": "what the disk has of them",
    "uringio/_trio/file_lock.py": "locks that outlive their process, until its last write",
    "uringio/_trio/reactor.py": "every operation, its completion, and its cancel",
    "uringio/_trio/waits.py": "a cancelled task leaves when the kernel has let go, and not before",
    "uringio/_trio/carried.py": "which writes make durable what an fsync would",
    "uringio/_ring/execute.py": "each operation as a system call, where the ring has it not",
    "uringio/_ring/short_writes.py": "where a write goes on that was cut short",
    "uringio/_ring/page_cache.py": "what is compared is what the disk has",
    "uringio/_ring/small_files.py": "the steps of a group of small files",
}
"""Modules by path, each with the reason why it is here."""

C_SOURCES = {
    "uringio/_binding/liburing.csrc.c": "SQEs are filled, and completions told apart, here",
    "uringio/_binding/small_files.csrc.c": "small files: written, fsynced and named",
}

_TRIO = "tests/uringio/trio"

TESTS = (
    (
        "tests/uringio",
        "--ignore=tests/uringio/testing",
        *(f"--ignore={_TRIO}/test_replace_{what}.py" for what in ("power_cuts", "kills")),
        f"--ignore={_TRIO}/test_replace_cut_disks.py",
    ),
    (
        *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/uringd/test_*.py")),
        "tests/uringd/hostile/test_private_directory.py",
        "tests/uringd/small",
        "tests/uringd/workers/test_resting.py",
        "tests/uringd/wire/test_ranges.py",
    ),
)
"""What is run for it: each group in a process of its own, side by side. Left out is what tries the
same lines more often."""
