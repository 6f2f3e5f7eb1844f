"""Prediction: an image in, a label map in the image's own geometry out."""

from segweave.data.colours import PALETTE, class_colours
from segweave.prediction.ensemble import Ensemble, load_ensemble
from segweave.prediction.files import (
    PredictedFile,
    PredictionFailure,
    PredictionReport,
    predict_files,
)
from segweave.prediction.flips import Flips
from segweave.prediction.overlay import draw_overlay
from segweave.prediction.predict import (
    Prediction,
    network_probabilities,
    predict,
    predict_cases,
)
from segweave.prediction.predictor import Predictor, load
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
    "Tiles",
    "class_colours",
    "draw_overlay",
    "load",
    "load_ensemble",
    "network_probabilities",
    "predict",
    "predict_cases",
    "predict_files",
]
