"""Evaluations made of numbers, without images: group × seed × case × class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from segweave.evaluation import Evaluation, Manifest, Row, Score, write_evaluation

Dice = Callable[[int, int], float]
"""Group and seed → Dice."""


def evaluation(
    out: Path,
    arm: str,
    dice: Dice,
    *,
    groups: Sequence[int] = range(8),
    seed: int | None = 0,
    fold: int | None = None,
    checkpoint: str | None = "last",
    extra: Sequence[Row] = (),
    **fields: object,
) -> Evaluation:
    """One run whose groups have one case each, with `dice(group, seed)`."""
    rows = [
        Row(
            f"case {g:02}",
            f"patient {g:02}",
            Score(None, "organ", "dice", dice(g, seed or 0)),
            arm,
            seed,
            fold,
        )
        for g in groups
    ]
    manifest = Manifest(
        protocol="clean",
        title="as said",
        means="over groups",
        definitions={"dice": "2·TP / (2·TP + FP + FN)"},
        classes=["organ"],
        checkpoint=checkpoint,
    ).model_copy(update=fields)
    return write_evaluation(out, [*rows, *extra], manifest)


def arms(
    folder: Path,
    dice: dict[str, Dice],
    *,
    seeds: Sequence[int | None] = (0, 1, 2),
    groups: Sequence[int] = range(8),
    **fields: object,
) -> list[Evaluation]:
    """Every arm with every seed."""
    return [
        evaluation(
            folder / f"{arm}-{seed}",
            arm,
            function,
            groups=groups,
            seed=seed,
            **fields,  # type: ignore[arg-type]
        )
        for arm, function in dice.items()
        for seed in seeds
    ]


def level(group: int, seed: int) -> float:
    """A reference: groups differ, seeds a little."""
    return 0.5 + 0.02 * (group % 20) + 0.003 * ((group * 7 + seed * 5) % 4)


def shifted(by: float, noise: float = 0.002) -> Dice:
    """The reference moved, with some noise of group, seed and both."""

    def dice(group: int, seed: int) -> float:
        own = ((group * 5 + 3) % 7 - 3) + ((seed * 3 + 1) % 4 - 1.5) + (group * 3 + seed) % 5 - 2
        return level(group, seed) + by + noise * own

    return dice
