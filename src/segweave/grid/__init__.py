"""A grid: recipes × seeds × folds, trained and scored as one job that goes on after a stop."""

from segweave.grid.plan import GridPlan, GridRun, plan_grid
from segweave.grid.reading import Grid, GridRecipe, load_grid
from segweave.grid.run_grid import GridDone, in_words, run_grid

__all__ = [
    "Grid",
    "GridDone",
    "GridPlan",
    "GridRecipe",
    "GridRun",
    "in_words",
    "load_grid",
    "plan_grid",
    "run_grid",
]
