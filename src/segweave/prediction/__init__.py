"""Prediction: an image in, a label map in the image's own geometry out."""

from segweave.prediction.batch import (
    PredictedFile,
    PredictionFailure,
    PredictionReport,
    predict_files,
)
from segweave.prediction.colours import PALETTE, class_colours
from segweave.prediction.overlay import draw_overlay
from segweave.prediction.predict import (
    Prediction,
    network_probabilities,
    predict,
    predict_cases,
)
from segweave.prediction.predictor import Predictor, load

__all__ = [
    "PALETTE",
    "PredictedFile",
    "Prediction",
    "PredictionFailure",
    "PredictionReport",
    "Predictor",
    "class_colours",
    "draw_overlay",
    "load",
    "network_probabilities",
    "predict",
    "predict_cases",
    "predict_files",
]
