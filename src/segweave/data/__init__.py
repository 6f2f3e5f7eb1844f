"""Cases, the store, windows, augmentation and splits."""
