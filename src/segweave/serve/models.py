"""The models of a service, loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segweave.data.specs import class_colours
from segweave.errors import UsageError
from segweave.prediction import Session, load
from segweave.recipes.recipe import Precision

_SHOWN = (
    "title", "arm", "network", "context", "parameters", "weights_sha256", "scores", "limits",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Model:
    """A model that the service offers.

    Attributes:
        name: the name of its folder.
        session: the network, ready to predict.
        card: what clients are shown of its model card: no paths, and nobody of the training data.
    """

    name: str
    session: Session
    card: dict[str, Any]

    @property
    def segments(self) -> bool:
        """Whether it segments; one that predicts an image denoises before another."""
        return self.session.target.task == "labels"


def load_models(
    paths: Sequence[str | Path], *, device: str = "auto", precision: Precision = "32"
) -> dict[str, Model]:
    """Load run folders and model folders; the name of each is that of its folder.

    Raises what `segweave.load` raises, and UsageError without models and where two have one name.
    """
    doing = "loading the models of a service"
    if not paths:
        raise UsageError(doing, expected="at least one run folder or model folder", found="none")
    models: dict[str, Model] = {}
    for path in map(Path, paths):
        name = path.resolve().name
        if name in models:
            raise UsageError(
                doing,
                file=path,
                expected="folders of different names, as they name the models",
                found=f"{name} twice",
                remedy="rename one of them, or link it under another name",
            )
        predictor = load(path, device=device, precision=precision)
        session = predictor.session()
        # A network that segments what is in a box is refused: jobs have no boxes.
        session.check_boxes(None)
        models[name] = Model(name, session, _public_card(name, predictor.card))
        target, spec = predictor.target, predictor.input
        models[name].card.update(
            target=target.model_dump(mode="json"),
            colours={target.foreground[k]: v for k, v in class_colours(target).items()},
            input={"channels": list(spec.channels), "slices": spec.slices},
        )
    if not any(model.segments for model in models.values()):
        raise UsageError(
            doing,
            expected="at least one model that segments",
            found=f"{', '.join(models)}, which predict images",
            remedy="denoise files with segweave denoise",
        )
    return models


def _public_card(name: str, card: dict[str, Any]) -> dict[str, Any]:
    data = card.get("training_data")
    shown = {key: card[key] for key in _SHOWN if key in card}
    if isinstance(data, dict):
        shown["training_data"] = {key: data[key] for key in ("name", "cases") if key in data}
    return {"name": name} | shown
