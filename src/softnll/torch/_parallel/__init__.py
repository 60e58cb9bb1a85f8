"""Losses of logits whose classes are divided among the ranks of a process group."""
