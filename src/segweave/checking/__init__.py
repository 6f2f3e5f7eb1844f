"""Looks at a data set before anything is converted: what is there, what was expected, what is
wrong, and what to do about it.
"""

from segweave.checking.check import check
from segweave.checking.fix import fix, log_of
from segweave.checking.report import CheckReport, Problem

__all__ = ["CheckReport", "Problem", "check", "fix", "log_of"]
