"""Fine-tune a transformer in a plain loop with gradient accumulation and a fused head.

A step's loss is the mean over the tokens of all its parts: each part's sum is divided by the number of all tokens.

python examples/finetune_loop.py
"""

from __future__ import annotations

import torch
from language_model import model, texts

import softnll.torch as snt

PARTS, ROWS = 4, 4  # a step of 16 texts, 4 at a time


def main(*, fused: bool = True, parts: int = PARTS, steps: int = 20) -> list[float]:
    """Train, and return the loss of each step."""
    network, losses = model().train(), []
    if fused:
        snt.fuse(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    tokens = torch.stack([each["input_ids"] for each in texts()])
    for step in range(steps):
        first = step * PARTS * ROWS % len(tokens)
        batch = tokens[first : first + PARTS * ROWS]
        count, total = batch[:, 1:].numel(), 0.0
        optimiser.zero_grad()
        for part in batch.tensor_split(parts):
            logits = network(part).logits  # lazy: features and the head's weight
            loss = snt.cross_entropy(logits[:, :-1].flatten(0, 1), part[:, 1:].flatten(), reduction="sum") / count
            loss.backward()
            total += loss.item()
        optimiser.step()
        losses.append(total)
    return losses


if __name__ == "__main__":
    found = main()
    print(f"loss {found[0]:.3f} to {found[-1]:.3f}")
