"""``python -m flows`` is ``mmearth``."""

from flows.cli import main

main()
