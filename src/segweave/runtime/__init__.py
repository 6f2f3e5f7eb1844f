"""What a program runs on: random streams, devices, progress."""
