"""Prediction: an image in, a label map in the image's own geometry out."""

from segweave.data.specs import PALETTE, class_colours
from segweave.prediction.box_file import read_boxes
from segweave.prediction.files import (
    PredictionFailure,
    PredictionReport,
    predict_files,
)
from segweave.prediction.flips import Flips
from segweave.prediction.overlay import draw_overlay
from segweave.prediction.predictor import Ensemble, Predictor, load, load_ensemble, predict
from segweave.prediction.progress_file import PredictedFile
from segweave.prediction.session import Prediction, Session
from segweave.prediction.tiles import Tiles

__all__ = [
    "PALETTE",
    "Ensemble",
    "Flips",
    "PredictedFile",
    "Prediction",
    "PredictionFailure",
    "PredictionReport",
    "Predictor",
    "Session",
    "Tiles",
    "class_colours",
    "draw_overlay",
    "load",
    "load_ensemble",
    "predict",
    "predict_files",
    "read_boxes",
]
