"""Prediction: an image in, a label map in the image's own geometry out."""

from segweave.data.specs import PALETTE, class_colours
from segweave.prediction.files import (
    PredictionFailure,
    PredictionReport,
    predict_files,
)
from segweave.prediction.flips import Flips
from segweave.prediction.measurements import Measurement, measure
from segweave.prediction.overlay import display_slices, draw_overlay, draw_slice
from segweave.prediction.predictor import Ensemble, Predictor, load, load_ensemble, predict
from segweave.prediction.progress_file import PredictedFile
from segweave.prediction.session import Prediction, Predicts, Session
from segweave.prediction.tiles import Tiles

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
    "display_slices",
    "draw_overlay",
    "draw_slice",
    "load",
    "load_ensemble",
    "measure",
    "predict",
    "predict_files",
]
