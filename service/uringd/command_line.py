"""What all commands share: how addresses and tokens are read, how errors and exit codes are told.

Errors are one sentence on stderr, never a traceback. Exit codes: 0 done, 1 `conformance`: a case
failed, 2 usage, 3 refused by the server, 4 no connection or none any more, 5 a local error or
`verify`: a file is not as it was published, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uringd.errors import ClientError, ConnectionLostError, RefusedError
from uringd.groups import main_reason
from uringd.urls import BadUrlError, Url, parse_url
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
            # Ctrl-C ends a wait, and not half of a step between two.
            options = {"restrict_keyboard_interrupt_to_checkpoints": True}
            anyio.run(main, backend="trio", backend_options=options)
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
    except KeyboardInterrupt as exc:
        what = exc.args[0] if exc.args else "nothing was published"
        die(EXIT_INTERRUPTED, f"interrupted; {what}")


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
