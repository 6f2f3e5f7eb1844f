"""Augmentations: random changes of training images, one file per augmentation, found by its card.

Each draws from streams of (seed, epoch, case, slice, name), so that neither the batch layout nor
another augmentation of the recipe changes what it does. They act on normalised images, a whole
batch at a time, on the training's device. All slices of a window share one draw, and numbers that
are measured in an image are measured in the middle slice, so that networks that read windows of
different lengths are trained on the same middle slices.
"""
