"""Public data sets: one file a data set, found by its card."""
