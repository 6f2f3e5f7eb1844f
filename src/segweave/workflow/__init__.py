"""Whole workflows as one call each: training a run, scoring a run, scoring files."""
