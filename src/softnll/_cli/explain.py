"""``softnll explain``: scores, probabilities, losses and gradient as tables and sentences."""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softnll._cli.column_options import Drop, Header, LabelColumn, ScoreColumns

if TYPE_CHECKING:
    from softnll._inspection.explain.derivation.derivation import Derivation
    from softnll._inspection.explain.explanation import Explanation

# The scores without --scores: images of a cat, a horse and a dog; the dog's scores tie.
_IMAGES, _IMAGE_CLASSES, _IMAGE_TARGETS = "5,4,2; 4,2,8; 4,4,1", ("cat", "dog", "horse"), "0, 2, 1"


def explain(
    scores: Annotated[
        str | None,
        typer.Option(help="Scores: rows separated by ';', numbers by ',', or a file. Without: three images."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="True classes, names or numbers from 0, separated by ','; or a file.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Names of the classes, separated by ','.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw it: a .png, .svg or .pdf file.")] = None,
    derivation: Annotated[
        int | None, typer.Option(metavar="ROW", help="Derive this row's gradient step by step, with its own numbers.")
    ] = None,
    bits: Annotated[bool, typer.Option("--bits", help="Losses in bits instead of nats.")] = False,
    label_column: LabelColumn = None,
    score_columns: ScoreColumns = None,
    drop: Drop = None,
    header: Header = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with all digits, and nothing else.")] = False,
) -> None:
    """Show how scores become probabilities, a loss and a gradient, and what the numbers say."""
    from softnll._cli.score_arguments import as_choice, read_scores, read_targets
    from softnll._cli.terminal import print_derivation, print_explanation, print_lines
    from softnll._inspection.explain import explanation as explanations
    from softnll.data.labels import split_names

    choice = as_choice(label_column, score_columns, drop, header)
    pair = read_scores(_IMAGES if scores is None else scores, choice, target)
    print_lines(*pair.stated, stderr=True)
    table = pair.rows.rows(slice(None))
    if classes is not None:
        names = split_names(classes)
    elif scores is None:
        names = _IMAGE_CLASSES
    else:
        names = pair.class_names or tuple(f"class {c}" for c in range(table.shape[1]))
    if scores is None and target is None:
        target = _IMAGE_TARGETS
    targets = read_targets(pair, target, names)
    explanation = explanations.explain(table, targets, class_names=names)
    if figure is not None:
        _draw(explanation, figure)
    derived = None if derivation is None else _derivation(explanation, derivation)
    if as_json:
        read = {"read": pair.read, "words": explanation.words(bits=bits)}
        facts = explanation.to_dict() | read if derived is None else derived.to_dict()
        typer.echo(json.dumps(facts, allow_nan=False))
    elif derived is not None:
        print_derivation(derived)
    else:
        print_explanation(explanation, bits=bits)


def _derivation(explanation: Explanation, row: int) -> Derivation:
    """Return the derivation of one row; raise where the row does not exist or has no true class."""
    N = len(explanation.logits)
    if explanation.targets is None:
        raise typer.BadParameter("a derivation needs true classes: give --target", param_hint="--derivation")
    if not 0 <= row < N:
        raise typer.BadParameter(f"there is no row {row}; allowed: 0 to {N - 1}", param_hint="--derivation")
    return explanation.derivation(row)


def _draw(explanation: Explanation, path: Path) -> None:
    """Write the explanation's figure to a file whose ending is the format."""
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise typer.BadParameter("a figure ends in .png, .svg or .pdf", param_hint="--figure")
    from softnll._inspection.explain.figure import figure_bytes
    from softnll.data.atomic import write_whole

    write_whole(path, figure_bytes(explanation.plot(), kind))
