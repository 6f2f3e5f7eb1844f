"""Brings logits and labels of every kind of target to one form that losses can compute on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError


def channel_targets(logits: Tensor, label: Tensor, target: TargetSpec) -> tuple[Tensor, Tensor]:
    """(truth, counted), both (B, classes, H, W) of 0 and 1 in the dtype of `logits`.

    Args:
        logits: (B, classes, H, W).
        label: class ids (B, H, W), or 0 and 1 (B, classes, H, W) where classes overlap.
        target: what the classes are; `counted` is 0 where the label is its ignored value.

    Raises UsageError where the shapes don't fit.
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
    return label_targets(label, target, logits.dtype)


def label_targets(label: Tensor, target: TargetSpec, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(truth, counted) of a label alone, as `channel_targets` returns them."""
    counted = torch.ones_like(label, dtype=torch.bool)
    if target.ignored is not None:
        counted = label != target.ignored
        label = torch.where(counted, label, torch.zeros_like(label))
    if target.kind == "exclusive":
        truth = functional.one_hot(label.long(), target.classes).movedim(-1, 1)
        return truth.to(dtype), counted[:, None].expand_as(truth).to(dtype)
    if target.kind == "binary":
        label, counted = label[:, None], counted[:, None]
    return (label > 0).to(dtype), counted.to(dtype)


def probabilities(logits: Tensor, target: TargetSpec) -> Tensor:
    """Probabilities (B, classes, H, W): softmax where classes exclude each other, else sigmoids."""
    return logits.softmax(dim=1) if target.kind == "exclusive" else logits.sigmoid()


def pixel_cross_entropy(logits: Tensor, label: Tensor, target: TargetSpec) -> tuple[Tensor, Tensor]:
    """(cross-entropy, counted) of every pixel.

    (B, H, W) where classes exclude each other, else (B, classes, H, W) with one sigmoid per class.
    Arguments as in `channel_targets`. Where `counted` is 0 the cross-entropy is 0.
    """
    truth, counted = channel_targets(logits, label, target)
    if target.kind == "exclusive":
        counted = counted[:, 0]
        entropy = -(logits.log_softmax(dim=1) * truth).sum(dim=1) * counted
    else:
        entropy = counted * functional.binary_cross_entropy_with_logits(
            logits, truth, reduction="none"
        )
    return entropy, counted


def class_logits(logits: Tensor, target: TargetSpec) -> Tensor:
    """Logits (B, classes, H, W) whose sigmoids are the probabilities of the classes.

    Where classes exclude each other, that of class k is l_k − log Σ_{j≠k} exp(l_j).
    """
    if target.kind != "exclusive":
        return logits
    same = torch.eye(target.classes, dtype=torch.bool, device=logits.device)[None, ..., None, None]
    others = logits[:, None].masked_fill(same, -torch.inf).logsumexp(dim=2)
    return logits - others


def mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of `values` where `counted` is 1; 0 where nothing counts."""
    mean: Tensor = (values * counted).sum() / counted.sum().clamp(min=1)
    return mean
