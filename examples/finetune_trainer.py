"""Fine-tune a transformer with the transformers Trainer and a fused head: one line more, and no N × V logits.

python examples/finetune_trainer.py
"""

from __future__ import annotations

import tempfile

from language_model import model, texts
from transformers import Trainer, TrainingArguments

import softnll.torch as snt


def main(*, fused: bool = True, steps: int = 30) -> list[float]:
    """Train, and return the losses that the Trainer logs."""
    network = model()
    if fused:
        snt.fuse(network)  # the one line: the model's own forward and loss stay as they are
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            learning_rate=1e-2,
            logging_steps=5,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            seed=0,
        )
        trainer = Trainer(network, arguments, train_dataset=texts())
        trainer.train()
    return [each["loss"] for each in trainer.state.log_history if "loss" in each]


if __name__ == "__main__":
    losses = [float(each) for each in main()]
    print(f"loss {losses[0]:.3f} to {losses[-1]:.3f}")
