"""The run folder: its layout, model card, metrics file, environment and checkpoints."""
