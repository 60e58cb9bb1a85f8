"""``softnll predict``: the probabilities that a trained model gives the examples of a file."""
# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENDINGS = (".csv", ".tsv", ".npy", ".parquet")
_STDOUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_ROWS = 1 << 14


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model.npz of softnll train, or the folder it is in.")
    ],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A table with the model's columns, images or features; labels or not.")
    ],
    out: Annotated[Path, typer.Option(help="The file of probabilities: .csv, .tsv, .parquet or .npy.")] = Path(
        "probabilities.csv"
    ),
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether a table's first line is a header.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON, and nothing else.")] = False,
) -> None:
    """Write the probability of each class for each example: one row an example, one column a class, in their order.

    `softnll report` and `softnll diagnose` read what it writes.
    """
    from softnll._cli.activity import activity
    from softnll._core.words import counted
    from softnll.data.dataset import DataError
    from softnll.data.text import place, printable

    if out.suffix.lower() not in _ENDINGS and (not out.exists() or out.is_file()):
        raise DataError(f"{place(out)}: --out ends in {', '.join(_ENDINGS)}")
    with activity("starting") as shown:
        import numpy as np

        from softnll._classifier.estimator import SoftmaxClassifier
        from softnll._classifier.recipe import FeatureRecipe
        from softnll._classifier.tables import read_features
        from softnll._numpy.functional import softmax
        from softnll.data.atomic import write_whole
        from softnll.data.columns import Choice

        fitted = SoftmaxClassifier.load(model / "model.npz" if model.is_dir() else model)
        recipe = fitted.recipe_ or FeatureRecipe(tuple(map(str, fitted.classes_)))
        shown.stage(f"reading {printable(data, 200)}")
        features = read_features(data, recipe, fitted.coef_.shape[1], Choice(header=header))
        shown.accept(f"computing the probabilities of {len(features)} examples")
        parts = [features[start : start + _ROWS] for start in range(0, len(features), _ROWS)]
        p = softmax(np.concatenate([part @ fitted.coef_.T + fitted.intercept_ for part in parts]).astype(np.float64))
        shown.stage(f"writing {place(out)}")
        write_whole(out, _content(p, recipe.class_names, out.suffix.lower()))
    if str(out) in _STDOUT:  # nothing but the probabilities
        return
    counts = np.bincount(p.argmax(axis=1), minlength=p.shape[1]).tolist()
    if as_json:
        facts = {"rows": len(p), "classes": list(recipe.class_names), "predicted": counts, "file": str(out)}
        typer.echo(json.dumps(facts))
        return
    from softnll._cli.terminal import print_lines, print_table

    names = [printable(name, 40) for name in recipe.class_names]
    order = np.argsort(counts, kind="stable")[::-1][:20]
    print_table(("class", "predicted"), [(names[c], f"{counts[c]:,}") for c in order])
    print_lines(f"wrote {counted(len(p), 'row')} of {p.shape[1]} probabilities to {place(out)}")


def _content(p: NDArray[Any], names: tuple[str, ...], ending: str) -> bytes:
    """Return the probabilities as a file of this ending; as .csv where there is none, as for a pipe."""
    import csv
    import io

    import numpy as np

    if ending == ".npy":
        raw = io.BytesIO()
        np.save(raw, p)
        return raw.getvalue()
    if ending == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(list(p.T), names=list(names)), sink)
        return bytes(sink.getvalue().to_pybytes())
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t" if ending == ".tsv" else ",", lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[repr(each) for each in row] for row in p.tolist()])
    return text.getvalue().encode()
