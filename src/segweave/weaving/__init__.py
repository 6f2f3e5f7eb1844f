"""Weaving: the one package where networks and context modules meet."""

from __future__ import annotations

from segweave.weaving.factory import POSITIONS, weave
from segweave.weaving.slices import volume_outputs
from segweave.weaving.woven import SlicePrepared, WovenNetwork

__all__ = ["POSITIONS", "SlicePrepared", "WovenNetwork", "volume_outputs", "weave"]
