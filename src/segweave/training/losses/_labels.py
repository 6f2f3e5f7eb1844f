"""Brings logits and labels of every kind of target to one form that losses can compute on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError


def channel_targets(logits: Tensor, label: Tensor, target: TargetSpec) -> tuple[Tensor, Tensor]:
    """(truth, counted): both (B, classes, H, W) in the dtype of `logits`, 0 or 1.

    `label` is (B, H, W), or (B, classes, H, W) where classes overlap; `counted` is 0 where the
    label is the ignored value. Raises UsageError where the shapes don't fit.
    """
    expected = (logits.shape[0], *logits.shape[-2:])
    if target.kind == "overlapping":
        expected = tuple(logits.shape)
    if tuple(label.shape) != expected or logits.shape[1] != target.classes:
        raise UsageError(
            "computing the loss",
            expected=f"{target.classes} channels of logits and a label of shape {expected}",
            found=f"logits {tuple(logits.shape)}, label {tuple(label.shape)}",
        )
    counted = torch.ones_like(label, dtype=torch.bool)
    if target.ignored is not None:
        counted = label != target.ignored
        label = torch.where(counted, label, torch.zeros_like(label))
    if target.kind == "exclusive":
        truth = functional.one_hot(label.long(), target.classes).movedim(-1, 1)
        return truth.to(logits.dtype), counted[:, None].expand_as(truth).to(logits.dtype)
    if target.kind == "binary":
        label, counted = label[:, None], counted[:, None]
    return (label > 0).to(logits.dtype), counted.to(logits.dtype)
