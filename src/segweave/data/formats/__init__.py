"""File formats: images and volumes in, label maps out."""
