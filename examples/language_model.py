"""A tiny language model and text for the examples that train one: randomly initialised, nothing is downloaded."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY, LENGTH = 512, 32


def model() -> LlamaForCausalLM:
    """Return the same model at each call."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=LENGTH, **sizes))


def texts(count: int = 64) -> list[dict[str, torch.Tensor]]:
    """Return texts in which each token follows from the one before, as ``Trainer`` takes them."""
    start = torch.randint(VOCABULARY, (count, 1), generator=torch.Generator().manual_seed(0))
    tokens = (start + 7 * torch.arange(LENGTH)) % VOCABULARY
    return [{"input_ids": each, "labels": each} for each in tokens]
