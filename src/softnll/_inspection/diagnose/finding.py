"""What a diagnosis says: one finding, and the list of them with what was looked for."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from softnll.data.text import printable

__all__ = ["SEVERITIES", "Evidence", "Finding", "Findings", "Severity", "percent"]

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")  # the worst first

_LONGEST = 1000  # characters of a text: names in it are shortened before, this bounds what is left


class Evidence(Mapping[str, Any]):
    """Numbers by name, and the sentence that says them.

    Examples
    --------
    >>> evidence = Evidence("the mean loss is 2.303, ln 10 is 2.303", mean_loss=2.3031, ln_C=2.3026)
    >>> evidence["ln_C"], str(evidence)
    (2.3026, 'the mean loss is 2.303, ln 10 is 2.303')
    """

    def __init__(self, sentence: str, /, **numbers: Any) -> None:
        self._sentence, self._numbers = sentence, numbers

    def __getitem__(self, name: str) -> Any:
        return self._numbers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __str__(self) -> str:
        return self._sentence

    def __hash__(self) -> int:
        return hash(self._sentence)

    def __repr__(self) -> str:
        return f"Evidence({self._sentence!r}, {self._numbers})"


@dataclass(frozen=True, repr=False)
class Finding:
    """One thing that the scores and labels show.

    Attributes
    ----------
    code
        A stable name, for instance ``probabilities-as-logits``.
    severity
        ``"error"``: losses or accuracy are not what they seem; ``"warning"``: they are, and something is amiss;
        ``"note"``: worth knowing.
    title
        One line.
    evidence
        Numbers by name; ``str(evidence)`` is the sentence with them.
    consequence
        What it does to loss, gradient or accuracy.
    remedy
        What to do.

    Examples
    --------
    >>> import softnll as sn
    >>> found = sn.diagnose([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], [0, 2])
    >>> found[0]
    Finding[error probabilities-as-logits] The scores are probabilities: softmax has been applied already
    >>> found[0].evidence["rows"]
    2
    """

    code: str
    severity: Severity
    title: str
    evidence: Evidence
    consequence: str
    remedy: str

    def __repr__(self) -> str:
        return f"Finding[{self.severity} {self.code}] {printable(self.title, 200)}"

    def __str__(self) -> str:
        return "\n".join(
            [f"{self.severity}: {printable(self.title, 200)} [{self.code}]", *(f"  {a}: {b}" for a, b in self.parts())]
        )

    def parts(self) -> tuple[tuple[str, str], ...]:
        """Return what is said below the title: a heading and a text each, fit for one line of a terminal."""
        said = (("evidence", str(self.evidence)), ("consequence", self.consequence), ("remedy", self.remedy))
        return tuple((head, printable(text, _LONGEST)) for head, text in said)

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the types of JSON; infinities and NaN, which JSON lacks, as strings."""
        return {
            "code": self.code,
            "severity": self.severity,
            "title": self.title,
            "evidence": {"sentence": str(self.evidence), **{name: _plain(x) for name, x in self.evidence.items()}},
            "consequence": self.consequence,
            "remedy": self.remedy,
        }

    def _repr_html_(self) -> str:
        rows = "".join(f"<dt>{head}</dt><dd>{html.escape(text)}</dd>" for head, text in self.parts())
        title = (
            f"<b>{self.severity}: {html.escape(printable(self.title, 200))}</b> <code>{html.escape(self.code)}</code>"
        )
        return f'<div class="softnll-finding">{title}<dl>{rows}</dl></div>'


class Findings(list[Finding]):
    """A list of findings, the worst first, that knows what was looked for.

    Attributes
    ----------
    checked
        What was looked for, in words.
    unchecked
        What could not be looked for, and why.
    rows, classes
        The size of the scores.
    """

    def __init__(
        self,
        found: Iterable[Finding] = (),
        *,
        checked: tuple[str, ...] = (),
        unchecked: tuple[str, ...] = (),
        rows: int = 0,
        classes: int = 0,
    ) -> None:
        super().__init__(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))
        self.checked, self.unchecked, self.rows, self.classes = checked, unchecked, rows, classes

    def __str__(self) -> str:
        return "\n\n".join([*map(str, self), self.summary()])

    def summary(self) -> str:
        """Return how many findings there are; where there is none, what was looked for."""
        counts = [sum(each.severity == severity for each in self) for severity in SEVERITIES]
        told = ", ".join(f"{n} {name}{'s' * (n != 1)}" for n, name in zip(counts, SEVERITIES, strict=True) if n)
        said = f"{self.rows} rows of {self.classes} classes: {told or 'nothing found'}."
        return said if self else f"{said} {self.looked_for()}"

    def looked_for(self) -> str:
        """Return what was looked for, and what was not."""
        said = f"Looked for: {'; '.join(self.checked)}."
        return said + (f" Not looked for: {'; '.join(self.unchecked)}." if self.unchecked else "")

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the types of JSON."""
        return {
            "rows": self.rows,
            "classes": self.classes,
            "findings": [finding.to_dict() for finding in self],
            "checked": list(self.checked),
            "unchecked": list(self.unchecked),
        }

    def _repr_html_(self) -> str:
        return "".join(each._repr_html_() for each in self) + f"<p>{html.escape(self.summary())}</p>"


def percent(share: float) -> str:
    """Return a share in percent; one that is neither nothing nor all is not shown as such."""
    text = f"{100 * share:.1f} %"
    if share < 1 and text == "100.0 %":
        return "over 99.9 %"
    return "under 0.1 %" if share > 0 and text == "0.0 %" else text


def _plain(value: Any) -> Any:
    """Return a number, a text or a sequence of them as JSON has it."""
    if isinstance(value, str | bool | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Iterable):
        return [_plain(each) for each in value]
    number = float(value)
    if not math.isfinite(number):
        return str(number)
    return int(value) if number.is_integer() and not isinstance(value, float) else number
