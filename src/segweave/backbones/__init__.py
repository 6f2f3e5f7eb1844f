"""Backbones that several networks share: one file each, from timm where timm has them."""
