"""Output in any encoding: a character that a stream cannot encode is written as one that it can."""

# ruff: noqa: RUF001 - signs that look like others are what this module is about

from __future__ import annotations

import codecs
import contextlib
import sys
import unicodedata

_HANDLER = "softnll.replace"
_DEFAULT = {"strict", "surrogateescape", "backslashreplace"}  # Python's own choices for the standard streams

# What ASCII has for the signs of formulas, lists and tables: a sign, "=", its replacement.
_SIGNS = """
−=- –=- —=- ‐=- ‑=- ─=- •=* ·=* ⋅=* ‘=' ’=' ′=' “=" ”=" …=... │=| █=#
×=x →=-> ≤=<= ≥=>= ≠=!= ≈=~ ∝=~ ∞=inf √=sqrt ∂=d ∈=in ²=^2 ³=^3 ½=1/2 ¼=1/4 ⅛=1/8
Σ=sum ∑=sum Δ=Delta α=alpha β=beta γ=gamma ε=epsilon ζ=zeta θ=theta λ=lambda μ=mu σ=sigma τ=tau
"""
_ASCII = {pair[0]: pair[2:] for pair in _SIGNS.split()}


def accept_all_text() -> None:
    """Let standard output and standard error write any text, whatever their encoding.

    A stream whose user chose how errors are handled (``PYTHONIOENCODING=ascii:ignore``) keeps that.
    """
    codecs.register_error(_HANDLER, _replacement)
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in _DEFAULT and hasattr(stream, "reconfigure"):
            with contextlib.suppress(ValueError, OSError):  # a stream that is closed or half read stays as it is
                stream.reconfigure(errors=_HANDLER)


def _replacement(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII text in place of the characters that an encoding lacks, and where the encoder goes on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(char: str) -> str:
    """Return a character in ASCII: its sign or name, the letter without accents, or a question mark."""
    if char in _ASCII:
        return _ASCII[char]
    plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode("ascii")
    return plain or ("" if unicodedata.combining(char) else "?")
