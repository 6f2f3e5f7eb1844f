"""An ensemble: several trained networks read as one, with flips and tiles at test time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.prediction.flips import Flips, check_flips
from segweave.prediction.predictor import Predictor, load
from segweave.prediction.tiles import Tiles
from segweave.recipes.recipe import Precision


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The mean of the members' probabilities on the case's own grid, decided once.

    Members may differ in network and InputSpec. `flips` predicts mirror images too; `tiles` reads
    images in tiles at their own resolution. One member is enough for either. Raises UsageError
    without members, and where their targets differ (colours aside).
    """

    members: tuple[Predictor, ...]
    flips: Flips = "none"
    tiles: Tiles | None = None

    def __post_init__(self) -> None:
        doing = "averaging predictions"
        check_flips(self.flips)
        if not self.members:
            raise UsageError(doing, expected="at least one model", found="none")
        first = _meaning(self.members[0].target)
        for number, member in enumerate(self.members[1:], start=2):
            other = _meaning(member.target)
            differing = [key for key, value in first.items() if other[key] != value]
            if differing:
                raise UsageError(
                    doing,
                    expected="models of the same classes",
                    found="; ".join(
                        f"{key} {first[key]} in the first, {other[key]} in number {number}"
                        for key in differing
                    ),
                )

    @property
    def target(self) -> TargetSpec:
        """What the classes are, the first member's colours."""
        return self.members[0].target

    @property
    def card(self) -> dict[str, Any]:
        """What predictions say of the model that made them."""
        kept = ("title", "arm", "weights_sha256")
        made: dict[str, Any] = {"flips": self.flips}
        if self.tiles is not None:
            made["tiles"] = {"size": self.tiles.size, "overlap": self.tiles.overlap}
        if len(self.members) == 1:
            card = self.members[0].card
            return {key: card[key] for key in kept if key in card} | made
        members = [{k: m.card[k] for k in kept if k in m.card} for m in self.members]
        return {"title": f"the mean of {len(members)} models", "members": members} | made


def load_ensemble(
    paths: Sequence[str | Path],
    *,
    flips: Flips = "none",
    tiles: Tiles | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    precision: Precision = "32",
) -> Predictor | Ensemble:
    """`load` of each path, averaged. One path without flips and tiles is a plain Predictor."""
    members = tuple(
        load(path, checkpoint=checkpoint, device=device, precision=precision) for path in paths
    )
    if len(members) == 1 and flips == "none" and tiles is None:
        return members[0]
    return Ensemble(members, flips, tiles)


def _meaning(target: TargetSpec) -> dict[str, Any]:
    return target.model_dump(exclude={"colours"})
