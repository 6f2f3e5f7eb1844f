"""Pure functions on arrays: overlap, surface distances, soft maps, objects, calibration, images."""

from segweave.metrics.area import AreaDistances, area_distances
from segweave.metrics.compute import (
    POLICIES,
    EmptyPolicy,
    LabelPair,
    compute_metric,
    diagonal,
    get_policy,
)
from segweave.metrics.objects import ObjectScores, connected_objects, object_scores
from segweave.metrics.overlap import Confusion, confusion
from segweave.metrics.surface import SurfaceDistances, surface_distances

__all__ = [
    "POLICIES",
    "AreaDistances",
    "Confusion",
    "EmptyPolicy",
    "LabelPair",
    "ObjectScores",
    "SurfaceDistances",
    "area_distances",
    "compute_metric",
    "confusion",
    "connected_objects",
    "diagonal",
    "get_policy",
    "object_scores",
    "surface_distances",
]
