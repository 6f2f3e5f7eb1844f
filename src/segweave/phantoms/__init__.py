"""Made images in the raw layout of public data sets, so that tests and demos need no download."""
