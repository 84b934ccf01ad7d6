"""Commands of who runs a server: `uringd serve`, `verify` and `doctor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from uringd.command_line import EXIT_LOCAL, URL, die, json_option, read_token, token_option
from uringd.config import BOUNDS, SLOT_BYTES_DEFAULT, Settings
from uringd.config_file import ConfigError, load
from uringd.urls import TcpUrl, Url


class WorkersType(click.ParamType):  # type: ignore[type-arg]  # generic in click 8.4 only
    """A number of workers, or `auto`."""

    name = "integer|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or say what would be right."""
        least, most = BOUNDS["workers"]
        if value == "auto":
            return min(len(os.sched_getaffinity(0)), int(most))
        return int(click.IntRange(least, most).convert(value, param, ctx))


WORKERS = WorkersType()


@click.command()
@click.option(
    "--root", required=True, type=click.Path(path_type=Path), help="Directory to publish into."
)
@click.option(
    "--listen",
    "urls",
    multiple=True,
    type=URL,
    help="Address to listen on, again for more. Port 0 is any free one.  [tcp://127.0.0.1:7433]",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "io_uring", "threads"]),
    default="auto",
    show_default=True,
    help="auto falls back to threads and says so; io_uring refuses to start without.",
)
@click.option(
    "--workers",
    type=WORKERS,
    help="Processes, each with a ring and a pool, for many uploads where one core is too little;"
    " auto is one for each core.  [default: 1]",
)
@click.option(
    "--slots",
    type=click.IntRange(*BOUNDS["slots"]),
    help="Slots of the pool.  [default: 16, or what memory allows]",
)
@click.option(
    "--slot-bytes",
    type=click.IntRange(*BOUNDS["slot_bytes"]),
    help=f"Bytes of one slot, and so of the longest chunk.  [default: {SLOT_BYTES_DEFAULT}]",
)
@click.option(
    "--spool-max",
    "spool_bytes_max",
    type=int,
    help="Bytes that all unfinished uploads may hold.  [default: what the disk has]",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with more settings: limits, timeouts, expiry. See uringd/config.py.",
)
@token_option
@click.option("--insecure", is_flag=True, help="Listen beyond loopback without a token.")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    show_default=True,
    help="auto is readable on a terminal, JSON otherwise.",
)
def serve(
    root: Path,
    urls: tuple[Url, ...],
    backend: str,
    workers: int | None,
    slots: int | None,
    slot_bytes: int | None,
    spool_bytes_max: int | None,
    config_file: Path | None,
    token_file: Path | None,
    insecure: bool,  # noqa: FBT001  # a flag of the command line
    log_format: str,
) -> None:
    """Serve uploads into a directory until SIGTERM or Ctrl-C.

    Prints "listening URL" on stdout for each address when it is ready; logs go to stderr. The first
    signal lets unfinished uploads finish for 30 s, a second one parks them (a client that can
    resume goes on at the next start), a third one waits for nothing. With several workers SIGHUP
    replaces them one after the other, and refuses nobody meanwhile.
    """
    from uringd import serving  # noqa: PLC0415  # the ring is not for clients

    said = {
        "workers": workers,
        "slots": slots,
        "slot_bytes": slot_bytes,
        "spool_bytes_max": spool_bytes_max,
    }
    try:
        more: dict[str, Any] = load(config_file) if config_file else {}
        more |= {key: value for key, value in said.items() if value is not None}
        settings = Settings(
            root=root,
            listen=urls or (TcpUrl("127.0.0.1", 7433),),
            backend=backend,  # type: ignore[arg-type]  # click has checked it
            token=read_token(token_file),
            **more,
        )
    except (ConfigError, ValueError) as exc:
        raise click.UsageError(str(exc)) from exc
    open_to_all = [u for u in settings.listen if isinstance(u, TcpUrl) and not u.is_loopback]
    if open_to_all and not settings.token and not insecure:
        raise click.UsageError(
            f"{open_to_all[0]} is reachable from other machines: give --token-file FILE, "
            "or say --insecure"
        )
    error = serving.run(settings, log_format)  # type: ignore[arg-type]  # click has checked it
    if error:
        die(EXIT_LOCAL, error)


@click.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every file that has a receipt.")
@json_option
@click.option("--quiet", is_flag=True, help="Only what is not ok; no progress, no summary.")
def verify(
    root: Path, names: tuple[str, ...], *, everything: bool, as_json: bool, quiet: bool
) -> None:
    """Read published files of ROOT back from the disk and hold them against their receipts.

    NAMEs are as they were published, relative to ROOT. A server may run meanwhile; nothing is
    written. One line for each file: ok; corrupt (other bytes, though nobody wrote to it); changed
    (somebody did); missing; unknown (no receipt); unreadable. With --all a missing file is listed
    and is no failure: somebody removed it.

    Exit codes: 0 all is well, 2 usage, 5 a file is not as it was published, or cannot be told.
    """
    from uringd import verify_report  # noqa: PLC0415  # the ring is not for clients
    from uringd.catalog import CatalogError  # noqa: PLC0415
    from uringd.root import RootError  # noqa: PLC0415
    from uringio import UringioError  # noqa: PLC0415

    if everything == bool(names):
        raise click.UsageError("give the names of published files, or --all")
    try:
        all_well = verify_report.run(root, names, as_json=as_json, quiet=quiet)
    except BrokenPipeError:
        raise  # of stdout, as in `uringd verify | head`: click knows what to do
    except (RootError, CatalogError, UringioError, OSError) as exc:
        die(EXIT_LOCAL, str(exc))
    sys.exit(0 if all_well else EXIT_LOCAL)


@click.command()
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@json_option
def doctor(directory: Path, as_json: bool) -> None:  # noqa: FBT001
    """Say what this machine and DIRECTORY offer, and what mends what is missing."""
    from uringd import doctoring  # noqa: PLC0415

    error = doctoring.report(directory, as_json=as_json)
    if error:
        die(EXIT_LOCAL, error)
