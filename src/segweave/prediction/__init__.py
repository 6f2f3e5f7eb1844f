"""Prediction: an image in, a label map in the image's own geometry out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segweave.data.specs import PALETTE, class_colours
    from segweave.prediction.box_file import read_boxes
    from segweave.prediction.files import (
        PredictionFailure,
        PredictionReport,
        Predicts,
        predict_files,
    )
    from segweave.prediction.flips import Flips
    from segweave.prediction.measurements import Measurement, measure
    from segweave.prediction.overlay import (
        direction_letters,
        display_slices,
        draw_overlay,
        draw_slice,
    )
    from segweave.prediction.planning import PredictedFile
    from segweave.prediction.predictor import Ensemble, Predictor, load, load_ensemble, predict
    from segweave.prediction.results import Prediction
    from segweave.prediction.session import Session
    from segweave.prediction.tiles import Tiles

_PUBLIC = {
    "PALETTE": "segweave.data.specs",
    "Ensemble": "segweave.prediction.predictor",
    "Flips": "segweave.prediction.flips",
    "Measurement": "segweave.prediction.measurements",
    "PredictedFile": "segweave.prediction.planning",
    "Prediction": "segweave.prediction.results",
    "PredictionFailure": "segweave.prediction.files",
    "PredictionReport": "segweave.prediction.files",
    "Predictor": "segweave.prediction.predictor",
    "Predicts": "segweave.prediction.files",
    "Session": "segweave.prediction.session",
    "Tiles": "segweave.prediction.tiles",
    "class_colours": "segweave.data.specs",
    "direction_letters": "segweave.prediction.overlay",
    "display_slices": "segweave.prediction.overlay",
    "draw_overlay": "segweave.prediction.overlay",
    "draw_slice": "segweave.prediction.overlay",
    "load": "segweave.prediction.predictor",
    "load_ensemble": "segweave.prediction.predictor",
    "measure": "segweave.prediction.measurements",
    "predict": "segweave.prediction.predictor",
    "predict_files": "segweave.prediction.files",
    "read_boxes": "segweave.prediction.box_file",
}

__all__ = [
    "PALETTE",
    "Ensemble",
    "Flips",
    "Measurement",
    "PredictedFile",
    "Prediction",
    "PredictionFailure",
    "PredictionReport",
    "Predictor",
    "Predicts",
    "Session",
    "Tiles",
    "class_colours",
    "direction_letters",
    "display_slices",
    "draw_overlay",
    "draw_slice",
    "load",
    "load_ensemble",
    "measure",
    "predict",
    "predict_files",
    "read_boxes",
]


def __getattr__(name: str) -> Any:
    # Lazy, so that inputs and options are checked before torch is imported.
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'segweave.prediction' has no attribute {name!r}")
