"""The method, said before the numbers and kept with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.harness.contenders import CONTENDERS
from bench.harness.figures import GIB, MIB

if TYPE_CHECKING:
    from bench.harness.environment import Environment
    from bench.harness.results import Settings


def size_text(length: int) -> str:
    """Say a number of bytes as people do: 2 GiB, 512 MiB, 64 KiB."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")):
        if length >= unit:
            return f"{length / unit:.1f} {name}".replace(".0 ", " ")
    return f"{length} bytes"


def rounds_text(rounds: int) -> str:
    """Say a number of rounds."""
    return "1 round" if rounds == 1 else f"{rounds} rounds"


def method_lines(settings: Settings, environment: Environment) -> list[str]:
    """One sentence a line."""
    memory = "; then all free memory is filled with page cache" * (settings.memory == "in-use")
    text = f"""
Each run writes {size_text(settings.size_bytes)} in {size_text(settings.block_bytes)} blocks to a \
new file on {environment["file_system"]}, up to {settings.depth} writes in flight where one can \
choose.
{rounds_text(settings.rounds)}: every contender runs once a round, each round begins with another \
one, every run is a process of its own.
Before a run the last file is removed, everything is synced, and the device is waited for until \
it rests{memory}.
Ratios are taken within a round, then the median over the rounds; below it the lowest and highest.
CPU is user and system time of the process with its io-wq workers (of an upload: of the daemon; of \
fio: less its start-up); kernel threads of the whole machine (write-back, journal) are in a column \
of their own.
Content is random and known: every file but fio's is read back once and its checksum compared.
"""
    lines = text.strip().splitlines()
    for name in settings.contenders:
        contender = CONTENDERS[name]
        lines.append(f"{name}: {contender.title}; time: {contender.timed}; {contender.durable}.")
    return lines


def environment_lines(environment: Environment) -> list[str]:
    """Say what the figures were measured on, without a word about where it stands."""
    said = environment
    memory = size_text(int(said["memory_bytes"]))
    disk = [f"{said['file_system']} ({said['mount_options']})", f"on {said['device']}"]
    if "device_model" in said:
        disk.append(
            f"({said['device_model']}, {said['write_cache']} cache, {said['scheduler']} scheduler, "
            f"requests up to {said['request_kib_max']} KiB in {said['segments_max']} segments)"
        )
    text = f"""
{said["date"]}, {said["kernel"]}, {said["cpu_count"]} CPUs ({said["cpu"]}, governor \
{said["governor"]}), {memory} of memory, huge pages: {said["huge_pages"]}, load {said["load"]}.
{" ".join(disk)}.
Python {said["python"]}, trio {said["trio"]}, cffi {said["cffi"]}, liburing {said["liburing"]}, \
{said["fio"]}, uringio {said["uringio"]} (commit {said["commit"]}).
"""
    return text.strip().splitlines()
