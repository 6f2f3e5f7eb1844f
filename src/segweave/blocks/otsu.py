"""Otsu's threshold on many images at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""
LEVELS = 256
SIGMA = 1.1
"""Standard deviation in pixels that OpenCV gives a Gaussian of 5 × 5."""


@torch.no_grad()
def otsu_mask(image: Tensor) -> Tensor:
    """1 where an image is brighter than its threshold: (B, C, H, W) → float (B, 1, H, W) of 0 and
    1, of the image's type.

    The image is made grey (luminance of red, green and blue; the mean of another number of
    channels), blurred with a Gaussian of 5 × 5 pixels, and scaled to 256 levels between its least
    and its largest value. The threshold separates two classes of levels with the largest variance
    between them (Otsu, IEEE Transactions on Systems, Man, and Cybernetics, 1979). H and W are at
    least 3.
    """
    values = image.float()
    if values.shape[1] == 3:
        weights = torch.tensor(LUMINANCE, device=image.device)[:, None, None]
        grey = (values * weights).sum(1, keepdim=True)
    else:
        grey = values.mean(1, keepdim=True)
    steps = torch.arange(-2, 3, device=image.device)
    gauss = torch.exp(-(steps**2) / (2 * SIGMA**2))
    kernel = torch.outer(gauss, gauss) / gauss.sum() ** 2
    grey = conv2d(pad(grey, (2, 2, 2, 2), mode="reflect"), kernel[None, None])
    least, largest = grey.amin((2, 3), keepdim=True), grey.amax((2, 3), keepdim=True)
    scaled = (grey - least) / (largest - least).clamp(min=1e-12)
    levels = (scaled * (LEVELS - 1)).round().long().flatten(1)
    threshold = _thresholds(levels)
    return (levels > threshold[:, None]).to(image.dtype).reshape(grey.shape)


def _thresholds(levels: Tensor) -> Tensor:
    """Levels (B, pixels) → for each image the largest level of the darker class, (B,)."""
    # One histogram per image, all counted at once; counting is exact in any order.
    images = LEVELS * torch.arange(len(levels), device=levels.device)[:, None]
    counts = (levels + images).flatten().bincount(minlength=LEVELS * len(levels))
    counts = counts.reshape(len(levels), LEVELS)
    pixels = levels.shape[1]
    share = counts.cumsum(1).float() / pixels
    sums = (counts * torch.arange(LEVELS, device=levels.device)).cumsum(1).float() / pixels
    spread = share * (1 - share)
    between = (sums[:, -1:] * share - sums) ** 2 / spread.clamp(min=1e-12)
    return between.masked_fill(spread == 0, 0).max(dim=1).indices
