"""Networks made ready to predict: loaded once, used for many cases, by several threads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segweave.blocks.conv_norm import fold_weights
from segweave.data.boxes import Boxes, CaseBoxes, boxes_of, network_boxes
from segweave.data.case import Case
from segweave.data.inputs import (
    network_slice,
    normalise,
    placement,
    to_case_grid,
    to_source_values,
    window_indices,
)
from segweave.data.specs import InputSpec, TargetSpec, decide
from segweave.errors import UsageError
from segweave.formats.table import as_image
from segweave.networks import mask_of
from segweave.prediction.flips import (
    Flips,
    boxes_of_flips,
    mean_maps,
    mean_of_flips,
    mirrored_back,
    views_of,
    with_flips,
)
from segweave.prediction.results import Prediction, check_denoises
from segweave.prediction.tiles import Tiles, tiled_probabilities
from segweave.recipes.recipe import Precision
from segweave.runtime.devices import device_of, flushed_denormals
from segweave.runtime.progress import Progress
from segweave.weaving import POSITIONS, WovenNetwork, volume_outputs, weave

if TYPE_CHECKING:
    from segweave.prediction.uncertainty import Uncertainty

Planes = NDArray[np.float32]


class Member(NamedTuple):
    """One network of a session, with the specification of its input. `apart` asks for the maps of
    each mirror image behind their mean, joined on the class axis.
    """

    network: nn.Module
    input: InputSpec
    precision: Precision
    apart: bool = False


class Session:
    """Networks ready to predict, made by `Predictor.session()` or `Ensemble.session()`.

    Each network is a copy in eval mode with batch norms folded into convolutions (on a CPU also
    with channels last in memory), on the device where the predictor has it. The predictor's own
    network is not changed. A session keeps no state between or during calls, so that several
    threads may predict with it at the same time.
    """

    def __init__(
        self,
        members: Sequence[Member],
        target: TargetSpec,
        card: Mapping[str, Any],
        *,
        flips: Flips = "none",
        tiles: Tiles | None = None,
        temperature: float | None = None,
        denoise: Session | None = None,
    ) -> None:
        """Copy and fold the networks.

        Args:
            members: the networks, whose probabilities are averaged.
            target: what the classes are.
            card: what summaries report about the model.
            flips: mirror images that are predicted too.
            tiles: how images are cut into tiles; None where they are not, unless an InputSpec has
                `fit: tile`.
            temperature: what calibrates the probabilities and the entropy; None where nothing does.
                Labels are made before it, so that it never changes one.
            denoise: predicts the image that the networks read; UsageError where it predicts none.
        """
        self.denoise = denoise
        if denoise is not None:
            check_denoises(denoise.target)
        self.temperature = temperature
        self.target: TargetSpec = target
        self.card = dict(card)
        self.flips = flips
        self.tiles = tiles
        self._members = [
            member._replace(network=_ready(member.network, member.input, target))
            for member in members
        ]
        tiled = tiles is not None or any(member.input.fit == "tile" for member in members)
        if self.prompt and tiled:
            raise UsageError(
                "predicting from boxes",
                expected="whole images: input.fit stretch or pad, no tiles",
                found="tiles, which show a part of an object",
            )

    @property
    def prompt(self) -> str:
        """What a network is shown besides the image, "" where none is: "box"."""
        prompts = (getattr(member.network, "prompt", None) for member in self._members)
        return next((prompt.kind for prompt in prompts if prompt is not None), "")

    def check_boxes(self, given: object | None) -> None:
        """Raise UsageError where boxes are needed and none are given, or the other way round."""
        if self.prompt and given is None:
            raise UsageError(
                "predicting",
                expected="a box around what to segment, as this network segments what is in a box",
                found="no box",
                remedy="give one: boxes=(x0, y0, x1, y1) in Python, --box X0 Y0 X1 Y1 or --boxes "
                "FILE.csv on the command line",
            )
        if not self.prompt and given is not None:
            raise UsageError(
                "predicting",
                expected="no box, as this network finds what it segments by itself",
                found="a box",
                remedy="leave it out",
            )

    def predict(
        self,
        case: Case,
        *,
        boxes: CaseBoxes | None = None,
        probabilities: bool = False,
        uncertainty: Uncertainty | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Segment a case slice by slice.

        Args:
            case: what to segment, in the source's own values.
            boxes: for a network that is shown what to segment: one box x0, y0, x1, y1 for all
                slices, or one for each of some slices (see `segweave.data.boxes.CaseBoxes`), in the
                case's pixels counted from 0. A slice without a box becomes background.
            probabilities: also return the probabilities of the whole case.
            uncertainty: also return this map, see `segweave.prediction.uncertainty`.
            progress: called after each slice with (slices done, all slices, the case's id).

        The probabilities of a slice are brought to the case's own grid, where `decide` makes the
        labels. A network that reads its own earlier mask runs as many passes over the case as it
        declares. Raises InputError for a case that does not fit the InputSpec, UsageError for boxes
        that are missing, not wanted or not inside the image.
        """
        if not isinstance(case, Case):
            raise UsageError(
                "predicting",
                expected="a Case",
                found=f"{type(case).__module__}.{type(case).__name__}",
                remedy="segweave.formats.read_case(FILE) makes one of a file; of an array, "
                "segweave.Case(id=, group=, image=(slices, channels, height, width), stack=)",
            )
        labels: NDArray[Any] | None = None
        kept: Planes | None = None
        spread: Planes | None = None
        found: Iterator[tuple[Planes, Planes, Planes | None]]
        if uncertainty is None and (self.temperature is None or not probabilities):
            found = ((maps, maps, None) for maps in self.probabilities(case, boxes))
        else:
            # Imported where it is needed: most predictions do not.
            from segweave.prediction.uncertainty import check_uncertainty, found_slices

            check_uncertainty(uncertainty, len(self._members) * views_of(self.flips))
            members = self._member_maps(case, boxes, apart=uncertainty == "mutual-information")
            found = found_slices(members, self.target, self.temperature, uncertainty)
        for index, (maps, calibrated, uncertain) in enumerate(found):
            decided = decide(maps, self.target)
            if labels is None:
                labels = np.zeros((case.slices, *decided.shape), decided.dtype)
                if probabilities:
                    kept = np.zeros((case.slices, *maps.shape), np.float32)
                if uncertainty is not None:
                    spread = np.zeros((case.slices, *maps.shape[1:]), np.float32)
            labels[index] = decided
            if kept is not None:
                kept[index] = calibrated
            if spread is not None:
                spread[index] = uncertain
            if progress is not None:
                progress(index + 1, case.slices, case.id)
        assert labels is not None, "a case has at least one slice"
        return Prediction(labels, kept, case, spread)

    def after(self, denoise: Session) -> Session:
        """This session with `denoise` before it; the networks are shared."""
        check_denoises(denoise.target)
        both = copy.copy(self)
        both.denoise = denoise
        return both

    def check(self, case: Case) -> None:
        """Raise InputError where a case does not fit the InputSpec of a network, without running
        any: channels, values and spacing.
        """
        for member in self._members:
            network_slice(case, 0, member.input)
        if self.denoise is not None:
            self.denoise.check(case)

    def denoised(self, case: Case, progress: Progress | None = None) -> Case:
        """The case as the networks read it, in whole numbers where its own image has such."""
        if self.denoise is None:
            return case
        quiet = self.denoise.predict(case, progress=progress)
        return replace(case, image=as_image(quiet.labels, case.image.dtype))

    def probabilities(self, case: Case, boxes: CaseBoxes | None = None) -> Iterator[Planes]:
        """Probabilities (classes, height, width) of each slice in turn on the case's own grid: the
        mean over members and mirror images, without a temperature. `boxes` as in `predict`.
        """
        every = self._member_maps(case, boxes)
        return every[0] if len(every) == 1 else mean_maps(every)

    def _member_maps(
        self, case: Case, boxes: CaseBoxes | None, *, apart: bool = False
    ) -> list[Iterator[Planes]]:
        """The same of each network. `apart`: where mirror images are predicted, the maps of each
        follow behind their mean, joined on the class axis.
        """
        self.check_boxes(boxes)
        case = self.denoised(case)
        shown = None if boxes is None else boxes_of(boxes, case)
        apart = apart and self.flips != "none"
        members = [member._replace(apart=apart) for member in self._members]
        return [self._on_case_grid(member, case, shown) for member in members]

    def network_probabilities(self, case: Case, boxes: CaseBoxes | None = None) -> Iterator[Planes]:
        """Probabilities (classes, height, width) of each slice on the network's own grid. `boxes`
        as in `predict`.

        For protocols that decide there; everything else takes `probabilities`. Raises UsageError
        for averaged predictions and tiles, which have no single grid.
        """
        tiled = self.tiles is not None or any(m.input.fit == "tile" for m in self._members)
        if tiled or len(self._members) > 1 or self.flips != "none":
            raise UsageError(
                "predicting on the network's own grid",
                expected="one model, without flips and tiles",
                found="fit: tile or tiles" if tiled else "averaged predictions",
                remedy="score under the protocol clean",
            )
        self.check_boxes(boxes)
        case = self.denoised(case)
        shown = None if boxes is None else boxes_of(boxes, case)
        return self._on_network_grid(self._members[0], case, shown)

    def _on_case_grid(self, member: Member, case: Case, boxes: Boxes | None) -> Iterator[Planes]:
        numbers = normalise(case, member.input) if self.target.task == "image" else None
        for maps in self._resized_back(member, case, boxes):
            yield maps if numbers is None else to_source_values(maps, numbers)

    def _resized_back(self, member: Member, case: Case, boxes: Boxes | None) -> Iterator[Planes]:
        spec = member.input
        if self.tiles is None and spec.fit != "tile":
            for maps in self._on_network_grid(member, case, boxes):
                yield to_case_grid(maps, case.size, spec)
            return

        def run(
            count: int,
            get_slice: Callable[[int], Planes],
            window: Callable[[int], Sequence[int]],
        ) -> Iterator[Planes]:
            return self._run_slices(member, count, get_slice, window)

        yield from tiled_probabilities(case, spec, self.tiles or Tiles(), run)

    def _on_network_grid(self, member: Member, case: Case, boxes: Boxes | None) -> Iterator[Planes]:
        spec = member.input
        numbers = normalise(case, spec)

        def get_slice(index: int) -> Planes:
            return network_slice(case, index, spec, numbers)

        def window(index: int) -> list[int]:
            return window_indices(case.slices, index, spec.slices, spec.edge, case.gaps)

        if boxes is None or getattr(member.network, "prompt", None) is None:
            yield from self._run_slices(member, case.slices, get_slice, window)
            return
        # A slice without a box holds nothing: it is encoded only as a neighbour.
        shown = np.flatnonzero(~np.isnan(boxes[:, 0])).tolist()
        placed = torch.from_numpy(network_boxes(boxes, case, spec))
        found = self._run_slices(
            member, len(shown), get_slice, lambda number: window(shown[number]), placed
        )
        nothing = np.zeros(
            (self.target.classes, *placement(case.size, case.spacing, spec).canvas), np.float32
        )
        if self.target.kind == "exclusive":
            nothing[0] = 1
        if member.apart:
            nothing = np.tile(nothing, (1 + views_of(self.flips), 1, 1))
        for index in range(case.slices):
            yield next(found) if index in shown else nothing

    def _run_slices(
        self,
        member: Member,
        count: int,
        get_slice: Callable[[int], Planes],
        window: Callable[[int], Sequence[int]],
        boxes: Tensor | None = None,
    ) -> Iterator[Planes]:
        """Probabilities (classes, height, width) of `count` slices (channels, height, width) in
        turn. Each slice is encoded once, its mirror images in the same batch. `boxes` (slices, 4)
        are those of all slices on the network's grid.
        """
        network = member.network
        assert isinstance(network, WovenNetwork)
        device, dtype = device_of(network)
        layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        flips = self.flips

        def get_views(index: int) -> Tensor:
            image = torch.from_numpy(get_slice(index))[None]
            image = image if flips == "none" else with_flips(image, flips)
            return image.to(device=device, dtype=dtype, memory_format=layout)

        def get_boxes(index: int) -> Tensor:
            assert boxes is not None
            size = (int(get_slice(index).shape[-2]), int(get_slice(index).shape[-1]))
            return boxes_of_flips(boxes[index], size, flips).to(device)

        # A network with feedback runs several passes before its first output.
        next_mask = partial(mask_of, exclusive=self.target.kind == "exclusive")
        outputs = volume_outputs(
            network,
            count,
            get_views,
            window,
            get_prompt=None if boxes is None else get_boxes,
            next_mask=next_mask,
        )
        for _ in range(count):
            # Inside the loop, so that the code that takes the maps does not run in these modes.
            with (
                torch.inference_mode(),
                flushed_denormals(),
                torch.autocast(device.type, torch.bfloat16, enabled=member.precision == "bf16"),
            ):
                views = next(outputs).logits.float()
                maps = [_probabilities(logits, self.target) for logits in views]
                mean = maps[0] if flips == "none" else mean_of_flips(maps, flips)
                if member.apart:
                    mean = torch.cat([mean, *mirrored_back(maps, flips)])
                planes: Planes = mean.contiguous().cpu().numpy()
            yield planes


def _ready(network: nn.Module, spec: InputSpec, target: TargetSpec) -> WovenNetwork:
    """A copy of the network in eval mode with folded batch norms, woven if it was not."""
    woven = network
    if not isinstance(woven, WovenNetwork):
        classes = target.classes
        woven = weave(
            network, "identity", at="output", slices=spec.slices, classes=classes, channels=classes
        )
    # At a dotted name the weaving reads the output of that submodule.
    keep = () if woven.at in POSITIONS else (f"network.{woven.at}",)
    folded = fold_weights(woven, keep=keep)
    if device_of(folded)[0].type == "cpu":
        folded = folded.to(memory_format=torch.channels_last)
    return folded


def _probabilities(logits: Tensor, target: TargetSpec) -> Tensor:
    if logits.shape[0] != target.classes:
        raise UsageError(
            "predicting",
            expected=f"logits of {target.classes} channels ({target.kind}: "
            f"{', '.join(target.names)})",
            found=f"{logits.shape[0]} channels",
            remedy="create the network with these classes",
        )
    if target.kind == "image":
        return logits
    return logits.softmax(0) if target.kind == "exclusive" else logits.sigmoid()
