"""Training past certainty: what becomes of a network whose loss rounds to 0, beside one whose loss does not.

    python benchmarks/confident_training.py                 # minutes to an hour, by the machine
    python benchmarks/confident_training.py --quick         # seconds; prints, writes nothing
    python benchmarks/confident_training.py --share 0.6 --steps 5000 --way torch --way softnll --out more
    python benchmarks/confident_training.py --draw          # the figure again, from the csv

The setting of Prieto et al., "Grokking at the Edge of Numerical Stability" (ICLR 2025), with the learning rate and the
optimiser's constants of the code that they published: a + b mod 113 from two one-hot vectors, two hidden layers of 200
ReLU units without biases, a full batch a step, AdamW without weight decay. Every way starts from the same weights and
sees the same rows; only the loss, and for the last way the type of everything, is another.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

import softnll.torch as snt
from confident_figure import draw
from machine import describe
from page import table_first

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NAME = "confident-training"
MODULUS = 113
WIDTH = 200


def loss_in_float64(logits, targets):
    return F.cross_entropy(logits.double(), targets)


WAYS = {
    "torch": ("F.cross_entropy", F.cross_entropy, torch.float32),
    "softnll": ("softnll.torch.cross_entropy", snt.cross_entropy, torch.float32),
    "torch loss64": (
        "F.cross_entropy, loss alone in float64",
        loss_in_float64,
        torch.float32,
    ),
    "torch all64": ("F.cross_entropy, everything in float64", F.cross_entropy, torch.float64),
}


class Network(nn.Module):
    """Two hidden layers; a one-hot vector times weights is a column of them, which is how it is computed."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2 * MODULUS, WIDTH, bias=False)
        self.second = nn.Linear(WIDTH, WIDTH, bias=False)
        self.last = nn.Linear(WIDTH, MODULUS, bias=False)

    def forward(self, columns):
        hidden = F.embedding(columns, self.first.weight.t()).sum(dim=1).relu()
        return self.last(self.second(hidden).relu())


def rows(share: float, seed: int):
    """Return the columns and the targets of the training rows and of the test rows."""
    pairs = torch.cartesian_prod(torch.arange(MODULUS), torch.arange(MODULUS))
    targets = pairs.sum(dim=1) % MODULUS
    columns = pairs + torch.tensor([0, MODULUS])
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    train, test = order.tensor_split([round(share * len(pairs))])
    return (columns[train], targets[train]), (columns[test], targets[test])


def exact_loss(logits, targets) -> float:
    """Return the mean loss of the logits as they are, by float64 and a formula that rounds no small loss to 0."""
    x, index = logits.double(), targets[:, None]
    others = x.scatter(1, index, -torch.inf) - x.gather(1, index)
    return float(F.softplus(others.logsumexp(dim=1)).mean())


@torch.no_grad()
def measured(network, logits, targets, loss, test) -> dict[str, float]:
    """Return what there is to say about a step: the logits have their gradient, the weights are not yet moved."""
    index = targets[:, None]
    zero = logits.grad == 0
    margin = logits.gather(1, index)[:, 0] - logits.scatter(1, index, -torch.inf).amax(dim=1)
    gradients = torch.cat([weight.grad.double().ravel() for weight in network.parameters()])
    return {
        "loss": float(loss),
        "exact loss": exact_loss(logits, targets),
        "rows of gradient 0": float(zero.all(dim=1).double().mean()),
        "target entries of gradient 0": float(zero.gather(1, index).double().mean()),
        "train accuracy": float((logits.argmax(dim=1) == targets).double().mean()),
        "test accuracy": float((network(test[0]).argmax(dim=1) == test[1]).double().mean()),
        "median margin": float(margin.median()),
        "norm of the weights' gradient": float(gradients.norm()),
    }


def trained(way: str, share: float, arguments):
    """Train and yield a line of the table every so many steps."""
    _, cross_entropy, dtype = WAYS[way]
    (columns, targets), test = rows(share, arguments.seed)
    torch.manual_seed(arguments.seed)
    network = Network().to(dtype)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=arguments.lr, betas=(0.9, arguments.beta2), eps=arguments.eps, weight_decay=0
    )
    for step in range(arguments.steps + 1):
        looks = step % arguments.every == 0 or step == arguments.steps
        logits = network(columns)
        if looks:
            logits.retain_grad()
        loss = cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        if looks:
            yield {"share": share, "way": way, "step": step, **measured(network, logits, targets, loss, test)}
        optimizer.step()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 steps, one share; nothing is written without --out")
    parser.add_argument("--steps", type=int, help="(default: 3000)")
    parser.add_argument("--every", type=int, help="steps from one line of the table to the next (default: 50)")
    parser.add_argument("--seed", type=int, default=42, help="of the weights and of the split")
    parser.add_argument("--share", type=float, action="append", help="of the pairs to train on; may be repeated")
    parser.add_argument("--way", action="append", choices=WAYS, help="may be repeated (default: all)")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--beta2", type=float, default=0.99)
    parser.add_argument("--eps", type=float, default=1e-25, help="(default: the authors' 1e-25; torch's own is 1e-8)")
    parser.add_argument("--out", type=Path, help="folder of csv, markdown and figure (default: the repository's)")
    parser.add_argument(
        "--add", action="store_true", help="to what the csv holds, which was run with the same settings"
    )
    parser.add_argument("--draw", action="store_true", help="train nothing: draw what the csv holds")
    arguments = parser.parse_args()
    arguments.steps = arguments.steps or (10 if arguments.quick else 3000)
    arguments.every = arguments.every or (5 if arguments.quick else 50)
    arguments.share = arguments.share or ([0.4] if arguments.quick else [0.4, 0.6])
    arguments.way = arguments.way or list(WAYS)
    return arguments


def main() -> None:
    arguments = parse()
    folder = arguments.out or (None if arguments.quick else RESULTS)
    if arguments.draw:
        draw(read(folder), WAYS, image(folder))
        return
    torch.set_num_threads(1)  # the same sums in the same order on every machine
    torch.use_deterministic_algorithms(True)
    machine, table, begin = describe("torch", "numpy", "numba"), [], time.perf_counter()
    if arguments.add:
        new = {(share, way) for share in arguments.share for way in arguments.way}
        table = [line for line in read(folder) if (line["share"], line["way"]) not in new]
    for share in arguments.share:
        for way in arguments.way:
            for line in trained(way, share, arguments):
                table.append(line)
                print(f"{time.perf_counter() - begin:6.0f} s", *(told(value) for value in line.values()), flush=True)
            if folder:
                write(table, folder, arguments, machine)  # what is done is kept when the rest is stopped


def image(folder: Path) -> Path:
    """Return where the figure goes: the documentation's images, or beside the table."""
    return (ROOT / "docs" / "images" if folder == RESULTS else folder) / f"{NAME}.svg"


def read(folder: Path) -> list[dict]:
    """Return the lines of a csv that was written."""
    with (folder / f"{NAME}.csv").open(newline="", encoding="utf-8") as file:
        lines = [{k: v if k == "way" else float(v) for k, v in line.items()} for line in csv.DictReader(file)]
    return [line | {"step": int(line["step"])} for line in lines]


def told(value) -> str:
    """Return a value in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def first(lines: list[dict], head: str, least: float) -> str:
    """Return the first measured step at which a share has come so far."""
    return next((str(line["step"]) for line in lines if line[head] >= least), "never")


def summary(lines: list[dict]) -> dict[str, str]:
    """Return the line of the markdown for one training."""
    last, target = lines[-1], "target entries of gradient 0"
    heads = ("loss", "exact loss", "median margin", target, "rows of gradient 0", "train accuracy", "test accuracy")
    ends = {head: told(last[head]) for head in heads}
    begins = {f"{least:.0%} of target entries 0 from step": first(lines, target, least) for least in (0.01, 0.5, 0.99)}
    best = {"best test accuracy": told(max(line["test accuracy"] for line in lines))}
    return {"trained on": f"{last['share']:.0%}", "way": last["way"], **begins, **ends, **best}


def write(table: list[dict], folder: Path, arguments, machine: str) -> None:
    """Write the csv, the markdown and the figure."""
    folder.mkdir(parents=True, exist_ok=True)
    table = sorted(table, key=lambda line: (line["share"], list(WAYS).index(line["way"]), line["step"]))
    with (folder / f"{NAME}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows({k: told(v) for k, v in line.items()} for line in table)
    trainings = {}
    for line in table:
        trainings.setdefault((line["share"], line["way"]), []).append(line)
    shown = [summary(lines) for lines in trainings.values()]
    lines = ["| " + " | ".join(shown[0]) + " |", "|" + " --- |" * len(shown[0])]
    lines += ["| " + " | ".join(line.values()) + " |" for line in shown]
    done = {line["way"] for line in table}
    ways = "".join(f"- {way}: {text}\n" for way, (text, *_) in WAYS.items() if way in done)
    text = (
        f"# Training past certainty\n\n{machine}\n\n"
        f"a + b mod {MODULUS}, seed {arguments.seed}, {arguments.steps} full-batch steps of AdamW: learning rate "
        f"{arguments.lr:g}, betas 0.9 and\n{arguments.beta2:g}, eps {arguments.eps:g}, no weight decay; two hidden "
        f"layers of {WIDTH}, no biases.\nA line for each training, at its last step; looked at every {arguments.every} "
        "steps. `loss` is what the way reports,\n`exact loss` that of the same logits by a formula that rounds no "
        "small loss to 0.\nWritten by `benchmarks/confident_training.py`; every look is in the csv.\n\n"
        f"{ways}\n"
    )
    (folder / f"{NAME}.md").write_text(table_first(text + "\n".join(lines)), encoding="utf-8")
    draw(table, WAYS, image(folder))


if __name__ == "__main__":
    main()
