"""Who takes part. Everything a table or the method says about a contender stands here.

A contender's `run` names the function that measures it, as "module:function": the child that runs
it imports that module and no other, so that its memory is its own.
"""

from __future__ import annotations

from dataclasses import dataclass

FIO = "fio"
OS_WRITE = "os-write"
THREADS = "uringio-threads"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to get bytes onto the disk.

    `durable` says what holds when its time ends, `timed` from where to where that time is.
    `checked` says that the content of its file is known. Who `uploads` needs a source file and a
    second copy's space. Who is `optional` runs when asked for.
    """

    name: str
    title: str
    run: str
    timed: str
    durable: str
    checked: bool = True
    uploads: bool = False
    optional: bool = False


IN_PROCESS = "create to commit"
UPLOADED = "CREATE to receipt, as the server measures"

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(
            FIO,
            "fio io_uring, O_DIRECT, QD16",
            "bench.harness.fio:fresh_file",
            "its own runtime, with end_fsync, without start, creation and fallocate",
            "file fsynced",
            checked=False,
        ),
        Contender(
            "uringio-slots",
            "uringio, slots, size known",
            "bench.harness.library:slots_sized",
            IN_PROCESS,
            "file fsynced, renamed, directory fsynced",
        ),
        Contender(
            "uringio-unsized",
            "uringio, slots, size unknown",
            "bench.harness.library:slots_unsized",
            IN_PROCESS,
            "file fsynced, renamed, directory fsynced",
        ),
        Contender(
            "uringio-write",
            "uringio, write(data), copied",
            "bench.harness.library:write_copy",
            IN_PROCESS,
            "file fsynced, renamed, directory fsynced",
        ),
        Contender(
            "uringd-tcp",
            "uringd put, TCP loopback",
            "bench.harness.upload:over_tcp",
            UPLOADED,
            "file fsynced, renamed, directory fsynced",
            uploads=True,
        ),
        Contender(
            "uringd-unix",
            "uringd put, Unix socket",
            "bench.harness.upload:over_unix",
            UPLOADED,
            "file fsynced, renamed, directory fsynced",
            uploads=True,
        ),
        Contender(
            OS_WRITE,
            "os.write + fsync",
            "bench.harness.plain:os_write",
            "open to close",
            "file fsynced",
        ),
        Contender(
            "os-pwrite-direct",
            "os.pwrite, O_DIRECT, one at a time",
            "bench.harness.plain:pwrite_direct",
            "open to close",
            "file fsynced",
            optional=True,
        ),
        Contender(
            THREADS,
            "uringio, slots, thread ring",
            "bench.harness.library:slots_threads",
            IN_PROCESS,
            "file fsynced, renamed, directory fsynced",
            optional=True,
        ),
    )
}

REFERENCES = (FIO, OS_WRITE)
"""What ratios are given over."""
