"""Soft maps with what PySODMetrics 1.6.2 says of them, kept in saliency.npz, because the tool can't
share an environment with the versions that the project is tested with.

    pip install --no-deps pysodmetrics==1.6.2 scikit-learn joblib threadpoolctl narwhals \
        cloudpickle "opencv-python-headless<5"
    python -m tests.reference.saliency      writes the file again
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FILE = Path(__file__).with_suffix(".npz")
NAMES = ("mae", "sm", "wfm", "em-adaptive", "em-mean", "dice-mean", "iou-mean")


def made() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(soft maps, truths), 12 of 40 × 53; the first map is its own truth."""
    generator = np.random.default_rng(0)
    soft_maps, truths = [], []
    for number in range(12):
        noise = ndimage.gaussian_filter(generator.normal(size=(40, 53)), 4)
        truth = noise > 0.02
        blurred = ndimage.gaussian_filter(truth * 1.0, 3) + generator.normal(size=truth.shape) / 10
        soft_map = (255 * np.clip(blurred, 0, 1)).round().astype(np.uint8)
        soft_map.flat[:2] = 0, 255
        soft_maps.append(truth * np.uint8(255) if number == 0 else soft_map)
        truths.append(truth)
    return np.array(soft_maps), np.array(truths)


def of_the_tool(soft_map: NDArray[np.uint8], truth: NDArray[np.bool_]) -> dict[str, float]:
    """PySODMetrics' numbers, by NAMES."""
    import py_sod_metrics as sod

    handlers = {
        "dice": sod.DICEHandler(with_dynamic=True, with_adaptive=False),
        "iou": sod.IOUHandler(with_dynamic=True, with_adaptive=False),
    }

    def asked(tool: Any) -> Any:
        tool.step(soft_map, truth * np.uint8(255))
        return tool.get_results()

    enhanced = asked(sod.Emeasure())["em"]
    counted = asked(sod.FmeasureV2(metric_handlers=handlers))
    return {
        "mae": float(asked(sod.MAE())["mae"]),
        "sm": float(asked(sod.Smeasure())["sm"]),
        "wfm": float(asked(sod.WeightedFmeasure())["wfm"]),
        "em-adaptive": float(enhanced["adp"]),
        "em-mean": float(enhanced["curve"].mean()),
        "dice-mean": float(counted["dice"]["dynamic"].mean()),
        "iou-mean": float(counted["iou"]["dynamic"].mean()),
    }


def main() -> None:
    soft_maps, truths = made()
    rows = [of_the_tool(*pair) for pair in zip(soft_maps, truths, strict=True)]
    values = np.array([[row[name] for name in NAMES] for row in rows])
    np.savez_compressed(FILE, soft_maps=soft_maps, truths=truths, values=values)


if __name__ == "__main__":
    main()
