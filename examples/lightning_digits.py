"""Train a network on scikit-learn's digits with Lightning: softnll's loss in ``training_step``.

pip install lightning
python examples/lightning_digits.py
"""

from __future__ import annotations

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import softnll.torch as snt


class Classifier(lightning.LightningModule):
    """Two layers, and the loss of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.criterion = snt.CrossEntropyLoss()

    def training_step(self, batch, _):
        x, y = batch
        return self.criterion(self.network(x), y)

    def validation_step(self, batch, _):
        x, y = batch
        logits = self.network(x)
        self.log("accuracy", (logits.argmax(1) == y).float().mean())
        self.log("nll", snt.cross_entropy(logits, y))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def main(epochs: int = 10) -> float:
    """Train, and return the accuracy on held-out rows."""
    lightning.seed_everything(0, verbose=False)
    X, y = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(X / 16).float(), torch.tensor(y))
    train, held_out = torch.utils.data.random_split(data, [1400, 397])
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", **quiet)
    trainer.fit(Classifier(), DataLoader(train, 64, shuffle=True), DataLoader(held_out, 397))
    return float(trainer.callback_metrics["accuracy"])


if __name__ == "__main__":
    print(f"accuracy {main():.3f}")
