"""A time within which a training has to end."""

from __future__ import annotations

import time
from collections.abc import Callable

_REPORT = 5.0  # seconds for the model and the report


class TimeLimit:
    """Ends a training behind the epoch after which no further one would fit.

    The time runs from construction, so that reading the data counts; that of earlier sessions of
    the same training is added when it is resumed.

    Args:
        seconds: of the whole training, > 0.
        clock: seconds from anywhere.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._began = self._epoch_began = clock()
        self._longest_epoch = self._longest_scoring = 0.0

    def begin(self, earlier: float) -> None:
        """The first step begins; `earlier` are seconds of earlier sessions."""
        self._began -= earlier
        self._epoch_began = self._clock()

    def epoch_ended(self) -> str:
        """Why the training has to end now, empty where another epoch fits; called before the epoch
        is scored.
        """
        now = self._clock()
        self._longest_epoch = max(self._longest_epoch, now - self._epoch_began)
        self._epoch_began = now
        # This epoch and the next are scored, and the report predicts the validation cases again.
        rest = self._longest_epoch + 3 * self._longest_scoring + _REPORT
        if now - self._began + rest <= self.seconds:
            return ""
        return f"no time for another epoch within {self.seconds / 3600:.4g} h"

    def scored(self, seconds: float) -> None:
        """Scoring took so long."""
        self._longest_scoring = max(self._longest_scoring, seconds)
