"""The demo: synthetic hearts, a UNet alone and with each module, scores, a figure, a report."""

from segweave.demo.demo import ARMS, HEADING, QUICK, Demo, Settings, run_demo

__all__ = ["ARMS", "HEADING", "QUICK", "Demo", "Settings", "run_demo"]
