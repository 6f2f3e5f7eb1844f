"""Published splits as lists of ids, each with its source."""
