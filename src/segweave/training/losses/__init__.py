"""Training losses: one file per loss, found by its card.

A loss is made with the TargetSpec and the options of its term. Its card says how it is called: with
one map of the network's output and the label, or with the whole Output and the label.
"""
