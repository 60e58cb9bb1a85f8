"""The interactive page about scores, loss and gradient, in one file that needs nothing else."""
