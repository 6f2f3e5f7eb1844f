"""What a program runs on: random streams, devices, denormal numbers."""
