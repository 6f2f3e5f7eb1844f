"""Synthetic images in the raw layout of public data sets: tests and demos need no download."""
