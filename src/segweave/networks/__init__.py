"""Segmentation networks: one file per architecture, found by its card. Knows nothing of context
modules or data.
"""

from segweave.networks.base import (
    Decoded,
    Features,
    Feedback,
    Output,
    Prompt,
    SegmentationNetwork,
    check_size,
    create_network,
    first_inputs,
    list_networks,
    mask_of,
)
from segweave.networks.pretrained import WeightsReport

__all__ = [
    "Decoded",
    "Features",
    "Feedback",
    "Output",
    "Prompt",
    "SegmentationNetwork",
    "WeightsReport",
    "check_size",
    "create_network",
    "first_inputs",
    "list_networks",
    "mask_of",
]
