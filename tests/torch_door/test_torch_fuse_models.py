"""Fused heads in models of transformers, randomly initialised: the same training, generation and files; less memory."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import softnll.torch as snt
from softnll.torch._lazy.tensor import LazyLogits

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: fuse is untested on its models"
)

V, STEPS = 211, 50
SMALL = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = {
    "GPT2": ("lm_head", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "Llama": ("lm_head", {}),
    "Qwen2": ("lm_head", {"tie_word_embeddings": True}),
    "Qwen3": ("lm_head", {"head_dim": 8}),
    "Gemma2": ("lm_head", {"head_dim": 8, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8}),
    "Mistral": ("lm_head", {}),
    "Phi": ("lm_head", {}),
    "OPT": ("lm_head", {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0}),
    "Cohere": ("lm_head", {"logit_scale": 0.25}),
    "Granite": ("lm_head", {"logits_scaling": 4.0}),
    "GPTNeoX": ("lm_head", {}),
    "Bert": ("cls.predictions.decoder", {}),
}


def model_of(family):
    """Return a small model with dropout off, the same at each call."""
    changes = {**SMALL, **FAMILIES[family][1]}
    config = getattr(transformers, f"{family}Config")(**changes)
    for name in vars(config):
        if "drop" in name and isinstance(getattr(config, name), float):
            setattr(config, name, 0.0)
    torch.manual_seed(0)
    kind = "ForMaskedLM" if family == "Bert" else "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    return getattr(transformers, family + kind)(config).train()


def batch(rows=4, length=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, V, (rows, length), generator=generator)
    labels = ids.clone()
    labels[:, :3] = -100
    return ids, labels


def trained(model, given=None, autocast=None):
    """Return the losses of some steps; every one without logits if the model is fused."""
    ids, labels = batch()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    curve = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            output = model(input_ids=ids, labels=labels, **(given or {}))
        output.loss.backward()
        optimiser.step()
        curve.append(output.loss.item())
        if isinstance(output.logits, LazyLogits):
            assert output.logits._ordinary is None
    return curve


@pytest.mark.parametrize("family", FAMILIES)
def test_fifty_steps_are_those_of_the_unfused_model(family):
    ordinary, fused = model_of(family), snt.fuse(model_of(family), FAMILIES[family][0])
    ids, labels = batch()
    assert isinstance(fused(input_ids=ids, labels=labels).logits, LazyLogits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = trained(fused)
    np.testing.assert_allclose(ours, trained(ordinary), rtol=2e-3)
    assert ours[-1] < ours[0] - 1
    assert list(fused.state_dict()) == list(ordinary.state_dict())


@pytest.mark.parametrize("family", FAMILIES)
def test_one_step_has_the_gradients_of_the_unfused_model(family):
    ordinary, fused = model_of(family), snt.fuse(model_of(family), FAMILIES[family][0])
    ids, labels = batch()
    for model in (ordinary, fused):
        model(input_ids=ids, labels=labels).loss.backward()
    for (name, a), (_, b) in zip(fused.named_parameters(), ordinary.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "Bert"])
def test_generation_gives_the_same_tokens(family):
    ordinary, fused = model_of(family).eval(), snt.fuse(model_of(family).eval(), FAMILIES[family][0])
    ids = batch(2, 5)[0]
    for how in ({"do_sample": False}, {"do_sample": True, "top_k": 20}, {"num_beams": 3}):
        tokens = []
        for model in (ordinary, fused):
            torch.manual_seed(3)
            tokens.append(model.generate(ids, max_new_tokens=8, pad_token_id=0, **how))
        assert torch.equal(*tokens), how


def test_bfloat16_and_autocast():
    for setting in ("bfloat16", "autocast"):
        curves = []
        for fused in (False, True):
            model = model_of("Llama")
            if fused:
                snt.fuse(model)
            if setting == "bfloat16":
                model = model.bfloat16()
            curves.append(trained(model, autocast=torch.bfloat16 if setting == "autocast" else None))
        np.testing.assert_allclose(curves[1], curves[0], rtol=0.15)
        assert curves[1][-1] < curves[1][0] / 2


def test_gradient_checkpointing():
    ordinary, fused = model_of("Llama"), snt.fuse(model_of("Llama"))
    for model in (ordinary, fused):
        model.activation_checkpointing_enable()
    np.testing.assert_allclose(trained(fused), trained(ordinary), rtol=2e-3)


def test_accumulated_losses_are_divided_by_all_tokens():
    ordinary, fused = model_of("Llama"), snt.fuse(model_of("Llama"))
    given = {"num_items_in_batch": torch.tensor(77)}
    np.testing.assert_allclose(trained(fused, given), trained(ordinary, given), rtol=2e-3)


def test_tied_embeddings_stay_tied():
    model = snt.fuse(model_of("Qwen2"))
    trained(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_saving_and_loading(tmp_path):
    model = snt.fuse(model_of("Llama"))
    model.save_pretrained(tmp_path)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    ids, labels = batch()
    with torch.no_grad():
        torch.testing.assert_close(again(ids, labels=labels).loss, model(ids, labels=labels).loss)
        assert torch.equal(again(ids).logits, model(ids).logits + 0)
    assert type(again.lm_head) is torch.nn.Linear


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile's own, which it hides
def test_compiled_model():
    model = snt.fuse(model_of("Llama"))
    ids, labels = batch()
    expected = copy.deepcopy(model)(ids, labels=labels).loss
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager")(ids, labels=labels)
    torch.testing.assert_close(compiled.loss, expected)
    assert isinstance(compiled.logits, LazyLogits)
    assert compiled.logits._ordinary is None


def test_trainer(tmp_path):
    pytest.importorskip("accelerate", reason="accelerate is not installed: the Trainer is untested")
    rows = [{"input_ids": ids, "labels": labels} for ids, labels in zip(*batch(16), strict=True)]
    histories = []
    for fused in (False, True):
        model = model_of("Llama")
        if fused:
            snt.fuse(model)
        settings = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=8,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            learning_rate=3e-3,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=4,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = transformers.Trainer(
            model,
            settings,
            train_dataset=rows,
            eval_dataset=rows[:5],
            compute_metrics=lambda given: {"mean": float(given.predictions.mean())},
        )
        trainer.train()
        log = trainer.state.log_history
        histories.append([each[key] for each in log for key in ("loss", "eval_loss", "eval_mean") if key in each])
    assert len(histories[0]) == 8 + 2 * 2
    np.testing.assert_allclose(histories[1], histories[0], rtol=2e-3, atol=1e-4)


PEAK = """
import json, sys, torch, transformers
import softnll.torch as snt

def line(name):
    with open("/proc/self/status") as file:
        return next(int(each.split()[1]) * 1024 for each in file if each.startswith(name))

config = transformers.LlamaConfig(vocab_size=50_000, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                                  num_attention_heads=2)
torch.manual_seed(0)
model = transformers.LlamaForCausalLM(config)
if sys.argv[1] == "fused":
    snt.fuse(model)
ids = torch.randint(0, 50_000, (4, 256))
model(ids[:1, :4], labels=ids[:1, :4]).loss.backward()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = line("VmRSS")
loss = model(ids, labels=ids).loss
loss.backward()
print(json.dumps([loss.item(), line("VmHWM") - before]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc, which is Linux's")
def test_peak_memory_falls_as_planned():
    found = {}
    for how in ("ordinary", "fused"):
        done = subprocess.run([sys.executable, "-c", PEAK, how], capture_output=True, text=True, check=True)
        found[how] = json.loads(done.stdout)
    assert found["fused"][0] == pytest.approx(found["ordinary"][0], rel=1e-5)
    head = torch.zeros(50_000, 32, requires_grad=True)
    plan = snt.plan(torch.zeros(1024, 32, requires_grad=True), head, torch.zeros(1024, dtype=torch.int64))
    logits = 1024 * 50_000 * 4
    assert found["ordinary"][1] > 1.9 * logits  # what it is that falls: logits, log-probabilities, their gradient
    assert found["fused"][1] < plan.peak_bytes + logits / 4  # the rest of the model has a few arrays of its own
