"""Looks at a data set before anything is converted: what is there, what was expected, what is
wrong, and what to do about it.
"""

from segweave.data.check.fix import fix, log_of
from segweave.data.check.report import CheckReport, Problem
from segweave.data.check.run import check

__all__ = ["CheckReport", "Problem", "check", "fix", "log_of"]
