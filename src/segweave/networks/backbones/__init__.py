"""Encoders that several networks share. Each computes what the timm model of its name computes, so
that ImageNet weights load.
"""
