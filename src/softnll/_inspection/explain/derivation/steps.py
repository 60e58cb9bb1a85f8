"""The steps of a derivation as text, formulas and tables; plain text and HTML show the same steps."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from softnll._inspection.explain.derivation.formula import (
    Formula,
    Fraction,
    Number,
    Part,
    Sub,
    Word,
    as_mathml,
    digits,
    near_one,
)
from softnll._inspection.explain.derivation.formula import as_text as line
from softnll._inspection.explain.derivation.numbers import DerivationNumbers
from softnll._inspection.explain.table import Table, styled
from softnll.data.text import printable

_VISIBLE = 5e-6  # a smaller r does not change six digits of 1 + r
TIMES = "\N{MULTIPLICATION SIGN}"
DOT = "\N{MIDDLE DOT}"
SUM = "\N{GREEK CAPITAL LETTER SIGMA}"
DEL = "\N{PARTIAL DIFFERENTIAL}"


@dataclass(frozen=True)
class Step:
    """One step: a title, a sentence, formulas, a table, and a conclusion."""

    title: str
    text: str
    formulas: tuple[Formula, ...]
    table: Table | None = None
    then: str = ""


def heading(derived: DerivationNumbers) -> str:
    """Return the title: the row and its true class."""
    name = printable(derived.names[derived.place])
    return f"Row {derived.row}, true class y = {name}: from scores f to the derivative of the loss by each score"


def steps(derived: DerivationNumbers) -> list[Step]:
    """Return the steps from scores to the gradient."""
    parts = (_exponentials, _softmax, _loss, _logarithm, _quotient_rule, _jacobian, _chain_rule, _result)
    return [part(derived) for part in parts]


def as_text(derived: DerivationNumbers, found: list[Step]) -> str:
    """Return the steps as plain text; a star marks the true class."""
    lines = [heading(derived)]
    for number, step in enumerate(found, 1):
        lines += ["", f"{number}. {step.title}"]
        lines += [f"   {step.text}"] * bool(step.text)
        lines += [f"     {line(formula)}" for formula in step.formulas]
        lines += step.table.as_lines(5) if step.table is not None else []
        lines += [f"   {step.then}"] * bool(step.then)
    return "\n".join(lines)


def as_html(derived: DerivationNumbers, found: list[Step]) -> str:
    """Return the steps as HTML in which every name is text and nothing else."""
    parts = "".join(_step(step) for step in found)
    return styled("softnll-derivation", f"<p><b>{html.escape(heading(derived))}</b></p><ol>{parts}</ol>")


def _step(step: Step) -> str:
    """Return one step as an item of the list."""
    text = f"<p>{_prose(step.text)}</p>" if step.text else ""
    formulas = "".join(f'<div class="formula">{as_mathml(formula)}</div>' for formula in step.formulas)
    table = step.table.as_html() if step.table is not None else ""
    then = f"<p>{_prose(step.then)}</p>" if step.then else ""
    return f"<li><b>{_prose(step.title)}</b>{text}{formulas}{table}{then}</li>"


def _prose(text: str) -> str:
    """Return one of our sentences as HTML, with the indices as subscripts."""
    return re.sub(r"\b([efp])_([iky])\b", r"<i>\1</i><sub>\2</sub>", html.escape(text, quote=False))


def _table(derived: DerivationNumbers, *rows: tuple[str, tuple[str, ...]]) -> Table:
    """Return a table with a column for each shown class, from names and cells of its rows."""
    names, cells = zip(*rows, strict=True)
    return Table(_columns(derived), names, cells, (derived.place,) * len(names), derived.place)


def _columns(derived: DerivationNumbers) -> tuple[str, ...]:
    """Return the names of the shown classes, shortened."""
    return tuple(printable(name, 14) for name in derived.names)


def _shown(values: object) -> tuple[str, ...]:
    """Return numbers as cells; NaN, the value where the rest has no such number, as a dash."""
    return tuple("\N{EN DASH}" if v != v else digits(v) for v in (float(v) for v in values))  # type: ignore[attr-defined]  # noqa: PLR0124 - NaN


def _probabilities(derived: DerivationNumbers) -> tuple[str, ...]:
    """Return the probabilities as cells."""
    return tuple(near_one(float(a), float(b)) for a, b in zip(derived.probabilities, derived.complements, strict=True))


def _p(derived: DerivationNumbers, i: int) -> Number:
    """Return a class's probability for a formula."""
    return Number(float(derived.probabilities[i]), float(derived.complements[i]))


def _formula(text: str, *given: Part) -> Formula:
    """Return the formula that a text spells, its parts between blanks.

    ``p_y`` is a letter with an index, ``a/b`` a fraction, ``#`` the next of the given parts.
    """
    parts: list[Part] = []
    left = iter(given)
    for word in text.split():
        if "/" in word:
            parts.append(Fraction(*map(_formula, word.split("/"))))
        elif word.startswith(DEL):
            parts += [DEL, *_formula(word[1:])]
        elif "_" in word:
            parts.append(Sub(*word.split("_")))
        else:
            parts.append(next(left) if word == "#" else word)
    return tuple(parts)


def _other(derived: DerivationNumbers) -> int | None:
    """Return the likeliest class that is not the true one, as the example of the others; None if there is none."""
    places = [i for i in range(len(derived.names)) if i != derived.place and i < len(derived.classes)]
    return max(places, key=lambda i: float(derived.probabilities[i]), default=None)


def _exponentials(d: DerivationNumbers) -> Step:
    """Step 1: exponentials, the largest score taken off."""
    return Step(
        "Exponentiate the scores",
        "Taking the largest score m off first changes nothing: exp(m) cancels in step 2. No exponential overflows.",
        (_formula("m = #", Number(d.largest)), _formula("e_k = exp ( f_k - m )")),
        _table(d, ("f", _shown(d.scores)), ("f - m", _shown(d.differences)), ("e", _shown(d.exponentials))),
    )


def _softmax(d: DerivationNumbers) -> Step:
    """Step 2: divide by the sum."""
    total = _formula("= #", Number(d.total)) if d.rest > _VISIBLE else ()
    return Step(
        "Divide by their sum: softmax",
        "The largest class contributes exactly 1 to the sum S; r is what the others contribute.",
        (_formula("r = # , S = 1 + r", Number(d.rest)) + total, _formula("p_k = e_k/S")),
        _table(d, ("p", _probabilities(d))),
    )


def _loss(d: DerivationNumbers) -> Step:
    """Step 3: the loss."""
    numbers = (Number(d.ahead), Number(d.log_total), Number(d.nll), Word("nats"))
    return Step(
        "Take the natural logarithm: the loss",
        "The loss depends on the true class's probability only. Written with m and r, no subtraction loses digits.",
        (_formula("L = - ln p_y = ( m - f_y ) + ln ( 1 + r ) = # + # = # #", *numbers),),
    )


def _logarithm(d: DerivationNumbers) -> Step:
    """Step 4: the derivative of the logarithm."""
    at = _formula(f"{DEL}L/{DEL}p_y = - 1/p_y = #", Number(float(d.loss_by_probability[d.place])))
    elsewhere = _formula(f"{DEL}L/{DEL}p_i = 0 #", Word("for i other than y"))
    return Step(
        "Differentiate the loss by the probabilities",
        "(ln p)' = 1/p, for the natural logarithm; a logarithm to base 10 would divide everything below by ln 10.",
        (at,) if len(d.names) == 1 else (at, elsewhere),
    )


def _quotient_rule(d: DerivationNumbers) -> Step:
    """Step 5: the derivative of the true class's probability."""
    y, k = d.place, _other(d)
    square = ("S\N{SUPERSCRIPT TWO}",)
    rule = Fraction(_formula(f"e_y {DOT} S - e_y {DOT} e_y"), square)
    numbers = (_p(d, y), Number(float(d.complements[y]), float(d.probabilities[y])), Number(float(d.jacobian[y, y])))
    at = _formula(f"{DEL}p_y/{DEL}f_y = # = p_y {DOT} ( 1 - p_y ) = # {TIMES} # = #", rule, *numbers)
    if k is None:
        return Step("Differentiate p_y by the score: the quotient rule", _QUOTIENT, (at,))
    rule = Fraction(_formula(f"0 {DOT} S - e_y {DOT} e_k"), square)
    other = _formula(f"{DEL}p_y/{DEL}f_k = # = - p_y {DOT} p_k", rule)
    slope = Fraction(_formula(f"{DEL}p_y"), (DEL, Sub("f", d.names[k])))
    numbers = (_p(d, y), _p(d, k), Number(float(d.jacobian[y, k])))
    number = _formula(f"# # = - # {TIMES} # = #", Word("for example"), slope, *numbers)
    forgotten = "-p_y\N{MIDDLE DOT}p_k is often forgotten: every score is in the sum S, so every score moves p_y."
    title = "Differentiate p_y by the scores: the quotient rule"
    return Step(title, _QUOTIENT, (at, other, number), then=forgotten)


_QUOTIENT = "(a/S)' = (a'S - aS')/S\N{SUPERSCRIPT TWO}, with S' = e_k; a = e_y depends on its own score only."


def _jacobian(d: DerivationNumbers) -> Step:
    """Step 6: the same for every probability."""
    rest = " The column of the others is for their summed p and a shared change of score." if d.n_rest else ""
    return Step(
        "Do so for every probability: the Jacobian",
        f"Row i, column k; [i = k] is 1 on the diagonal, else 0. Rows and columns sum to 0.{rest}",
        (_formula(f"{DEL}p_i/{DEL}f_k = p_i {DOT} ( # - p_k )", Word("[i = k]")),),
        _table(d, *zip(_columns(d), map(_shown, d.jacobian), strict=True)),
    )


def _chain_rule(d: DerivationNumbers) -> Step:
    """Step 7: the sum over all probabilities."""
    rule = _formula(f"{DEL}L/{DEL}f_k = {SUM}_i {DEL}L/{DEL}p_i {DOT} {DEL}p_i/{DEL}f_k")
    title = "Chain rule, over all probabilities"
    if not d.whole:
        text = "p_y is 0, or its products are too small for float64: p_y is cancelled first, in step 8."
        return Step(title, text, (rule,))
    terms = d.loss_by_probability[:, None] * d.jacobian + 0.0
    rows = [(f"i = {name}", _shown(row)) for name, row in zip(_columns(d), terms, strict=True)]
    return Step(
        title,
        "Each score changes every probability, and the loss depends on all of them. Row i, column k:",
        (rule,),
        _table(d, *rows, ("sum", _shown(terms.sum(axis=0)))),
        "" if len(rows) == 1 else "All rows but the true class's are 0, because step 4 is 0 there.",
    )


def _result(d: DerivationNumbers) -> Step:
    """Step 8: the gradient."""
    slope = Number(float(d.gradient[d.place]))
    at = _formula(f"# - 1/p_y {DOT} p_y {DOT} ( 1 - p_y ) = p_y - 1 = #", Word("k = y:"), slope)
    other = _formula(f"# - 1/p_y {DOT} ( - p_y {DOT} p_k ) = p_k", Word("k other than y:"))
    onehot = tuple("1" if i == d.place else "0" for i in range(len(d.names)))
    alone = len(d.names) == 1
    return Step(
        "Cancel p_y: the gradient is p - onehot",
        "",
        (at,) if alone else (at, other),
        _table(d, ("p", _probabilities(d)), ("onehot", onehot), ("gradient", _shown(d.gradient))),
        _ALONE if alone else _MEANING,
    )


_ALONE = "With one class there is nothing to learn: p = 1 whatever the score."
_MEANING = (
    "It sums to 0. A step against it raises the true class's score and lowers each other one "
    "in proportion to its probability."
)
