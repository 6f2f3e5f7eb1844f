"""What every registered context module keeps: shapes, prepare and fuse, gradients, numerics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segweave import list_contexts
from segweave.context import BothSides, ContextModule, create_context
from segweave.errors import UsageError
from tests.context.made import CARDS, FORMS, MODULES, make, prepared, sequence

RECURRENT = [(name, form) for name, form in MODULES if name != "sa-only"]


def test_the_modules_of_the_papers_their_ablations_and_the_controls_are_listed() -> None:
    assert {"sa-lstm", "lstm-sa", "sa-embedded-lstm"} <= set(list_contexts())
    assert {"identity", "mean", "conv"} <= set(list_contexts())
    ablations = {name for name, card in CARDS.items() if card.kind == "ablation"}
    assert {"sa-only", "lstm-only", "separate", "sa-xxx", "sa-hhh"} <= ablations


@pytest.mark.parametrize("both_sides", [False, True])
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_any_batch_length_and_size(name: str, form: str, both_sides: bool) -> None:
    options = {"form": form, "both_sides": both_sides, "steps": 5}
    module = make(name, **options)
    assert isinstance(module, ContextModule)
    assert (module.channels, module.out_channels) == (4, 4)
    for batch, steps, height, width in [(1, 1, 3, 5), (2, 2, 1, 1), (1, 3, 4, 3), (2, 5, 2, 4)]:
        given_steps = sequence(batch, steps, 4, height, width)
        with torch.no_grad():
            out = module(given_steps)
            again = prepared(module, given_steps)
        assert out.shape == (batch, 4, height, width)
        assert (out - again).abs().max() <= 1e-12 * max(1.0, float(out.abs().max()))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_fuse_of_prepare_equals_forward(data: st.DataObject) -> None:
    name, form = data.draw(st.sampled_from(RECURRENT))
    channels = data.draw(st.sampled_from([1, 2, 4]))
    layers = data.draw(st.integers(1, 2))
    options: dict[str, Any] = {
        "form": form,
        "hidden_channels": (channels,) * layers,
        "both_sides": data.draw(st.booleans()),
        "cell": data.draw(st.sampled_from(["lstm", "gru"])),
        "kernel_size": data.draw(st.sampled_from([1, 3])),
        "bias": data.draw(st.booleans()),
    }
    if name != "lstm-only":
        options["attention"] = data.draw(st.sampled_from(["positions", "channels"]))
        options["heads"] = data.draw(st.sampled_from([1, channels]))
        options["combination"] = data.draw(st.sampled_from(["linear", "relu"]))
    if CARDS[name].entry in ("SACoupledLSTM", "LSTMCoupledSA"):
        options["projections"] = data.draw(st.sampled_from([None, True]))
        if form == "paper":
            options["when"] = data.draw(st.sampled_from(["last-step", "each-step"]))
    if CARDS[name].entry == "SAEmbeddedLSTM":
        options["use_lambda_skip_connections"] = data.draw(st.booleans())
    module = make(name, channels, **options)
    shape = [data.draw(st.integers(1, high)) for high in (2, 5)]
    size = [data.draw(st.integers(1, 5)) for _ in range(2)]
    steps = sequence(*shape, channels, *size)
    with torch.no_grad():
        out = module(steps)
        again = prepared(module, steps)
        read = module.states(steps, ["output"])["output"]
    limit = 1e-12 * max(1.0, float(out.abs().max()))
    assert (out - again).abs().max() <= limit
    assert (out - read).abs().max() <= limit


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_another_width_comes_out(name: str, form: str) -> None:
    if name == "identity":
        with pytest.raises(UsageError):
            create_context(name, 4, out_channels=3)
        return
    for both_sides in (False, True):
        module = make(name, form=form, out_channels=3, both_sides=both_sides)
        steps = sequence(1, 3, 4, 3, 3)
        assert module.out_channels == 3
        assert module(steps).shape == (1, 3, 3, 3)
        torch.testing.assert_close(prepared(module, steps), module(steps), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_one_channel_and_batch_one(name: str, form: str) -> None:
    module = make(name, 1, form=form, both_sides=True)
    assert module(sequence(1, 3, 1, 4, 4)).shape == (1, 1, 4, 4)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_parameter_gets_a_gradient(name: str, form: str, layers: int) -> None:
    options: dict[str, Any] = {"hidden_channels": (4,) * layers} if layers > 1 else {}
    if layers > 1 and (CARDS[name].kind == "control" or name == "sa-only"):
        pytest.skip("has no layers")
    module = make(name, form=form, both_sides=True, **options)
    steps = sequence(2, 3, 4, 5, 5).requires_grad_()
    out = module(steps)
    out.backward(torch.randn_like(out))
    assert steps.grad is not None
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 1e-9, key
    # With h as value, nothing of a first step passes: its h is zero before, and constant behind.
    read: dict[Any, tuple[int, ...]] = {"identity": (), ("hidden-as-value", "paper"): (1,)}
    for t in read.get(name, read.get((name, form), (0, 1, 2))):
        assert steps.grad[:, t].abs().max() > 1e-9


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_a_view_gives_what_a_copy_gives(name: str, form: str) -> None:
    module = make(name, form=form, both_sides=True)
    wide = sequence(2, 3, 3, 5, 8).permute(0, 1, 4, 3, 2)[:, :, ::2]
    assert not wide.is_contiguous()
    with torch.no_grad():
        torch.testing.assert_close(module(wide), module(wide.contiguous()), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_members_of_a_batch_do_not_affect_each_other(name: str, form: str) -> None:
    module = make(name, form=form, both_sides=True)
    steps = sequence(3, 3, 4, 4, 3)
    with torch.no_grad():
        together = module(steps)
        alone = torch.cat([module(steps[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_float32_follows_float64(name: str, form: str) -> None:
    module = make(name, form=form, both_sides=True)
    steps = sequence(1, 3, 4, 6, 5)
    with torch.no_grad():
        exact = module(steps)
        single = module.float()(steps.float())
    assert single.dtype is torch.float32
    assert (single - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_bfloat16_autocast(name: str, form: str) -> None:
    module = make(name, 8, form=form, both_sides=True).float()
    steps = sequence(1, 3, 8, 6, 5).float().requires_grad_()
    exact = module(steps)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(steps)
        again = prepared(module, steps)
    out.float().sum().backward()
    assert steps.grad is not None
    assert torch.isfinite(steps.grad).all()
    limit = 0.05 * exact.detach().abs().max()
    assert (out.float() - exact).abs().max() <= limit
    assert (again.float() - exact).abs().max() <= limit


@pytest.mark.parametrize(("name", "form"), MODULES)
def test_a_window_is_read_from_both_sides(name: str, form: str) -> None:
    module = make(name, form=form, both_sides=True)
    assert isinstance(module, BothSides)
    steps = sequence(1, 5, 4, 4, 4)
    with torch.no_grad():
        nets = module.forward_net(steps[:, :3]), module.reverse_net(steps[:, 2:].flip(1))
        by_hand = module.conv(torch.cat(nets, 1))
        torch.testing.assert_close(module(steps), by_hand, rtol=0, atol=0)


def test_weights_differ_by_direction() -> None:
    module = make("sa-lstm", both_sides=True)
    assert isinstance(module, BothSides)
    steps = sequence(1, 3, 4, 4, 4)
    reading = module.states(steps, ["output"])
    mirrored = module.states(steps.flip(1), ["output"])
    assert (reading["forward.output"] - mirrored["reverse.output"]).abs().max() > 1e-3


class TestCreate:
    """Wrong names and options say what would be right."""

    @pytest.mark.parametrize(
        ("name", "options", "words"),
        [
            ("sa-lstn", {}, "sa-lstm"),
            ("sa-lstm", {"form": "printed"}, "paper or released"),
            ("sa-lstm", {"kernel": 3}, "kernel_size"),
            ("sa-lstm", {"kernel_size": 4}, "use 3 or 5"),
            ("sa-lstm", {"cell": "rnn"}, "'lstm' or 'gru'"),
            ("sa-lstm", {"attention": "position"}, "positions"),
            ("sa-lstm", {"attention_size": 0}, "above 0"),
            ("sa-lstm", {"combination": "product"}, "'linear' or 'relu'"),
            ("sa-lstm", {"heads": 3}, "divisor of the 4"),
            ("sa-lstm", {"query": ("f", "q")}, "'q'"),
            ("sa-lstm", {"query": ()}, "at least one"),
            ("sa-lstm", {"cell": "gru", "query": ("o",)}, "'o'"),
            ("sa-lstm", {"hidden_channels": ()}, "at least one layer"),
            ("sa-lstm", {"hidden_channels": (4, 0)}, "each width ≥ 1"),
            ("sa-lstm", {"out_channels": 0}, "out_channels=0"),
            ("sa-only", {"reads": "all"}, "'window' or 'step'"),
            ("sa-only", {"hidden_channels": (4,)}, "hidden_channels"),
            ("sa-embedded-lstm", {"position_code": "sine"}, "'trainable' or 'none'"),
            ("sa-embedded-lstm", {"use_state_space_sequencing": True}, "released"),
            ("sa-xxx", {"hidden_channels": (6,)}, "equal to the 4 input channels"),
        ],
    )
    def test_wrong(self, name: str, options: dict[str, Any], words: str) -> None:
        for both_sides in (False, True):
            with pytest.raises(UsageError, match=words):
                create_context(name, 4, both_sides=both_sides, **options)

    def test_lists_and_plain_names_do_as_tuples(self) -> None:
        options = {"hidden_channels": [4], "query": ["f", "c"], "value": "h"}
        steps = sequence(1, 2, 4, 3, 3)
        assert torch.equal(make("sa-lstm", **options)(steps), make("sa-lstm")(steps))

    def test_no_channels(self) -> None:
        with pytest.raises(UsageError, match="at least one channel"):
            create_context("mean", 0)


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("name", ["sa-lstm", "lstm-sa", "sa-embedded-lstm"])
def test_export(name: str, form: str) -> None:
    module = make(name, form=form, both_sides=True, attention_size=20)
    steps = sequence(2, 3, 4, 4, 5)
    exported = torch.export.export(module, (steps,)).module()
    torch.testing.assert_close(exported(steps), module(steps))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("name", ["sa-lstm", "lstm-sa", "sa-embedded-lstm"])
def test_compile(name: str, form: str) -> None:
    module = make(name, form=form, both_sides=True, attention_size=20)
    steps = sequence(1, 3, 4, 4, 5).requires_grad_()

    def gradient(run: Any) -> tuple[Tensor, Tensor]:
        out = run(steps)
        return out.detach(), torch.autograd.grad(out.square().sum(), steps)[0]

    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for ours, plain in zip(gradient(compiled), gradient(module), strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_gpu_follows_cpu(name: str, form: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    module = make(name, form=form, both_sides=True)
    steps = sequence(2, 3, 4, 6, 5)
    exact = module(steps)
    on_device = module.cuda()(steps.cuda()).cpu()
    torch.testing.assert_close(on_device, exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("name", "form"), MODULES)
def test_a_norm_before_the_module_gets_the_right_gradient(name: str, form: str, batch: int) -> None:
    module = make(name, form=form)
    norm = torch.nn.BatchNorm2d(4).double().eval()
    last = torch.nn.Conv2d(4, 2, 1).double()
    step = sequence(batch, 4, 6, 5).requires_grad_()

    def by_hand(x: Tensor) -> Tensor:
        return x / (1 + norm.eps) ** 0.5

    def gradient(apply: Any) -> Tensor:
        x = apply(step)
        # An in-place layer passes the gradient on in the strides of the map.
        out = last((module(x[:, None]) + x).relu_())
        return torch.autograd.grad(out.square().sum(), step)[0]

    torch.testing.assert_close(gradient(norm), gradient(by_hand))
