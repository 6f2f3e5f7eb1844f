"""Reports: figures and one self-contained HTML page from runs and evaluations."""

from __future__ import annotations

from segweave.report.comparison_report import difference_dots, write_comparison
from segweave.report.figures import (
    Panel,
    panels,
    prediction_panel,
    save_figure,
    score_dots,
    training_curves,
)
from segweave.report.page import Image, Page, Section, Table, write_page
from segweave.report.run_report import write_report
from segweave.report.scored_files import write_scores

__all__ = [
    "Image",
    "Page",
    "Panel",
    "Section",
    "Table",
    "difference_dots",
    "panels",
    "prediction_panel",
    "save_figure",
    "score_dots",
    "training_curves",
    "write_comparison",
    "write_page",
    "write_report",
    "write_scores",
]
