"""Calibrate a torch classifier: one temperature, fitted on held-out logits, which changes no prediction.

python examples/calibrate_torch.py
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import softnll as sn
import softnll.torch as snt


def overconfident() -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of a network that was trained far too long, and labels, of rows it has not seen."""
    torch.manual_seed(0)
    X, y = load_digits(return_X_y=True)
    noise = np.random.default_rng(0).normal(0, 6, X.shape)
    x, labels = torch.tensor((X + noise) / 16).float(), torch.tensor(y)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        snt.cross_entropy(network(x[:600]), labels[:600]).backward()
        optimiser.step()
    with torch.no_grad():
        return network(x[600:]).numpy(), y[600:]


def main() -> tuple[float, float, float]:
    """Return the temperature, and the loss on test rows without and with it."""
    logits, y = overconfident()
    tau = sn.fit_temperature(logits[:600], y[:600])  # held-out rows: not those of training, not those of the test
    test, labels = logits[600:], y[600:]
    before, after = (float(sn.cross_entropy(test, labels, temperature=each)) for each in (1.0, tau))
    for name, each in (("before", 1.0), ("after", tau)):
        reliability = sn.ReliabilityDisplay.from_scores(test / np.float32(each), labels).reliability
        print(f"{name:6}  temperature {each:.3f}  calibration error {reliability.ece:.3f}")
    return tau, before, after


if __name__ == "__main__":
    print("temperature {:.3f}: loss {:.3f} before, {:.3f} after".format(*main()))
