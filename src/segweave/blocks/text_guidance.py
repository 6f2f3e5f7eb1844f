"""What TGANet reads from words: vectors of five words, weighted by what the image looks like, and
attention of maps to the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from segweave.blocks.conv_norm import relu
from segweave.errors import InputError, UsageError

WORDS = ("one", "multiple", "small", "medium", "large")
"""The words, in the order of the vectors: how many objects there are, and how large they are."""
COUNTS = 2
"""How many of the words say how many objects there are."""
LENGTH = 300
"""Numbers of a vector in the released code."""


def word_vectors(given: Sequence[Sequence[float]] | None) -> Tensor:
    """The vectors of `WORDS`, (5, length).

    Without given ones they are rows of a discrete cosine transform, orthogonal and of mean square
    1. Only the network's first layer reads them, with separate weights for each word, so that any
    vectors that are not zero allow the same functions.

    Raises UsageError for other than five rows of equal length.
    """
    if given is None:
        steps = (torch.arange(LENGTH) + 0.5) * (torch.pi / LENGTH)
        rows = torch.arange(1, len(WORDS) + 1)
        return 2**0.5 * torch.cos(rows[:, None] * steps)
    lengths = {len(row) for row in given}
    if len(given) != len(WORDS) or len(lengths) != 1 or lengths == {0}:
        raise UsageError(
            "creating a TGANet",
            expected=f"embeddings: {len(WORDS)} rows of equal length, for {', '.join(WORDS)}",
            found=f"{len(given)} rows of the lengths {sorted(lengths)}",
        )
    return torch.tensor([list(row) for row in given])


def read_word_vectors(path: str | Path) -> list[list[float]]:
    """The vectors of `WORDS` from a text file of word vectors (word2vec, GloVe, fastText, BPEmb):
    in each line a word and its numbers, separated by spaces. A first line with the counts is
    skipped. A word may be marked as the beginning of a word, as BPEmb does ("▁small").

    The result is the option `embeddings` of TGANet, in Python and in a recipe.

    Raises InputError for a file without all of the words, or with a line that is not numbers.
    """
    doing = "reading word vectors"
    found: dict[str, list[float]] = {}
    try:
        with Path(path).open(encoding="utf-8") as lines:
            for line in lines:
                word, _, numbers = line.strip().partition(" ")
                word = word.removeprefix("▁")
                if word in WORDS and word not in found:
                    found[word] = [float(number) for number in numbers.split()]
    except (OSError, ValueError) as error:
        raise InputError(
            doing, file=path, expected="lines of a word and its numbers", found=str(error)
        ) from error
    missing = [word for word in WORDS if word not in found]
    if missing or len({len(row) for row in found.values()}) != 1:
        raise InputError(
            doing,
            file=path,
            expected=f"vectors of equal length for {', '.join(WORDS)}",
            found=f"none for {', '.join(missing)}" if missing else "vectors of several lengths",
        )
    return [found[word] for word in WORDS]


class AttributeClassifier(nn.Module):
    """Number and size of the objects from the mean over space: (B, C, H, W) → logits (B, 2) for
    one and several, (B, 3) for small, medium and large (Tomar et al., TGANet, Section 2.1).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.number = _linear_pair(channels, hidden, COUNTS)
        self.size = _linear_pair(channels, hidden, len(WORDS) - COUNTS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) → (B, 2), (B, 3)."""
        mean = x.mean(dim=(2, 3))
        return self.number(mean), self.size(mean)


class TextFeature(nn.Module):
    """The words' vectors, each times its probability, joined, and two 1×1 convolutions without
    bias: logits (B, 2) and (B, 3), vectors (5, length) or (B, 5, length) → (B, width, 1, 1).
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(len(WORDS) * length, width, 1, bias=False),
            relu(),
            nn.Conv2d(width, width, 1, bias=False),
            relu(),
        )

    def forward(self, number: Tensor, size: Tensor, vectors: Tensor) -> Tensor:
        """(B, 2), (B, 3), (5, length) → (B, width, 1, 1)."""
        weights = torch.cat([number.softmax(dim=1), size.softmax(dim=1)], dim=1)
        feature: Tensor = self.layers((weights[:, :, None] * vectors).flatten(1)[:, :, None, None])
        return feature


class LabelAttention(nn.Module):
    """x · sigmoid(v), v a vector that two 1×1 convolutions without bias make of the text feature:
    (B, C, H, W) and (B, C, 1, 1) → the map and v, (B, C, 1, 1).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            relu(),
            nn.Conv2d(channels, channels, 1, bias=False),
        )

    def forward(self, x: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W), (B, C, 1, 1) → (B, C, H, W), (B, C, 1, 1)."""
        vector = self.layers(feature)
        return x * vector.sigmoid(), vector


def _linear_pair(channels: int, hidden: int, count: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, hidden, bias=False), relu(), nn.Linear(hidden, count, bias=False)
    )
