"""MERIT's sum over all combinations of several outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from torch import Tensor, nn

from segweave import registry
from segweave.data.specs import TargetSpec
from segweave.errors import UsageError, nearest
from segweave.networks.base import Output
from segweave.registry import LossCard

CARD = LossCard(
    name="mutation",
    title="Sum of a loss over all combinations of several outputs",
    entry="MutationLoss",
    paper="Rahman and Marculescu, MERIT, MIDL 2023 (MUTATION)",
    reads="all",
)
_MOST = 6


class MutationLoss(nn.Module):
    """Σ over the non-empty subsets S of the outputs of loss(Σ_{i∈S} output_i, label): n outputs
    give 2ⁿ − 1 terms.

    Args:
        target: what the classes are.
        outputs: names of two to six outputs; None for all auxiliary outputs of the network.
        terms: the inner loss, names of losses that read one map with their weights. MERIT takes
            0.3 cross-entropy and 0.7 Dice.
    """

    def __init__(
        self,
        target: TargetSpec,
        *,
        outputs: Sequence[str] | None = None,
        terms: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        weights = dict(terms) if terms is not None else {"cross-entropy": 0.3, "dice": 0.7}
        for name in weights:
            if registry.losses.card(name).reads != "map":
                raise UsageError(
                    "creating the loss 'mutation'",
                    expected="terms that read one map",
                    found=f"{name!r}, which reads all outputs",
                )
        self.outputs = None if outputs is None else tuple(outputs)
        self.weights = tuple(weights.values())
        self.losses = nn.ModuleList(registry.losses.entry(name)(target) for name in weights)

    def forward(self, output: Output, label: Tensor) -> Tensor:
        """The network's output and the label (B, H, W) → a number."""
        maps = {"logits": output.logits, **output.auxiliary}
        names = self.outputs if self.outputs is not None else tuple(output.auxiliary)
        for name in names:
            if name not in maps:
                raise UsageError(
                    "computing the loss 'mutation'",
                    found=f"the network has no output {name!r}",
                    remedy=nearest(name, maps),
                )
        if not 2 <= len(names) <= _MOST:
            raise UsageError(
                "computing the loss 'mutation'",
                expected=f"from 2 to {_MOST} outputs",
                found=", ".join(names) or "no auxiliary output",
                remedy="name them in options.outputs",
            )
        total = output.logits.new_zeros(())
        for size in range(1, len(names) + 1):
            for chosen in combinations(names, size):
                mixed = sum((maps[name] for name in chosen[1:]), start=maps[chosen[0]])
                for weight, loss in zip(self.weights, self.losses, strict=True):
                    total = total + weight * loss(mixed, label)
        return total
