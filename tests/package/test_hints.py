"""Errors of the usual mistakes say what to write instead, on every array library."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import softnll as sn
import softnll.jax as snj
import softnll.torch as snt

B, T, V = 2, 5, 7
LOGITS, TOKENS = np.zeros((B, T, V), np.float32), np.zeros((B, T), np.int64)
ROWS, CLASSES = np.zeros((6, 4), np.float32), np.zeros(6, np.int64)
AXIS = "the classes seem to be on (axis|dim)"
ONE_HOT = r"of one-hot rows pass target(s?)\.argmax\(1\) or target(s?)"
SWAPPED = "the arguments seem to be swapped: (logits|input) come first"


def tensor(array):
    return torch.from_numpy(np.asarray(array))


@pytest.mark.parametrize("call", [sn.cross_entropy, sn.nll_loss, sn.cross_entropy_and_grad, snj.cross_entropy])
def test_classes_on_another_axis_are_found(call):
    with pytest.raises(ValueError, match=rf"{AXIS} 1: pass axis=-2$"):
        call(LOGITS.swapaxes(1, 2), TOKENS)


@pytest.mark.parametrize("call", [snt.cross_entropy, snt.CrossEntropyLoss(), snt.nll_loss])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_torch_wants_classes_in_the_second_dimension_and_says_how_to_move_them(call, device):
    x, y = tensor(LOGITS).to(device), tensor(TOKENS).to(device)
    with pytest.raises(ValueError, match=rf"{AXIS} 2: pass input\.movedim\(-1, 1\)$"):
        call(x, y)
    call(x.movedim(-1, 1), y)


def test_one_hot_integers_are_named():
    one_hot = np.eye(4, dtype=np.int64)[CLASSES]
    with pytest.raises(ValueError, match=ONE_HOT + r"\.astype\(float\)$"):
        sn.cross_entropy(ROWS, one_hot)
    with pytest.raises(ValueError, match=ONE_HOT + r"\.astype\(float\)$"):
        snj.cross_entropy(jnp.asarray(ROWS), jnp.asarray(one_hot))
    with pytest.raises(ValueError, match=ONE_HOT + r"\.float\(\)$"):
        snt.cross_entropy(tensor(ROWS), tensor(one_hot))
    with pytest.raises(ValueError, match=ONE_HOT + r"\.float\(\)$"):
        snt.linear_cross_entropy(tensor(ROWS), torch.zeros(4, 4), tensor(one_hot))


@pytest.mark.parametrize(
    ("call", "x", "y"),
    [
        (sn.cross_entropy, ROWS, CLASSES),
        (snj.cross_entropy, ROWS, CLASSES),
        (snt.cross_entropy, tensor(ROWS), tensor(CLASSES)),
        (snt.CrossEntropyLoss(), tensor(ROWS), tensor(CLASSES)),
        (snt.cross_entropy, tensor(LOGITS.swapaxes(1, 2).copy()), tensor(TOKENS)),
    ],
)
def test_swapped_arguments_are_named(call, x, y):
    call(x, y)
    with pytest.raises(ValueError, match=SWAPPED):
        call(y, x)


def test_a_column_of_targets_is_reshaped():
    with pytest.raises(ValueError, match=r"pass targets\.reshape\(\(6,\)\)$"):
        sn.cross_entropy(ROWS, CLASSES[:, None])
    with pytest.raises(ValueError, match=r"pass target\.reshape\(\(2, 5\)\)$"):
        snt.linear_cross_entropy(torch.zeros(B, T, 3), torch.zeros(V, 3), tensor(TOKENS.ravel()))


def test_hard_targets_that_are_floats_are_cast():
    with pytest.raises(TypeError, match=r"hard targets have dtype float64; .* such as targets\.astype\(int\)$"):
        sn.cross_entropy(ROWS, CLASSES.astype(float))
    with pytest.raises(TypeError, match=r"such as target\.long\(\)$"):
        snt.cross_entropy(tensor(ROWS), tensor(CLASSES).float())


def test_other_shapes_get_no_wrong_advice():
    for targets in (np.zeros(5, np.int64), np.zeros((6, 5)), np.zeros((3, 3), np.int64)):
        with pytest.raises(ValueError, match=r"or floats of shape \(6, 4\)$"):
            sn.cross_entropy(ROWS, targets)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
        self.out = torch.nn.Linear(4, 1)


@pytest.mark.parametrize(
    ("head", "error", "message"),
    [
        (torch.nn.Linear(4, 9), ValueError, r"model does not have; .* 'body\.0' \(4 outputs\), 'out' \(1 output\)$"),
        (torch.nn.Linear, TypeError, r"head is a class; allowed: a layer of the model, or its name, .* 'body\.0'"),
        (torch.zeros(9, 4), TypeError, "head is a Tensor; allowed: a layer"),
        ("lm_head", ValueError, r"which this Model does not have; its widest linear layers: 'body\.0' \(4 outputs\)"),
    ],
)  # fmt: skip
def test_fuse_says_which_heads_there_are(head, error, message):
    with pytest.raises(error, match=message):
        snt.fuse(Model(), head=head)


def test_fuse_of_the_head_alone_says_to_pass_the_model():
    with pytest.raises(ValueError, match=r"model is itself a linear layer; pass the whole model, or head=''$"):
        snt.fuse(torch.nn.Linear(4, 9))


def test_fuse_of_a_block_names_the_linear_layers_inside_it():
    model = Model()
    with pytest.warns(UserWarning, match=r"its Sequential keeps computing .*inside it: '0' \(4 outputs\)$"):
        snt.fuse(model, head=model.body)


def test_one_of_a_thing_is_not_plural():
    with pytest.raises(ValueError, match="< 1 class, or ignore_index"):
        sn.cross_entropy([[1.0]], [1])
    with pytest.raises(ValueError, match="class_names has 1 name; the scores have 2 columns"):
        sn.explain([[1.0, 2.0]], class_names=["cat"])
    with pytest.raises(ValueError, match=r"class_names has 2 names; the scores have 1 column$"):
        sn.explain([[1.0]], class_names=["cat", "dog"])
    assert sn.diagnose([[1.0, 2.0]], [0]).summary().startswith("1 row of 2 classes:")
