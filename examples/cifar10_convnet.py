"""Train a small convolutional network on CIFAR-10; the loss is the one line that is not torch's.

python examples/cifar10_convnet.py           (data: docs/data.md; without it, made-up images of ten colours)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import softnll.torch as snt
from softnll.data import DataError, DownloadError, load


def images(most: int) -> tuple[torch.Tensor, ...]:
    """Return training and test images (N, 3, 32, 32) with labels: CIFAR-10's, or ten colours and noise."""
    try:
        found = [(each.pixels()[:most], each.labels[:most]) for each in load("cifar10", download=False)]
    except (DataError, DownloadError):
        print("CIFAR-10 is not here: made-up images")
        rng = np.random.default_rng(0)
        colours, found = rng.integers(60, 200, (10, 3)), []
        for n in (most, most // 5):
            y = rng.integers(0, 10, n)
            found.append((np.clip(colours[y][:, None, None] + rng.normal(0, 60, (n, 32, 32, 3)), 0, 255), y))
    pairs = [(torch.tensor(x / 255.0).float().permute(0, 3, 1, 2) - 0.45, torch.tensor(y)) for x, y in found]
    return *pairs[0], *pairs[1]


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a convolution that halves the image."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))


def main(epochs: int = 3, most: int = 10_000) -> float:
    """Train, print each epoch's loss, and return the accuracy on test images."""
    torch.manual_seed(0)
    x, y, x_test, y_test = images(most)
    network = nn.Sequential(block(3, 32), block(32, 64), block(64, 128), nn.Flatten(), nn.Linear(2048, 10))
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    criterion = snt.CrossEntropyLoss(label_smoothing=0.05)  # nn.CrossEntropyLoss before
    for epoch in range(epochs):
        network.train()
        for rows in torch.randperm(len(x)).split(128):
            optimiser.zero_grad()
            loss = criterion(network(x[rows]), y[rows])
            loss.backward()
            optimiser.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")
    network.eval()
    with torch.no_grad():
        predicted = torch.cat([network(part).argmax(1) for part in x_test.split(500)])
    return (predicted == y_test).float().mean().item()


if __name__ == "__main__":
    print(f"accuracy {main():.3f}")
