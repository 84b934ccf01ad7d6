"""Commands that speak to a server: `uringd put`, `ls`, `stat`, `abort`, `conformance`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uringd.command_line import URL, json_option, read_token, run, token_option

if TYPE_CHECKING:
    from uringd.urls import Url


@click.command()
@click.argument("file")
@click.argument("url", type=URL)
@click.option("--name", help="Name to publish as, of the directory with --recursive.  [its own]")
@click.option(
    "--recursive",
    "-r",
    is_flag=True,
    help="FILE is a directory: upload all regular files below it, many at a time.",
)
@click.option("--lanes", type=click.IntRange(1, 64), default=1, help="Connections to use.")
@click.option(
    "--durability",
    type=click.Choice(["written", "durable", "published"]),
    default="published",
    show_default=True,
    help="What has to hold before the receipt.",
)
@click.option("--overwrite", is_flag=True, help="Replace a file of that name.")
@click.option(
    "--transport",
    type=click.Choice(["auto", "socket", "copy", "sealed", "slab"]),
    default="auto",
    show_default=True,
    help="How the bytes travel; the last three are by shared memory, over a Unix socket. "
    "auto is socket.",
)
@click.option(
    "--read-back",
    is_flag=True,
    help="With --transport slab: acknowledge only what was read from the disk again.",
)
@click.option(
    "--resume",
    metavar="ID",
    help="Go on with an upload that was cut off, from the same data.",
)
@click.option(
    "--retry-for",
    "retry_s",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to try again after a lost connection; progress starts it anew.  [300]",
)
@click.option(
    "--page-checksums",
    is_flag=True,
    help="Send again only the 64 KiB pages of a chunk that were damaged on the way.",
)
@token_option
@json_option
@click.option("--quiet", is_flag=True, help="No progress.")
def put(file: str, url: Url, recursive: bool, **options: Any) -> None:  # noqa: FBT001
    """Upload FILE (or - for standard input) to the server at URL and print the receipt.

    The file appears whole under its name, or not at all. A connection that breaks is made again and
    the upload goes on; after an exit code of 4 the sentence on stderr names the command that does.
    With --json the receipt is one object on the last line of stdout.

    With --recursive files appear as they come, each whole; what is there already with the same
    content is left alone, so that it can be run again. Links and special files are skipped.
    """
    from uringd import putting  # noqa: PLC0415

    if options["name"] == "":
        raise click.UsageError("--name is empty: give a name, or leave --name out")
    if file == "-" and not options["name"] and not options["resume"]:
        raise click.UsageError("standard input has no name: give --name NAME")
    if options["read_back"] and options["transport"] != "slab":
        raise click.UsageError("--read-back is for --transport slab")
    if recursive and (file == "-" or options["resume"]):
        raise click.UsageError("--recursive takes a directory, and needs no --resume: run it again")
    options["token"] = read_token(options.pop("token_file"))
    chosen = putting.Options(**options)
    if not recursive:
        run(lambda: putting.put(file, url, chosen))
        return
    from uringd import putting_tree  # noqa: PLC0415

    codes: list[int] = []

    async def put_tree() -> None:
        codes.append(await putting_tree.put_tree(file, url, chosen))

    run(put_tree)
    sys.exit(codes[0])


@click.command()
@click.argument("url", type=URL)
@click.argument("prefix", default="")
@click.option("--uploads", is_flag=True, help="Unfinished uploads instead of files.")
@token_option
@json_option
def ls(url: Url, prefix: str, uploads: bool, token_file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """List published files, or unfinished uploads, whose names begin with PREFIX."""
    from uringd import asking  # noqa: PLC0415

    token = read_token(token_file)
    run(lambda: asking.ls(url, prefix, token, uploads=uploads, as_json=as_json))


@click.command()
@click.argument("url", type=URL)
@click.argument("subject")
@token_option
@json_option
def stat(url: Url, subject: str, token_file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Say what is known of SUBJECT: a published file's name, or an unfinished upload's id."""
    from uringd import asking  # noqa: PLC0415

    token = read_token(token_file)
    run(lambda: asking.stat(url, subject, token, as_json=as_json))


@click.command()
@click.argument("url", type=URL)
@click.argument("upload_id")
@token_option
@json_option
def abort(url: Url, upload_id: str, token_file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Throw the unfinished upload UPLOAD_ID away."""
    from uringd import asking  # noqa: PLC0415

    if not asking.is_upload_id(upload_id):
        raise click.UsageError(
            f"{upload_id!r} is no upload's id: `uringd ls URL --uploads` has them"
        )
    token = read_token(token_file)
    run(lambda: asking.abort(url, upload_id, token, as_json=as_json))


@click.command()
@click.argument("url", type=URL, required=False)
@click.option("--case", "ids", multiple=True, metavar="ID", help="This case only; again for more.")
@click.option("--list", "show_list", is_flag=True, help="Print the cases and run none.")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 3600),
    default=15.0,
    show_default=True,
    metavar="S",
    help="Longest wait for the server, in seconds, each time.",
)
@click.option(
    "--server-pid",
    type=click.IntRange(1),
    metavar="PID",
    help="Also run the cases of SHUTDOWN: they end the server by SIGTERM.",
)
@token_option
@json_option
def conformance(url: Url | None, show_list: bool, token_file: Path | None, **options: Any) -> None:  # noqa: FBT001
    """Say whether the server at URL keeps the protocol, rule by rule.

    Cases that need what the server does not offer are skipped, with the reason. Names are below
    conformance-<hex>/, and unfinished uploads are aborted; the protocol cannot delete what is
    published, so that six files of at most 1 MiB stay there. Run it against a server that nobody
    else uses: one case takes all its connections for a moment.

    Exit codes: 0 every case passed or was skipped, 1 a case failed, 2 usage, 3 the token was not
    taken, 4 nobody there, 5 the JUnit file could not be written.
    """
    from uringd.conformance import command  # noqa: PLC0415

    try:
        cases = command.chosen(options["ids"])
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    if show_list:
        command.show(cases, as_json=options["as_json"])
        return
    if url is None:
        raise click.UsageError("give the server's URL, or --list")
    chosen = command.Options(token=read_token(token_file), **options)
    codes: list[int] = []

    async def conform() -> None:
        codes.append(await command.conform(url, chosen, cases))

    run(conform)
    sys.exit(codes[0])
