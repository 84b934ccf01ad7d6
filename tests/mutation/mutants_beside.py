"""Mutants of what stands beside a single upload: small files, replaces, locks, starts, and C."""

from __future__ import annotations

from tests.mutation.mutant import Mutant

LIBRARY, DAEMON, BINDING = "uringio/_trio/", "service/uringd/", "uringio/_binding/"
SMALL = (
    "tests/uringio/ring/test_small_files.py",
    "tests/uringio/ring/test_small_files_faults.py",
    "tests/uringio/ring/test_small_files_direct.py",
)
GROUP = ("tests/uringd/small/test_group.py", "tests/uringd/small/test_small_uploads.py")
LOCKS = (
    "tests/uringd/test_root.py",
    "tests/uringd/test_spool_files.py",
    "tests/uringd/test_reconcile_remains.py",
)
STARTS = ("tests/uringd/test_reconcile_remains.py", "tests/uringd/test_reconcile.py")
REPLACE = (
    "tests/uringio/trio/test_replace_faults.py",
    "tests/uringio/trio/test_replace_power_cuts.py",
)
RECOVERY = ("tests/uringio/trio/test_recovery.py", *REPLACE)

BESIDE = (
    Mutant(
        "the tail of a chain that the kernel cut is done",
        BINDING + "liburing.csrc.c",
        "        uringio_fail_cut_chain(ring);\n",
        "",
        ("tests/uringio/ring/test_uring_faults.py",),
    ),
    Mutant(
        "a short write of a small file is taken for whole",
        BINDING + "small_files.csrc.c",
        "done += (uint32_t)count;",
        "done = file->length;",
        SMALL,
    ),
    Mutant(
        "a short direct write of a small file is taken for whole",
        BINDING + "small_files.csrc.c",
        "done += (uint32_t)count & ~(URINGIO_SMALL_BLOCK_BYTES - 1);",
        "done = blocks;",
        SMALL,
    ),
    Mutant(
        "the error of a direct write of a small file is left to the barrier",
        BINDING + "small_files.csrc.c",
        "        if (count < 0 && errno != EINVAL)\n            return -1;\n",
        "        if (count < 0 && errno != EINVAL)\n            return blocks;\n",
        SMALL,
    ),
    Mutant(
        "a small file is not synced",
        BINDING + "small_files.csrc.c",
        "if (sync && fsync(file->fd) < 0)",
        "if (0)",
        SMALL,
    ),
    Mutant(
        "the error of a barrier is forgotten",
        BINDING + "small_files.csrc.c",
        "return syncfs(fd) < 0 ? -errno : 0;",
        "return syncfs(fd) < 0 ? 0 : 0;",
        SMALL,
    ),
    Mutant(
        "a small file that failed gets its name",
        BINDING + "small_files.csrc.c",
        "        if (file->result < 0)\n            continue;\n",
        "",
        SMALL,
    ),
    Mutant(
        "a small file replaces what was to be kept",
        BINDING + "small_files.csrc.c",
        "file->replace ? 0 : URINGIO_RENAME_NOREPLACE",
        "0",
        SMALL,
    ),
    Mutant(
        "a group is named before its barrier",
        DAEMON + "small/group.py",
        "        if durable and together:\n"
        "            lost = _pass_barrier(group, puts)\n"
        "        group.rename(files)\n",
        "        group.rename(files)\n"
        "        if durable and together:\n"
        "            lost = _pass_barrier(group, puts)\n",
        GROUP,
    ),
    Mutant(
        "a group's directories are not synced",
        DAEMON + "small/group.py",
        "        if level >= Durability.PUBLISHED:\n",
        "        if False:\n",
        GROUP,
    ),
    Mutant(
        "a failed barrier names its group",
        DAEMON + "small/group.py",
        'file.fail("syncfs", -result)',
        "pass",
        GROUP,
    ),
    Mutant(
        "a directory that could not be synced is nobody's error",
        DAEMON + "small/group.py",
        'file.fail("fsync of the directory", -result)',
        "pass",
        GROUP,
    ),
    Mutant(
        "an equal file that is there is not made durable",
        DAEMON + "small/group.py",
        "                os.fsync(fd)\n",
        "                pass\n",
        GROUP,
    ),
    Mutant(
        "any file that is there is an equal one",
        DAEMON + "small/group.py",
        "if os.pread(fd, len(put.content) + 1, 0) != put.content:",
        "if False:",
        GROUP,
    ),
    Mutant(
        "an equal file is compared with the page cache",
        DAEMON + "small/group.py",
        "        forget_clean_pages(fd)\n        if os.pread",
        "        if os.pread",
        ("tests/uringd/cli/test_serve_on_bad_disks.py",),
    ),
    Mutant(
        "an equal file's failed fsync is asked again",
        DAEMON + "small/group.py",
        "            if put.lost:\n",
        "            if False:\n",
        GROUP,
    ),
    Mutant(
        "small uploads that were lost keep the instance",
        DAEMON + "small/uploads.py",
        "                self._instance.renew_instance()\n",
        "",
        GROUP,
    ),
    Mutant(
        "a spool file that was removed is opened",
        DAEMON + "spool_files.py",
        "number = 0 if os.fstat(file.fd).st_nlink else errno.ENOENT",
        "number = 0",
        LOCKS,
    ),
    Mutant(
        "a spool file is removed under its holder",
        DAEMON + "root.py",
        "                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "                if not os.fstat(fd).st_nlink:\n",
        "                if not os.fstat(fd).st_nlink:\n",
        LOCKS,
    ),
    Mutant(
        "what took the place of a locked spool file is removed",
        DAEMON + "root.py",
        "                if not os.fstat(fd).st_nlink:\n",
        "                if False:\n",
        LOCKS,
    ),
    Mutant(
        "a directory on the way to a name is not durable",
        DAEMON + "root.py",
        "synced = await reactor.perform(operations.fsync(parent_fd))",
        "synced = 0",
        LOCKS,
    ),
    Mutant(
        "two workers give one name at once",
        DAEMON + "workers/naming.py",
        "fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)",
        "pass",
        ("tests/uringd/workers/test_naming.py",),
    ),
    Mutant(
        "RESUME answers before all is durable",
        DAEMON + "registry.py",
        "                    await found.sync()\n",
        "",
        ("tests/uringd/test_order.py", "tests/uringd/test_resume.py"),
    ),
    Mutant(
        "a start publishes again what is not durable",
        DAEMON + "reconcile.py",
        "            os.fsync(file)\n",
        "",
        STARTS,
    ),
    Mutant(
        "a start publishes again under a name that is not durable",
        DAEMON + "reconcile.py",
        "        for fd in reversed(fds):\n            os.fsync(fd)\n    return True\n",
        "    return True\n",
        STARTS,
    ),
    Mutant(
        "a start publishes again what is not whole",
        DAEMON + "reconcile.py",
        "            if not _is_whole(file, receipt):\n",
        "            if False:\n",
        STARTS,
    ),
    Mutant(
        "a start compares with the page cache",
        DAEMON + "reconcile.py",
        "    forget_clean_pages(fd)  # a start",
        "    # a start",
        ("tests/uringd/test_reconcile_lost.py",),
    ),
    Mutant(
        "a transaction that failed is told as done",
        DAEMON + "catalog.py",
        "return [_failure(exc) for _ in works]",
        "return [outcome.Value(None) for _ in works]",
        ("tests/uringd/test_catalog.py", "tests/uringd/test_records_refused.py"),
    ),
    Mutant(
        "a request that failed leaves half of its work",
        DAEMON + "catalog.py",
        'db.execute("ROLLBACK TO request")',
        "pass",
        ("tests/uringd/test_catalog.py", "tests/uringd/test_records_refused.py"),
    ),
    Mutant(
        "a record that was refused breaks nothing",
        DAEMON + "uploads.py",
        "        except CatalogError as exc:\n"
        "            raise self._broken_by(exc) from exc\n"
        "        self._quota.recorded(",
        "        except CatalogError:\n            pass\n        self._quota.recorded(",
        ("tests/uringd/test_records_refused.py",),
    ),
    Mutant(
        "the journal of a replace is not synced",
        LIBRARY + "replace_steps.py",
        "            Step(operations.fsync(self._journal.fd), self._journal.path),\n",
        "",
        REPLACE,
    ),
    Mutant(
        "the journal of a replace has a name that is not durable",
        LIBRARY + "replace_steps.py",
        "            Step(operations.fsync(self._home.dir_fd), self._home.directory),\n",
        "",
        REPLACE,
    ),
    Mutant(
        "the journal of a replace goes before the range is durable",
        LIBRARY + "replace_steps.py",
        "await run_steps(self._reactor, [*steps, sync])",
        "await run_steps(self._reactor, steps)",
        REPLACE,
    ),
    Mutant(
        "a journal that was removed may come back",
        LIBRARY + "replace_journal.py",
        "        Step(operations.fsync(dir_fd), home.directory),\n",
        "",
        REPLACE,
    ),
    Mutant(
        "a torn journal is believed",
        LIBRARY + "recovery.py",
        "return crc == record.crc32c",
        "return True",
        RECOVERY,
    ),
    Mutant(
        "a journal of another file is believed",
        LIBRARY + "recovery.py",
        "if record is not None and record.identity != journal.home.identity:",
        "if False:",
        RECOVERY,
    ),
    Mutant(
        "recovery writes before the journal is durable",
        LIBRARY + "recovery.py",
        "        await _make_durable(reactor, journal)\n",
        "",
        ("tests/uringio/trio/test_replace_power_cuts.py",),
    ),
    Mutant(
        "recovery believes a journal of the page cache",
        LIBRARY + "recovery.py",
        "            forget_clean_pages(fd)\n",
        "",
        ("tests/uringio/trio/test_bad_disks.py",),
    ),
    Mutant(
        "recovery removes a journal before the range is durable",
        LIBRARY + "recovery.py",
        "Step(operations.fsync(fd, data_only=True), file.path)",
        "",
        RECOVERY,
    ),
)
