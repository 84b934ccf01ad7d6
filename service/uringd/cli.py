"""The command line, put together: see `command_line` for what its exit codes mean."""

from __future__ import annotations

import click

from uringd import __version__
from uringd.client_commands import abort, conformance, ls, put, stat
from uringd.command_line import EXIT_INTERRUPTED, Commands, die
from uringd.server_commands import doctor, serve, verify


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


for command in (serve, put, ls, stat, abort, verify, doctor, conformance):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    try:
        cli(prog_name="uringd")
    except KeyboardInterrupt:
        die(EXIT_INTERRUPTED, "interrupted")
