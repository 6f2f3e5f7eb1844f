"""Metrics: pure functions on arrays; spacing is required (None means pixels)."""
