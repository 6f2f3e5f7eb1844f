"""Cases, the store, windows and augmentation; files, public data sets, phantoms and splits."""
