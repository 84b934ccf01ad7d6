"""The command line: `uringd serve`, `put`, `ls`, `stat`, `abort`, `doctor`, `conformance`.

Errors are one sentence on stderr, never a traceback. Exit codes: 0 done, 1 `conformance`: a case
failed, 2 usage, 3 refused by the server, 4 no connection or none any more, 5 a local error, 130
interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uringd import __version__
from uringd.config import BOUNDS, SLOT_BYTES_DEFAULT, Settings
from uringd.config_file import ConfigError, load
from uringd.errors import ClientError, ConnectionLostError, RefusedError
from uringd.groups import main_reason
from uringd.urls import BadUrlError, TcpUrl, Url, parse_url
from uringd.wire import TOKEN_BYTES_MAX, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

EXIT_USAGE, EXIT_REFUSED, EXIT_CONNECTION, EXIT_LOCAL, EXIT_INTERRUPTED = 2, 3, 4, 5, 130


class UrlType(click.ParamType):  # type: ignore[type-arg]  # generic in click 8.4 only
    """A command line word that is a server's address."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Url:
        """Read it, or say what would be right."""
        try:
            return parse_url(str(value))
        except BadUrlError as exc:
            self.fail(str(exc), param, ctx)


URL = UrlType()


def read_token(path: Path | None) -> str:
    """Read a token file: its first line. An empty one would let everybody in."""
    if path is None:
        return ""
    try:
        lines = path.read_text(encoding="utf-8").strip().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        die(EXIT_LOCAL, f"cannot read the token file {path}: {reason}")
    if not lines:
        die(EXIT_LOCAL, f"the token file {path} is empty: put a long random word into it")
    token: str = lines[0]
    if len(token.encode()) > TOKEN_BYTES_MAX:
        die(EXIT_LOCAL, f"the token in {path} is longer than {TOKEN_BYTES_MAX} bytes: shorten it")
    return token


def die(code: int, text: str) -> Any:
    """Leave with one sentence on stderr."""
    click.echo(f"uringd: {text}", err=True)
    sys.exit(code)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a client command; turn its errors into a sentence and an exit code."""
    import anyio  # noqa: PLC0415  # not for --help

    try:
        try:
            anyio.run(main, backend="trio")
        except BaseExceptionGroup as group:  # what interrupts a connect comes wrapped by anyio
            raise main_reason(group) from group
    except RefusedError as exc:
        die(EXIT_REFUSED, str(exc))
    except ConnectionLostError as exc:
        unfinished = f"; the upload was {exc.upload_id}" if exc.upload_id else ""
        die(EXIT_CONNECTION, f"{exc}{unfinished}")
    except (LocalProtocolError, UnicodeEncodeError) as exc:
        die(EXIT_USAGE, f"this cannot be sent: {exc}")
    except BrokenPipeError:
        raise  # of stdout, as in `uringd ls | head`: click knows what to do
    except (ClientError, OSError) as exc:
        die(EXIT_LOCAL, str(exc))
    except KeyboardInterrupt:
        die(EXIT_INTERRUPTED, "interrupted; nothing was published")


class Commands(click.Group):
    """The commands: Ctrl-C at any moment is a sentence and 130, while they still import too."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            die(EXIT_INTERRUPTED, "interrupted")


token_option = click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="URINGD_TOKEN_FILE",
    help="File with the shared secret (also URINGD_TOKEN_FILE).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="uringd")
def cli() -> None:
    """Take large uploads and write them durably at the speed of the disk.

    A server is an address: tcp://HOST:PORT or unix:///path/to/socket.

    \b
    Try it:
      uringd serve --root /srv/files --listen unix:///tmp/uringd.sock
      uringd put big.iso unix:///tmp/uringd.sock
      tar c DIR | uringd put - unix:///tmp/uringd.sock --name dir.tar
      uringd ls unix:///tmp/uringd.sock
    """  # noqa: D301  # \b is for click: the lines below stay as they are


@cli.command()
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
    type=click.IntRange(1, 1),
    default=1,
    show_default=True,
    help="Processes; one is what there is so far.",
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
    workers: int,  # noqa: ARG001  # one so far
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
    signal lets unfinished uploads finish for 30 s, a second one ends them.
    """
    from uringd import serving  # noqa: PLC0415  # the ring is not for clients

    said = {"slots": slots, "slot_bytes": slot_bytes, "spool_bytes_max": spool_bytes_max}
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


@cli.command()
@click.argument("file")
@click.argument("url", type=URL)
@click.option("--name", help="Name to publish as.  [the file's own]")
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
    help="How the bytes travel; the last three are for shared memory.",
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
def put(file: str, url: Url, **options: Any) -> None:
    """Upload FILE (or - for standard input) to the server at URL and print the receipt.

    The file appears whole under its name, or not at all. A connection that breaks is made again and
    the upload goes on; after an exit code of 4 the sentence on stderr names the command that does.
    With --json the receipt is one object on the last line of stdout.
    """
    from uringd import putting  # noqa: PLC0415

    if options["name"] == "":
        raise click.UsageError("--name is empty: give a name, or leave --name out")
    if file == "-" and not options["name"] and not options["resume"]:
        raise click.UsageError("standard input has no name: give --name NAME")
    options["token"] = read_token(options.pop("token_file"))
    run(lambda: putting.put(file, url, putting.Options(**options)))


@cli.command()
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


@cli.command()
@click.argument("url", type=URL)
@click.argument("subject")
@token_option
@json_option
def stat(url: Url, subject: str, token_file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Say what is known of SUBJECT: a published file's name, or an unfinished upload's id."""
    from uringd import asking  # noqa: PLC0415

    token = read_token(token_file)
    run(lambda: asking.stat(url, subject, token, as_json=as_json))


@cli.command()
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


@cli.command()
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@json_option
def doctor(directory: Path, as_json: bool) -> None:  # noqa: FBT001
    """Say what this machine and DIRECTORY offer, and what mends what is missing."""
    from uringd import doctoring  # noqa: PLC0415

    error = doctoring.report(directory, as_json=as_json)
    if error:
        die(EXIT_LOCAL, error)


@cli.command()
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
    published, so that six files of at most 256 KiB stay there. Run it against a server that nobody
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


def main() -> None:
    """Run the command line."""
    try:
        cli(prog_name="uringd")
    except KeyboardInterrupt:
        die(EXIT_INTERRUPTED, "interrupted")
