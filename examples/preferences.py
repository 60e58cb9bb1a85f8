"""DPO and GRPO from per-token log-probabilities: ``token_stats`` computes them without storing N × V logits.

python examples/preferences.py
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

import softnll.torch as snt

CLIP, KL = 0.2, 0.04  # of GRPO


def token_log_probs(features: Tensor, head: Tensor, tokens: Tensor) -> Tensor:
    """Return log p of each token (B, T), 0 where the token is −100, of features (B, T, H) and the head (V, H)."""
    return snt.token_stats(features, head, tokens).log_prob


def dpo_loss(chosen: Tensor, rejected: Tensor, chosen_before: Tensor, rejected_before: Tensor, beta: float) -> Tensor:
    """Return −log σ(β·[log π/π₀(chosen) − log π/π₀(rejected)]) of log-probabilities (B, T): Rafailov et al. (2023)."""
    margin = (chosen - chosen_before).sum(1) - (rejected - rejected_before).sum(1)
    return -logsigmoid(beta * margin).mean()


def grpo_loss(now: Tensor, old: Tensor, reference: Tensor, rewards: Tensor, mask: Tensor) -> Tensor:
    """Return the clipped policy loss with the rewards' standard scores as advantages, and a penalty on the divergence.

    Shao et al. (2024), "DeepSeekMath": log-probabilities and mask (G, T) of a group of answers, rewards (G,).
    """
    advantage = ((rewards - rewards.mean()) / (rewards.std() + 1e-4))[:, None]
    ratio = (now - old).exp()
    policy = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    divergence = (reference - now).exp() - (reference - now) - 1  # never negative, unbiased
    return -(((policy - KL * divergence) * mask).sum(1) / mask.sum(1)).mean()


def main(steps: int = 50) -> tuple[float, float]:
    """Train a head on pairs of answers by DPO, and return the loss before and after."""
    torch.manual_seed(0)
    features, head = torch.randn(2, 8, 12, 16), torch.nn.Parameter(torch.randn(300, 16) / 4)
    tokens = torch.randint(300, (2, 8, 12))
    tokens[:, :, 9:] = -100  # padding
    before = token_log_probs(features, head.detach(), tokens)
    optimiser, losses = torch.optim.Adam([head], lr=1e-2), []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = dpo_loss(*token_log_probs(features, head, tokens), *before, beta=0.1)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


if __name__ == "__main__":
    print("DPO: loss {:.4f} before, {:.4f} after".format(*main()))
