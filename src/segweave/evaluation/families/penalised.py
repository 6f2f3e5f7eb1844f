"""As `clean`, but every class counts in every case: where it is missing on one side, Dice is 0 and
the distance the image's diagonal; on both, Dice is 1 and the distance 0.
"""

from __future__ import annotations

from segweave.evaluation.protocols import Protocol, clean

_METRICS = ("dice", "iou", "hd", "hd95", "asd", "asd-reverse", "assd")

penalised = Protocol(
    name="penalised",
    title=(
        "as clean, but every class counts in every case: missing on one side scores Dice 0 and the "
        "image's diagonal, on both Dice 1 and distance 0"
    ),
    definitions={
        metric: f"{clean.definitions[metric].partition(', where the class')[0]}; missing: by rule"
        for metric in _METRICS
    },
    means=clean.means,
    per=clean.per,
    empties="penalise",
    columns=clean.columns,
)

PROTOCOLS = (penalised,)
