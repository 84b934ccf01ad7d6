"""`python -m uringd` is the command line."""

from uringd.cli import main

main()
