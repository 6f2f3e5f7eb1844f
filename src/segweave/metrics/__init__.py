"""Pure functions on arrays: overlap and surface distances of label maps."""

from segweave.metrics.overlap import Confusion, confusion
from segweave.metrics.surface import SurfaceDistances, surface_distances

__all__ = ["Confusion", "SurfaceDistances", "confusion", "surface_distances"]
