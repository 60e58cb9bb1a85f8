"""Formulas with numbers, as plain text and as MathML."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

from softnll.data.text import printable


@dataclass(frozen=True, slots=True)
class Number:
    """A number, shown to six digits; a number just below 1 as ``1 - complement``, if the complement is given."""

    value: float
    complement: float | None = None


@dataclass(frozen=True, slots=True)
class Sub:
    """A letter with an index: p_y, or the p of a class by its name."""

    letter: str
    index: str


@dataclass(frozen=True, slots=True)
class Word:
    """Words inside a formula."""

    text: str


@dataclass(frozen=True, slots=True)
class Fraction:
    """One formula over another."""

    above: Formula
    below: Formula


Part = str | Number | Sub | Word | Fraction
Formula = tuple[Part, ...]

_DEL = "\N{PARTIAL DIFFERENTIAL}"
_OPERATORS = frozenset("=+-\N{MULTIPLICATION SIGN}\N{MIDDLE DOT}(),")
_FUNCTIONS = frozenset({"exp", "ln"})
_OPEN, _CLOSE = '<mo stretchy="false">(</mo>', '<mo stretchy="false">)</mo>'
_CLOSING = frozenset("),\N{MIDDLE DOT}")
_TIGHT = ("(", _DEL, "\N{MIDDLE DOT}", "= -", "(-", ": -")  # after these, or a sign, no space


def digits(value: float) -> str:
    """Return a number to six digits, to four where it needs an exponent.

    Examples
    --------
    >>> [digits(x) for x in (0.0351190, -2.0, 4.1399377e-08, float("-inf"))]
    ['0.035119', '-2', '4.14e-08', '-inf']
    """
    text = f"{value:.6g}"
    return f"{value:.4g}" if "e" in text else text


def near_one(p: float, complement: float) -> str:
    """Return a probability; one so near 1 that its digits would all be 9 by its distance from 1.

    Examples
    --------
    >>> near_one(0.705385, 0.294615), near_one(1.0, 8.28e-08), near_one(1.0, 0.0)
    ('0.705385', '1 - 8.28e-08', '1')
    """
    return f"1 - {digits(complement)}" if 0 < complement < 5e-6 else digits(p)


def as_text(formula: Formula) -> str:
    """Return a formula as one line of text."""
    line = ""
    for before, part in zip(("=", *formula), formula, strict=False):
        shown = _text(part, bare=before == "=")
        called = shown == "(" and before in _FUNCTIONS
        tight = shown in _CLOSING or line.endswith(_TIGHT) or called or line in ("", "-")
        line += shown if tight else f" {shown}"
    return line


def as_mathml(formula: Formula) -> str:
    """Return a formula as a ``<math>`` element of its own; names in it are text and nothing else."""
    return f'<math displaystyle="true"><mrow>{_row(formula)}</mrow></math>'


def _text(part: Part, *, bare: bool = False) -> str:
    """Return one part as text; a number is bare where no bracket is needed to keep its sign from an operator."""
    if isinstance(part, str):
        return part
    if isinstance(part, Number):
        shown = digits(part.value) if part.complement is None else near_one(part.value, part.complement)
        return f"({shown})" if not bare and (shown.startswith("-") or " " in shown) else shown
    if isinstance(part, Sub):
        return f"{part.letter}_{printable(part.index, 20)}"
    if isinstance(part, Word):
        return part.text
    above, below = as_text(part.above), as_text(part.below)
    if above.startswith(_DEL):
        return f"{above}/{below}"
    return f"{_bracketed(above)} / {_bracketed(below)}" if bare or " " in above + below else f"({above}/{below})"


def _bracketed(text: str) -> str:
    """Return text in brackets if it has several terms."""
    return f"({text})" if " " in text else text


def _row(formula: Formula) -> str:
    """Return the parts of a formula as MathML."""
    return "".join(
        _mathml(part, bare=before in ("=", "(")) for before, part in zip(("=", *formula), formula, strict=False)
    )


def _mathml(part: Part, *, bare: bool = False) -> str:
    """Return one part as MathML."""
    if isinstance(part, str):
        return _symbol(part, bare=bare)
    if isinstance(part, Number):
        if part.complement is not None and 0 < part.complement < 5e-6:
            return f"<mrow>{_OPEN}<mn>1</mn><mo>\N{MINUS SIGN}</mo>{_number(part.complement)}{_CLOSE}</mrow>"
        shown = _number(part.value)
        return shown if bare or math.copysign(1, part.value) > 0 else f"<mrow>{_OPEN}{shown}{_CLOSE}</mrow>"
    if isinstance(part, Sub):
        kind = "mi" if len(part.index) == 1 else "mtext"
        return (
            f"<msub><mi>{html.escape(part.letter)}</mi><{kind}>{html.escape(printable(part.index, 20))}</{kind}></msub>"
        )
    if isinstance(part, Word):
        gap = "" if part.text.startswith("[") else "\N{NO-BREAK SPACE}"
        return f"<mtext>{'' if bare else gap}{html.escape(part.text)}{gap}</mtext>"
    return f"<mfrac><mrow>{_row(part.above)}</mrow><mrow>{_row(part.below)}</mrow></mfrac>"


def _symbol(part: str, *, bare: bool) -> str:
    """Return an operator, a letter or a whole number as MathML; a bare minus is the sign of what follows."""
    if part in ("(", ")"):
        return f'<mo stretchy="false">{part}</mo>'
    if part == "-" and bare:
        return '<mo form="prefix" lspace="0" rspace="0">\N{MINUS SIGN}</mo>'
    if part.endswith("\N{SUPERSCRIPT TWO}"):
        return f"<msup><mi>{html.escape(part[:-1])}</mi><mn>2</mn></msup>"
    if part == "ln":
        return '<mi>ln</mi><mspace width=".15em"></mspace>'
    kind = "mo" if part in _OPERATORS else "mn" if part.isdigit() else "mi"
    shown = html.escape(part.replace("-", "\N{MINUS SIGN}"))
    return f"<{kind}>{shown}</{kind}>"


def _number(value: float) -> str:
    """Return a number as MathML, its exponent raised."""
    sign = "<mo>\N{MINUS SIGN}</mo>" if value < 0 else ""
    if math.isinf(value):
        return f"<mrow>{sign}<mi>\N{INFINITY}</mi></mrow>"
    mantissa, _, exponent = digits(abs(value)).partition("e")
    if not exponent:
        return f"<mrow>{sign}<mn>{mantissa}</mn></mrow>"
    power = f"<msup><mn>10</mn><mn>{int(exponent)}</mn></msup>".replace("-", "\N{MINUS SIGN}")
    return f"<mrow>{sign}<mn>{mantissa}</mn><mo>\N{MULTIPLICATION SIGN}</mo>{power}</mrow>"
