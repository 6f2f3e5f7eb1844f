"""Training losses: one file a loss, found by its card. Each reads logits and labels, and knows the
target.
"""
