"""A metric of a user's file is computed by both commands that score."""

from __future__ import annotations

from pathlib import Path

from segweave.evaluation import read_evaluation

from .conftest import Command

PLUGIN = '''
from segweave.registry import MetricCard
CARD = MetricCard(name="share", title="Share of the slice", entry="share", label="Share")
def share(prediction, reference):
    """Predicted pixels, divided by all pixels."""
    return float(prediction.mean())
'''


def test_a_plug_in_metric_is_scored_for_runs_and_files(
    command: Command, made: Path, tmp_path: Path
) -> None:
    plugin = tmp_path / "share.py"
    plugin.write_text(PLUGIN)
    out = tmp_path / "scores"
    words = ["--plugin", plugin, "evaluate", made / "run", "--part", "validation", "-q"]
    seen = command(*words, "--metric", "share", "--metric", "ece", "--out", out)
    assert seen.code == 0, seen.err
    found = read_evaluation(out)
    assert {"share", "ece", "dice"} <= {row.score.metric for row in found.rows}
    assert "Share" in seen.out
    labels = Path(found.manifest.sources["predictions"])
    words = ["--plugin", plugin, "score", labels, labels, "--metric", "share", "-q"]
    seen = command(*words, "--out", tmp_path / "files", "--geometry", "pixdim")
    assert seen.code == 0, seen.err
    rows = read_evaluation(tmp_path / "files").rows
    assert {"share"} <= {row.score.metric for row in rows}
    command("evaluate", made / "run", "--metric", "dise").refused("did you mean dice")
