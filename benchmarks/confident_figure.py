"""The figure of `confident_training.py`: loss, vanished gradients and accuracy over the steps, a row a share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from softnll._inspection.figure_style import figure_style

INK = "#76808c"  # 4 to 1 on white and on a dark page
STYLE = {  # colours (told apart by the colour-blind, too) and strokes of the ways, in their order
    "color": ("#e0662b", "#2b8be6", "#8a9a3a", "#b36fc9"),
    "linestyle": ("-", "-", (0, (5, 3)), (0, (1.5, 2))),
    "linewidth": (3.6, 2.0, 1.4, 1.8),  # who comes later is thinner: equal curves show all their colours
}
PANELS = (
    ("loss as computed", "loss"),
    ("target entries whose gradient is exactly 0", "target entries of gradient 0"),
    ("test accuracy (thin: training)", "test accuracy"),
)


def draw(table: list[dict], ways: Iterable[str], path: Path) -> None:
    """Draw the table into an svg with a transparent ground."""
    shares = sorted({line["share"] for line in table})
    quiet = {"text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    with figure_style(), rc_context(quiet):
        figure = Figure(figsize=(12, 0.9 + 2.9 * len(shares)))
        axes = figure.subplots(len(shares), len(PANELS), squeeze=False, sharex=True)
        for share, across in zip(shares, axes, strict=True):
            for (title, head), ax in zip(PANELS, across, strict=True):
                curves(ax, [line for line in table if line["share"] == share], list(ways), head)
                ax.set_title(title)
            across[0].set_ylabel(f"trained on {share:.0%} of the pairs")
        for ax in axes[-1]:
            ax.set_xlabel("step")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def curves(ax, lines: list[dict], ways: list[str], head: str) -> None:
    """Draw one quantity of each way."""
    for i, way in enumerate(ways):
        own = [line for line in lines if line["way"] == way]
        if not own:
            continue
        style = {name: choices[i] for name, choices in STYLE.items()}
        steps = [line["step"] for line in own]
        ax.plot(steps, [line[head] for line in own], label=way, **style)
        if head == "test accuracy":
            ax.plot(steps, [line["train accuracy"] for line in own], **style | {"linewidth": 0.8})
    if head == "loss":
        ax.set_yscale("log")  # a loss of 0 has no place here: the curve ends
    else:
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.grid(color=INK, alpha=0.25)
