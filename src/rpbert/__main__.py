"""``python -m rpbert``: the command line."""

from rpbert.cli import main

main()
