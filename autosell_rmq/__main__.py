"""``python -m autosell_rmq``."""

from autosell_rmq.cli import main

main()
