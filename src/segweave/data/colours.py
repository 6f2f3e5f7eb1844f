"""The colour of each class, in overlays and figures alike."""

from __future__ import annotations

from segweave.data.specs import TargetSpec

PALETTE = ("#e69f00", "#009e73", "#56b4e9", "#cc79a7", "#d55e00", "#f0e442", "#0072b2", "#999999")
"""Okabe and Ito's colours, which people with any colour vision can tell apart."""


def class_colours(target: TargetSpec) -> dict[int, str]:
    """Label id → colour of every foreground class: the target's own, else from `PALETTE`."""
    own = target.colours
    if own is None and target.kind == "binary":
        # Skin and mucosa are warm: blue stands out there.
        return {1: PALETTE[2]}
    if own is None:
        return {label: PALETTE[k % len(PALETTE)] for k, label in enumerate(target.foreground)}
    # A binary target may have one name alone, that of its foreground (label 1).
    return {label: own[min(label, len(own) - 1)] for label in target.foreground}
