"""Weaving at the dotted name of a layer, where the next layers change their input in place: in
threads, as replicas, exported, compiled and recomputed, against the run written out by hand.
"""

from __future__ import annotations

import copy
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from packaging.version import Version
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segweave.context.mean import Mean
from segweave.errors import UsageError
from segweave.networks import create_network
from segweave.weaving import POSITIONS, WovenNetwork, weave
from tests.weaving.toy import InPlace, Weighted, settle

# Tried: 2.10 and 2.11 fail, 2.15 works; versions between were not tried.
OLD_COMPILER = Version(torch.__version__) < Version("2.15")
REASON = "the compiler of an older torch does not follow a copied module's __dict__"
compiles = pytest.mark.skipif(OLD_COMPILER, reason=REASON)

LAYERS = ["conv", "body.0", "body.1", "body"]
CASES = [*((None, at) for at in LAYERS), ("unet", "encoder.1"), ("unet", "decoder.0")]


def woven(name: str | None, at: str, context: Any = Weighted, **settings: Any) -> WovenNetwork:
    torch.manual_seed(0)
    network: nn.Module = InPlace()
    channels = 4
    if name is not None:
        network = create_network(name, in_channels=1, classes=2, width=4, levels=2)
        channels = 8 if at == "encoder.1" else 4
    if at in POSITIONS:
        return settle(weave(network, context, at=at, **settings))
    return settle(weave(network, context, at=at, channels=channels, **settings))


def images(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, 1, 8, 8, dtype=torch.float64, generator=generator)


def by_hand(made: WovenNetwork, window: Tensor) -> Tensor:
    """The logits, with hooks on the network itself and every slice run to its end."""
    network, layer = made.network, made.network.get_submodule(made.at)

    def run(image: Tensor, hook: Callable[..., Any]) -> Tensor:
        handle = layer.register_forward_hook(hook)
        output = network(image)
        handle.remove()
        return output if isinstance(output, Tensor) else output.logits

    maps: list[Tensor] = []
    for image in window.unbind(1):
        run(image, lambda _, __, result: maps.append(result.clone()))
    fused = maps[1] + made.context[0](torch.stack(maps, 1))
    return run(window[:, 1], lambda *_: fused)


def check(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "at"), CASES)
def test_forward_and_prepared_slices_equal_the_run_by_hand(name: str | None, at: str) -> None:
    made, window = woven(name, at), images()
    expected = by_hand(made, window)
    check(made(window).logits, expected)
    prepared = [made.prepare(image) for image in window.unbind(1)]
    check(made.fuse(prepared).logits, expected)
    check(made.fuse(prepared).logits, expected)  # nothing of a slice was changed


@pytest.mark.parametrize("at", LAYERS)
def test_identity_prepares_what_the_next_layers_do_not_change(at: str) -> None:
    made, window = woven(None, at, "identity"), images()
    bare = made.network(window[:, 1])
    prepared = [made.prepare(image) for image in window.unbind(1)]
    for _ in range(2):
        assert torch.equal(made.fuse(prepared).logits, bare)


@pytest.mark.parametrize("at", LAYERS)
def test_gradients_equal_those_of_the_run_by_hand(at: str) -> None:
    made, window = woven(None, at), images()
    parameters = list(made.parameters())
    found = torch.autograd.grad(made(window).logits.square().sum(), parameters)
    expected = torch.autograd.grad(by_hand(made, window).square().sum(), parameters)
    for ours, theirs in zip(found, expected, strict=True):
        check(ours, theirs)


def test_gradients_of_a_network_that_recomputes_its_layers() -> None:
    class Recomputing(InPlace):
        def forward(self, x: Tensor) -> Tensor:
            x = checkpoint(lambda y: self.body(self.conv(y)), x, use_reentrant=False)
            return self.last(x)

    torch.manual_seed(0)
    made = settle(weave(Recomputing(), Weighted, at="body.0"))
    plain = woven(None, "body.0")
    window = images().requires_grad_()
    (found,) = torch.autograd.grad(made(window).logits.square().sum(), window)
    (expected,) = torch.autograd.grad(plain(window).logits.square().sum(), window)
    check(found, expected)


ALL = [*((None, at) for at in LAYERS), *(("unet", at) for at in (*POSITIONS, "encoder.1"))]


def in_threads(calls: list[Callable[[], Tensor]]) -> list[Tensor]:
    """What each call returns, all of them running at once; raises what a call raises."""
    results: dict[int, Tensor | BaseException] = {}
    start = threading.Barrier(len(calls))

    def run(index: int) -> None:
        try:
            start.wait(10)
            with torch.no_grad():
                results[index] = calls[index]()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results.values():
        if isinstance(result, BaseException):
            raise result
    return [results[index] for index in range(len(calls))]


@pytest.mark.parametrize(("name", "at"), ALL)
def test_four_threads_on_one_instance(name: str | None, at: str) -> None:
    made = woven(name, at)
    windows = [images(seed) for seed in range(4)]
    with torch.no_grad():
        expected = [made(window).logits for window in windows]

    def repeated(window: Tensor) -> Callable[[], Tensor]:
        return lambda: torch.stack([made(window).logits for _ in range(6)])

    found = in_threads([repeated(window) for window in windows])
    for runs, alone in zip(found, expected, strict=True):
        assert all(torch.equal(run, alone) for run in runs)


@pytest.mark.parametrize(("name", "at"), ALL)
def test_slices_prepared_in_other_threads(name: str | None, at: str) -> None:
    made, window = woven(name, at), images()
    prepared: dict[int, Any] = {}

    def prepare(index: int) -> Tensor:
        prepared[index] = made.prepare(window[:, index])
        return window

    in_threads([lambda i=i: prepare(i) for i in range(3)])
    with torch.no_grad():
        check(made.fuse([prepared[i] for i in range(3)]).logits, made(window).logits)


def replicas(module: nn.Module, count: int) -> Iterator[nn.Module]:
    """What `torch.nn.DataParallel` makes of a module on each device, here all on the CPU: the same
    tensors as plain attributes, and submodules that are replicas.
    """
    for _ in range(count):
        copies = {id(m): m._replicate_for_data_parallel() for m in module.modules()}
        for original in module.modules():
            replica = copies[id(original)]
            for name, child in original._modules.items():
                replica._modules[name] = None if child is None else copies[id(child)]
            for name, parameter in original._parameters.items():
                setattr(replica, name, None if parameter is None else parameter.view_as(parameter))
        yield copies[id(module)]


@pytest.mark.parametrize(("name", "at"), ALL)
def test_replicas_in_threads(name: str | None, at: str) -> None:
    made = woven(name, at)
    windows = [images(seed) for seed in range(3)]
    with torch.no_grad():
        expected = [made(window).logits for window in windows]
    run = [
        (lambda replica=replica, window=window: replica(window).logits)
        for replica, window in zip(replicas(made, 3), windows, strict=True)
    ]
    for found, alone in zip(in_threads(run), expected, strict=True):
        assert torch.equal(found, alone)


@pytest.mark.parametrize(("name", "at"), ALL)
def test_a_copy_shares_nothing(name: str | None, at: str) -> None:
    made, window = woven(name, at), images()
    before = made(window).logits
    twin = copy.deepcopy(made)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    check(twin(window).logits, before)
    assert not torch.allclose(made(window).logits, before)


@pytest.mark.parametrize(
    ("name", "at", "strict"), [*((*case, False) for case in CASES), (None, "body.0", True)]
)
def test_export(name: str | None, at: str, strict: bool) -> None:
    if strict and OLD_COMPILER:
        pytest.skip(REASON)
    made, window = woven(name, at), images()
    exported = torch.export.export(made, (images(2),), strict=strict).module()
    with torch.no_grad():
        check(exported(window).logits, by_hand(made, window))


def compiled(made: nn.Module, backend: str) -> Callable[[Tensor], Any]:
    torch._dynamo.reset()
    return torch.compile(made, backend=backend, fullgraph=True)


@compiles
@pytest.mark.parametrize(
    ("name", "at", "backend"),
    [*((*case, "aot_eager") for case in CASES), (None, "body.0", "eager")],
)
def test_compile(name: str | None, at: str, backend: str) -> None:
    made = woven(name, at)
    run = compiled(made, backend)
    for seed in (1, 2):
        with torch.no_grad():
            check(run(images(seed)).logits, by_hand(made, images(seed)))


@compiles
@pytest.mark.parametrize("at", ["body.0", "body"])
def test_compiled_training_steps(at: str) -> None:
    made = woven(None, at).train()
    plain = copy.deepcopy(made)
    run = compiled(made, "aot_eager")
    for network in (run, plain):
        network(images()).logits.square().sum().backward()
    for ours, theirs in zip(made.parameters(), plain.parameters(), strict=True):
        check(ours.grad, theirs.grad)
    for ours, theirs in zip(made.buffers(), plain.buffers(), strict=True):
        check(ours, theirs)  # the statistics of each batch norm were updated as often


@compiles
@pytest.mark.slow
def test_compile_to_machine_code() -> None:
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no compiler")
    made, window = woven(None, "body.0"), images()
    try:
        with torch.no_grad():
            compiled(made.network, "inductor")(window[:, 1])
    except torch._dynamo.exc.BackendCompilerFailed as error:
        # torch writes C++ that does not compile under ATEN_CPU_CAPABILITY=default.
        pytest.skip(f"the bare network does not compile either: {type(error).__name__}")
    with torch.no_grad():
        check(compiled(made, "inductor")(window).logits, by_hand(made, window))


def test_a_layer_under_two_names_is_woven_under_both() -> None:
    class TwoNames(InPlace):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.ModuleDict({"inner": self.conv})

    for at in ("conv", "first.inner"):
        torch.manual_seed(0)
        made = settle(weave(TwoNames(), Weighted, at=at))
        check(made(images()).logits, woven(None, "conv")(images()).logits)


def test_networks_may_reach_into_the_layer() -> None:
    class Reaching(InPlace):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.body[1].shift.sum() + self.conv.bias.sum()

    for at in LAYERS:
        torch.manual_seed(0)
        made = settle(weave(Reaching(), Weighted, at=at, channels=4))
        check(made(images()).logits, by_hand(made, images()))


def test_buffers_that_a_run_replaces_are_kept() -> None:
    class Counting(InPlace):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("runs", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.runs = self.runs + 1
            return super().forward(x)

    made = weave(Counting(), Weighted, at="body.0").double()
    made(images())
    assert made.network.runs == 3


def test_hooks_of_the_user_run_and_nothing_stays() -> None:
    made = woven(None, "body.1")
    layer = made.network.body[1]
    seen: list[float] = []
    layer.register_forward_hook(lambda _, __, result: seen.append(float(result.detach().sum())))
    hooks = dict(layer._forward_hooks)
    made(images())
    assert len(seen) == 3
    with pytest.raises(UsageError):
        made(torch.rand(3, 3))
    with pytest.raises(RuntimeError):
        made(torch.rand(2, 3, 5, 8, 8, dtype=torch.float64))
    assert dict(layer._forward_hooks) == hooks
    assert all(m is n for m, n in zip(made.network.body, made.network.body.children(), strict=True))


def test_a_layer_that_runs_twice_is_refused() -> None:
    class Twice(InPlace):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.last(self.conv(x))

    made = weave(Twice(), Weighted, at="conv").double()
    with pytest.raises(UsageError, match="2 calls"):
        made(images())


def test_a_layer_that_never_runs_or_returns_no_map_is_refused() -> None:
    network = InPlace().double()
    network.spare = nn.Conv2d(4, 4, 1)
    made = weave(network, Weighted, at="spare").double()
    for run in (made, lambda window: made.prepare(window[:, 0])):
        with pytest.raises(UsageError, match="0 calls"):
            run(images())
    network.body.append(nn.Flatten(2))
    with pytest.raises(UsageError, match=r"shape \(2, 4, 64\)"):
        weave(network, Weighted, at="body.3", channels=4).double()(images())


def test_replace_puts_the_mean_in_place_of_the_map() -> None:
    made, window = woven(None, "conv", Mean, join="replace"), images()
    maps = torch.stack([made.network.conv(image) for image in window.unbind(1)])
    network = made.network
    check(made(window).logits, network.last(network.body(maps.mean(0))))
