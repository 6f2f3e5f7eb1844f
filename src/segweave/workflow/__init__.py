"""Whole workflows as one call each: train a run, score a run, score files."""
