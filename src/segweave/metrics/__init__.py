"""Pure functions on arrays: overlap, surface distances, soft maps, objects, calibration, images."""

from segweave.metrics.accumulate import Accumulator
from segweave.metrics.area import AreaDistances, area_distances
from segweave.metrics.empties import POLICIES, EmptyPolicy, diagonal, get_policy
from segweave.metrics.objects import ObjectScores, connected_objects, object_scores
from segweave.metrics.overlap import Confusion, confusion
from segweave.metrics.surface import SurfaceDistances, surface_distances

__all__ = [
    "POLICIES",
    "Accumulator",
    "AreaDistances",
    "Confusion",
    "EmptyPolicy",
    "ObjectScores",
    "SurfaceDistances",
    "area_distances",
    "confusion",
    "connected_objects",
    "diagonal",
    "get_policy",
    "object_scores",
    "surface_distances",
]
