"""``python -m inkbatch``."""

from inkbatch.cli import main

main()
