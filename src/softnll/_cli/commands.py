"""The app: every command under its name. Importing it loads typer only; a command imports the rest when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from softnll._cli.diagnose import diagnose
from softnll._cli.explain import explain
from softnll._cli.page import page
from softnll._cli.predict import predict
from softnll._cli.report import report
from softnll._cli.train import train
from softnll._version import __version__

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is plain text: it reads the same in a pipe, and brackets in it are brackets
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        typer.echo(f"softnll {__version__}")
        raise typer.Exit


@app.callback()
def _softnll(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Softmax, the negative log-likelihood and their gradient: explained, trained with, reported on."""


app.command(
    epilog='Example: softnll explain --scores "5,4,2" --target cat --classes cat,dog,horse',
    short_help="Show how scores become probabilities, a loss and a gradient.",
)(explain)
app.command(
    epilog="Example: softnll train iris.csv --label-column species --out iris",
    short_help="Train a linear classifier on pixels, features or a table.",
)(train)
app.command(
    epilog="Example: softnll predict iris flowers.csv --out probabilities.csv",
    short_help="Write the probability of each class for each example.",
)(predict)
app.command(
    epilog="Example: softnll page --out page.html --open",
    short_help="Write the interactive page, one file that works offline.",
)(page)
app.command(
    epilog="Example: softnll report scores.npy labels.npy --classes cat,dog,horse --out report.html",
    short_help="Write a page about scores and labels, with findings and figures.",
)(report)
app.command(
    epilog="Example: softnll diagnose scores.npy labels.npy --loss 1.07",
    short_help="Find what is wrong with scores and labels.",
)(diagnose)
