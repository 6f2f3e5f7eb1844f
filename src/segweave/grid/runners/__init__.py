"""How the jobs of a grid are run: one file per way. Here: processes of this machine."""

from segweave.grid.runners.base import Job, Runner, failure
from segweave.grid.runners.local import LocalProcesses

__all__ = ["Job", "LocalProcesses", "Runner", "failure"]
