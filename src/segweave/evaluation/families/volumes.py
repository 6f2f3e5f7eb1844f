"""Volumes as the released ACDC and Synapse evaluations score them: in voxels, and by a rule
where a side lacks the class.

Sources: the evaluation of the context modules' released code for ACDC; `utils.py` and `test.py` of
Beckschen/TransUNet (Apache-2.0) for Synapse, whose empty rules and distances are the same.
"""

from __future__ import annotations

from segweave.evaluation.protocols import Needs, Protocol

acdc = Protocol(
    name="published",
    title=(
        "as the released ACDC evaluation: first and last slice left out; a false alarm on an "
        "absent class scores 1, a class missed or in neither scores 0, both with distance 0"
    ),
    definitions={
        "dice": "2·TP / (2·TP + FP + FN) of the volume without its end slices",
        "hd95": "95th percentile of both directions pooled, in voxels (a slice step is 1)",
    },
    means="over volumes for each class, over classes",
    needs=Needs(decide_on="network", ends_left_out=1),
    empties="published",
    computed_by={"hd95": "hd95-pooled"},
    in_voxels=True,
    datasets=("acdc",),
    sources=("all: the evaluation in the context modules' released ACDC code",),
    stacks=("space",),
    columns=("hd95",),
)

synapse = Protocol(
    name="published-synapse",
    title=(
        "as TransUNet's released Synapse evaluation: all slices; a false alarm on an absent class "
        "scores 1, a class missed or in neither scores 0, both with distance 0"
    ),
    definitions={
        "dice": "2·TP / (2·TP + FP + FN) of the volume",
        "hd95": "95th percentile of both directions pooled, in voxels (a slice step is 1)",
    },
    means="over volumes for each class, over classes",
    needs=Needs(decide_on="network"),
    empties="published",
    computed_by={"hd95": "hd95-pooled"},
    in_voxels=True,
    datasets=("synapse", "btcv"),
    sources=("all: Beckschen/TransUNet, utils.py (scores of one volume) and test.py (means)",),
    stacks=("space",),
    columns=("hd95",),
)

PROTOCOLS = (acdc, synapse)
