"""How long work reports how far it is: one shape of callback for the whole library."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by long work; who shows it (a bar of the command, a page) is the caller's business."""

    def __call__(self, done: float, total: float, name: str) -> None:
        """Report progress.

        Args:
            done: how much is done, in the unit of `total` (cases, files, steps).
            total: how much there is in all.
            name: what is being worked on (a case, a file), empty at the end.
        """
