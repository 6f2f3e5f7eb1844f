"""Runs the command: `python -m segweave` is `segweave`."""

from __future__ import annotations

from segweave.cli import main

main()
