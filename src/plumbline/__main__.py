"""``python -m plumbline``: what the command does, for launchers that want a module."""

from plumbline.cli import main

main()
