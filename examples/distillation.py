"""Distil a teacher into a student from the teacher's k likeliest classes alone: sparse targets, no N × V arrays.

python examples/distillation.py
"""

from __future__ import annotations

import torch
from torch import nn

import softnll.torch as snt

VOCABULARY, TOP, TEMPERATURE = 500, 16, 2.0


def teacher_targets(features: torch.Tensor, head: torch.Tensor, top: int = TOP) -> snt.SparseTargets:
    """Return the teacher's k likeliest classes with their probabilities, which are made to sum to 1.

    They are what a data set of distillation stores: 16 numbers a token instead of 500.
    """
    best = (features @ head.T / TEMPERATURE).softmax(1).topk(top)
    return snt.SparseTargets(best.indices, best.values / best.values.sum(1, keepdim=True))


def main(steps: int = 200) -> tuple[float, float]:
    """Train, and return how often student and teacher predict the same class, before and after."""
    torch.manual_seed(0)
    inputs = torch.randn(1024, 16)
    teacher = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, VOCABULARY))
    student = nn.Sequential(nn.Linear(16, 64), nn.Tanh())
    head = nn.Parameter(torch.randn(VOCABULARY, 64) / 8)
    with torch.no_grad():
        teacher[2].weight *= 10
        features = teacher[:2](inputs)
        targets = teacher_targets(features, teacher[2].weight)
        best = (features @ teacher[2].weight.T).argmax(1)

    def agreement() -> float:
        return ((student(inputs) @ head.T).argmax(1) == best).float().mean().item()

    before = agreement()
    optimiser = torch.optim.Adam([*student.parameters(), head], lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = snt.linear_cross_entropy(student(inputs), head, targets, temperature=TEMPERATURE)
        (TEMPERATURE**2 * loss).backward()  # Hinton, Vinyals, Dean (2015): gradients keep their size
        optimiser.step()
    return before, agreement()


if __name__ == "__main__":
    print("agreement with the teacher: {:.3f} before, {:.3f} after".format(*main()))
