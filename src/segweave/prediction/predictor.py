"""Trained networks as values: one, or several averaged, and how they predict a case."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from segweave.data.case import Case
from segweave.data.specs import InputSpec, TargetSpec
from segweave.errors import UsageError
from segweave.prediction.flips import Flips, check_flips
from segweave.prediction.session import Member, Prediction, Session
from segweave.prediction.tiles import Tiles
from segweave.recipes.recipe import Precision

_IDENTITY = ("title", "arm", "weights_sha256")


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network, the specification of its input, and what its outputs mean.

    Attributes:
        network: a woven network, or any module (B, channels, height, width) → logits (B, classes,
            height, width). Predictions run on the device of its parameters.
        input: how a case's slices become the network's input.
        target: what the classes are.
        card: the model card, empty where there is none.
        precision: "32", or "bf16" for bfloat16 autocast, which is faster where the device
            multiplies in it and may change a few labels at edges.
    """

    network: nn.Module
    input: InputSpec
    target: TargetSpec
    card: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "32"

    def session(self) -> Session:
        """The network made ready once for many cases; a server keeps it."""
        member = Member(self.network, self.input, self.precision)
        return Session((member,), self.target, self.card)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The mean of the members' probabilities on the case's own grid, decided once.

    Attributes:
        members: at least one predictor. Networks and InputSpecs may differ, targets may not
            (colours aside).
        flips: mirror images that are predicted too.
        tiles: read images in tiles at their own resolution.

    Raises UsageError without members, and where their targets differ.
    """

    members: tuple[Predictor, ...]
    flips: Flips = "none"
    tiles: Tiles | None = None

    def __post_init__(self) -> None:
        doing = "averaging predictions"
        check_flips(self.flips)
        if not self.members:
            raise UsageError(doing, expected="at least one model", found="none")
        for number, member in enumerate(self.members[1:], start=2):
            differing = target_differences(self.target, member.target)
            if differing:
                raise UsageError(
                    doing,
                    expected="models of the same classes",
                    found=f"in number {number}, compared with the first: {differing}",
                )

    @property
    def target(self) -> TargetSpec:
        """What the classes are, with the first member's colours."""
        return self.members[0].target

    @property
    def card(self) -> dict[str, Any]:
        """What summaries report about the model."""
        options: dict[str, Any] = {"flips": self.flips}
        if self.tiles is not None:
            options["tiles"] = {"size": self.tiles.size, "overlap": self.tiles.overlap}
        cards = [{k: m.card[k] for k in _IDENTITY if k in m.card} for m in self.members]
        if len(cards) == 1:
            return cards[0] | options
        return {"title": f"the mean of {len(cards)} models", "members": cards} | options

    def session(self) -> Session:
        """The networks made ready once for many cases."""
        members = [Member(m.network, m.input, m.precision) for m in self.members]
        return Session(members, self.target, self.card, flips=self.flips, tiles=self.tiles)


def predict(
    predictor: Predictor | Ensemble, case: Case, *, probabilities: bool = False
) -> Prediction:
    """Segment one case slice by slice.

    Args:
        predictor: what `load` returned, or an Ensemble.
        case: the image, in the source's own values.
        probabilities: also return the probabilities of the whole case.

    The probabilities of a slice are brought to the case's own grid, where `decide` makes the
    labels. For many cases, `predictor.session()` makes the network ready once. Raises InputError
    for a case that does not fit the InputSpec. Example:

        >>> from segweave import load, predict
        >>> from segweave.formats import read_case
        >>> case = read_case("scan.nii.gz")
        >>> predict(load("runs/a", device="cpu"), case).labels.shape == (case.slices, *case.size)
        True
    """
    return predictor.session().predict(case, probabilities=probabilities)


def target_differences(target: TargetSpec, other: TargetSpec) -> str:
    """How `other` differs from `target` in what its classes mean, colours aside; "" if nowhere."""
    first, second = (t.model_dump(exclude={"colours"}) for t in (target, other))
    return "; ".join(
        f"{key} is {second[key]}, not {value}"
        for key, value in first.items()
        if second[key] != value
    )
