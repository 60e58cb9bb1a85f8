"""The interactive page: scores, loss and gradient to play with, in one file that needs nothing else."""

from softnll.page.build import build

__all__ = ["build"]
