"""Protocols, per-case scores, their folders and tables."""

from segweave.evaluation.families.volumes import acdc as published
from segweave.evaluation.folder import new_manifest, read_evaluation, write_evaluation
from segweave.evaluation.label_folders import evaluate_folders
from segweave.evaluation.protocols import (
    Needs,
    Protocol,
    clean,
    get_protocol,
    list_protocols,
    score_case,
    score_rows,
)
from segweave.evaluation.rows import Estimate, Evaluation, Manifest, MetricEntry, Row, Summary
from segweave.evaluation.score_cases import Scored, evaluate_cases, validation_scores
from segweave.evaluation.scores import Score, check_metrics, nearest_zoom, needs_probabilities
from segweave.evaluation.summary import estimate, summarise
from segweave.evaluation.tables import Table, summary_table

__all__ = [
    "Estimate",
    "Evaluation",
    "Manifest",
    "MetricEntry",
    "Needs",
    "Protocol",
    "Row",
    "Score",
    "Scored",
    "Summary",
    "Table",
    "check_metrics",
    "clean",
    "estimate",
    "evaluate_cases",
    "evaluate_folders",
    "get_protocol",
    "list_protocols",
    "nearest_zoom",
    "needs_probabilities",
    "new_manifest",
    "published",
    "read_evaluation",
    "score_case",
    "score_rows",
    "summarise",
    "summary_table",
    "validation_scores",
    "write_evaluation",
]
