"""TGANet against the released numbers, and its rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segweave.author_weights import load_released
from segweave.blocks.text_guidance import WORDS, read_word_vectors
from segweave.errors import InputError, UsageError
from segweave.networks import Output, create_network
from segweave.registry import networks
from tests.networks.agreement import Agreement, files_of, read_spec
from tests.reference.fill import uniform

pytest.importorskip("timm")

FILES = files_of("tganet")
TINY = networks.card("tganet").tiny_options


def build(spec: dict[str, Any]) -> nn.Module:
    network = create_network("tganet", classes=spec["num_classes"])
    # The files have other numbers for each image, which no words would give.
    numbers = 2 * uniform("input.1", (2, 5, 300)) - 1
    network.embeddings = torch.as_tensor(numbers).float()
    return network


def outputs(output: Output, spec: dict[str, Any]) -> Sequence[Tensor]:
    return [output.logits, output.auxiliary["number"], output.auxiliary["size"]]


def agreement(name: str, *, gradients: bool) -> Agreement:
    return Agreement(
        name, build, torch.float64, gradients=gradients, outputs=outputs, auxiliary=True
    )


def test_the_reference_files_are_here() -> None:
    assert set(FILES) == {"tganet", "tganet@64x96"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    # Gradients at one of the two sizes, for the sake of time.
    agreement(name, gradients="@" in name).assert_agrees()


def test_the_released_names_are_complete() -> None:
    spec = read_spec("tganet")
    with torch.device("meta"):
        network = create_network("tganet")
    names = network.released_names()
    assert set(names.tensors.values()) == {name for name, _ in spec["state_dict"]}
    assert set(network.state_dict()) == {*names.tensors, "embeddings"}
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"]


@pytest.mark.parametrize("size", [(16, 17), (35, 50)])
def test_any_size_works(size: tuple[int, int]) -> None:
    network = create_network("tganet", in_channels=2, classes=3, **TINY).eval()
    output = network(torch.randn(1, 2, *size), auxiliary=True)
    assert [tuple(one.shape) for one in outputs(output, {})] == [(1, 3, *size), (1, 2), (1, 3)]


def test_the_words_by_default() -> None:
    vectors = create_network("tganet", **TINY).embeddings
    assert vectors.shape == (5, 300)
    # Orthogonal and of mean square 1, so that no two words are alike.
    assert torch.allclose(vectors @ vectors.T / 300, torch.eye(5), atol=1e-5)
    assert torch.equal(create_network("tganet", **TINY).embeddings, vectors)


def test_the_words_change_the_logits_and_are_saved() -> None:
    torch.manual_seed(0)
    network = create_network("tganet", **TINY).eval()
    x = torch.randn(1, 3, 32, 32)
    before = network(x, auxiliary=True)
    network.embeddings.neg_()
    after = network(x, auxiliary=True)
    assert not torch.equal(after.logits, before.logits)
    # What number and size are comes from the image alone.
    assert torch.equal(after.auxiliary["number"], before.auxiliary["number"])
    other = create_network("tganet", **TINY).eval()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x).logits, after.logits)


def test_the_authors_files_leave_the_words_alone() -> None:
    rows = [[float(i == j) for j in range(8)] for i in range(5)]
    network = create_network("tganet", embeddings=rows, **TINY)
    names = network.released_names().tensors
    state = network.state_dict()
    report = load_released(network, {theirs: state[ours] for ours, theirs in names.items()})
    assert report.missing == report.unexpected == ()
    assert network.embeddings.tolist() == rows


@pytest.mark.parametrize("rows", [[[1.0]] * 4, [[1.0]] * 4 + [[1.0, 2.0]], [[]] * 5])
def test_other_than_five_vectors_are_refused(rows: list[list[float]]) -> None:
    with pytest.raises(UsageError, match="5 rows"):
        create_network("tganet", embeddings=rows)


def test_word_vectors_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    lines = ["7 3", "the 9 9 9", *(f"▁{word} {i} 0.5 -1e-1" for i, word in enumerate(WORDS))]
    file.write_text("\n".join(lines), encoding="utf-8")
    rows = read_word_vectors(file)
    assert rows == [[float(i), 0.5, -0.1] for i in range(5)]
    network = create_network("tganet", embeddings=rows, **TINY)
    assert torch.equal(network.embeddings, torch.tensor(rows))


@pytest.mark.parametrize(
    ("text", "words"),
    [("one 1 2\n", "multiple"), ("one 1 x\n", "numbers"), (None, "No such file")],
)
def test_unusable_files_of_vectors_are_refused(
    tmp_path: Path, text: str | None, words: str
) -> None:
    file = tmp_path / "words.txt"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        read_word_vectors(file)


def test_an_impossible_width_is_refused() -> None:
    with pytest.raises(UsageError, match="width"):
        create_network("tganet", width=0)
