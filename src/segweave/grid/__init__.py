"""A grid: recipes × context modules × seeds × folds, trained and scored as one job that can be
stopped and continued.
"""

from segweave.grid.plan import GridPlan, GridRun, plan_grid
from segweave.grid.progress import Report, RunEvent
from segweave.grid.reading import Grid, GridContext, GridRecipe, load_grid
from segweave.grid.run_grid import GridDone, in_words, run_grid
from segweave.grid.runners import Job, LocalProcesses, Runner

__all__ = [
    "Grid",
    "GridContext",
    "GridDone",
    "GridPlan",
    "GridRecipe",
    "GridRun",
    "Job",
    "LocalProcesses",
    "Report",
    "RunEvent",
    "Runner",
    "in_words",
    "load_grid",
    "plan_grid",
    "run_grid",
]
