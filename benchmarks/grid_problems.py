"""The cells of the grid: functions, passes, options and shapes, and the data of one cell as PyTorch tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

ROWS = (
    (1, 10),
    (32, 10),
    (128, 10),
    (64, 1000),
    (4096, 3),
    (1_000_000, 10),
    (8192, 1000),
    (1024, 50_257),
    (4096, 32_000),
)
IMAGES = ((4, 21, 256, 256), (64, 19, 32, 32))  # classes in dimension 1
ATTENTION = ((8, 12, 512, 512),)
LAST = "channels last"
WIDE = 100  # classes beyond which a head is a language model's: 512 features rather than 64
MOST_LINEAR_ROWS = 10_000

FUNCTIONS = ("softmax", "log_softmax", "cross_entropy", "linear_cross_entropy")
PASSES = ("forward", "forward + backward")
OPTIONS = (
    "no option",
    "class weights",
    "smoothing",
    "soft targets",
    "half ignored",
    "z-loss",
    "soft cap",
    "temperature",
    "none",
)
Z_LOSS, SOFTCAP, TEMPERATURE, SMOOTHING = 1e-4, 30.0, 1.7, 0.1


@dataclass(frozen=True)
class Shape:
    """Sizes of the logits, classes in dimension 1 or (attention) the last, and the order of an image in memory."""

    sizes: tuple[int, ...]
    layout: str = ""

    @property
    def name(self) -> str:
        return "x".join(map(str, self.sizes)) + (f" {self.layout}" if self.layout else "")

    @property
    def dim(self) -> int:
        return -1 if self.sizes in ATTENTION else 1

    @property
    def classes(self) -> int:
        return self.sizes[self.dim]

    def has(self, function: str, option: str) -> bool:
        """Return whether the grid has such a cell."""
        if "softmax" in function:
            return option == "no option"
        if self.sizes in ATTENTION:
            return False
        return function == "cross_entropy" or (len(self.sizes) == 2 and self.sizes[0] <= MOST_LINEAR_ROWS)


SHAPES = {
    shape.name: shape
    for shape in (
        *map(Shape, ROWS),
        *(Shape(sizes, layout) for sizes in IMAGES for layout in ("", LAST)),
        *map(Shape, ATTENTION),
    )
}


@dataclass
class Problem:
    """Inputs of one cell; `numbers` are the options that are numbers, by our names."""

    x: torch.Tensor  # logits, or features of a linear loss
    y: torch.Tensor
    dim: int
    head: torch.Tensor | None = None
    class_weight: torch.Tensor | None = None
    reduction: str = "mean"
    numbers: dict[str, float] = field(default_factory=dict)


def make(function: str, option: str, shape: Shape, dtype: torch.dtype) -> Problem:
    """Return normal logits of deviation 3 (of a linear loss: about 1) and random targets, with the option."""
    torch.manual_seed(0)
    layout = {"memory_format": torch.channels_last} if shape.layout == LAST else {}
    head = None
    if function == "linear_cross_entropy":
        width = 512 if shape.classes > WIDE else 64
        x = torch.randn(shape.sizes[0], width).to(dtype)
        head = (torch.randn(shape.classes, width) * width**-0.5).to(dtype)
    else:
        x = (3 * torch.randn(shape.sizes)).to(dtype).contiguous(**layout)
    places = shape.sizes[:1] + shape.sizes[2:]
    y = torch.randint(0, shape.classes, places)
    if option == "half ignored":
        y[torch.rand(places) < 0.5] = -100
    if option == "soft targets":
        y = torch.rand(shape.sizes).pow_(8)
        y = (y / y.sum(1, keepdim=True)).to(dtype).contiguous(**layout)
    numbers = {
        "smoothing": {"label_smoothing": SMOOTHING},
        "z-loss": {"z_loss": Z_LOSS},
        "soft cap": {"softcap": SOFTCAP},
        "temperature": {"temperature": TEMPERATURE},
    }.get(option, {})
    weight = (0.5 + torch.rand(shape.classes)).to(dtype) if option == "class weights" else None
    reduction = "none" if option == "none" else "mean"
    return Problem(x, y, shape.dim, head, weight, reduction, numbers)
