"""One finding of `diagnose`, its texts from a table, and the list of findings with the checks that ran."""

from __future__ import annotations

import html
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, cast

from softnll._core.words import counted
from softnll._inspection.format import plain
from softnll.data.text import printable

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")  # the most severe first

_LONGEST = 1000  # characters of a text: names in it are shortened before, this bounds what is left


class Evidence(Mapping[str, Any]):
    """Numbers by name, and a sentence that states them.

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
    """A mistake in scores and labels, or a fact about them that is worth knowing.

    Attributes
    ----------
    code
        A stable name, for instance ``probabilities-as-logits``.
    severity
        ``"error"``: losses or accuracy are wrong; ``"warning"``: they are right, and something else is wrong;
        ``"note"``: worth knowing.
    title
        One line that names it.
    evidence
        Numbers by name; ``str(evidence)`` is the sentence with them.
    consequence
        Its effect on loss, gradient or accuracy.
    remedy
        How to correct it.

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
        heading = f"{self.severity}: {printable(self.title, 200)} [{self.code}]"
        return "\n".join([heading, *(f"  {a}: {b}" for a, b in self.parts())])

    def parts(self) -> tuple[tuple[str, str], ...]:
        """Return evidence, consequence and remedy: a heading and one line of text each."""
        parts = (("evidence", str(self.evidence)), ("consequence", self.consequence), ("remedy", self.remedy))
        return tuple((head, printable(text, _LONGEST)) for head, text in parts)

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the types of JSON; infinities and NaN, which JSON lacks, as strings."""
        return vars(self) | {"evidence": {"sentence": str(self.evidence), **plain(self.evidence)}}

    def _repr_html_(self) -> str:
        rows = "".join(f"<dt>{head}</dt><dd>{html.escape(text)}</dd>" for head, text in self.parts())
        title = html.escape(f"{self.severity}: {printable(self.title, 200)}")
        heading = f"<b>{title}</b> <code>{html.escape(self.code)}</code>"
        return f'<div class="softnll-finding">{heading}<dl>{rows}</dl></div>'


@cache
def texts() -> dict[str, dict[str, str]]:
    """Return severity, title, consequence and remedy of each finding, by its name in findings.toml."""
    return tomllib.loads(resources.files(__package__).joinpath("findings.toml").read_text(encoding="utf-8"))


class Unseen(str):
    """Why a check had nothing to look at."""

    __slots__ = ()


def finding(name: str, evidence: Evidence, *, severity: Severity | None = None, **words: Any) -> Finding:
    """Return a finding with the texts that findings.toml has under this name: a code, or ``"code/text"``.

    The evidence's numbers and the words fill the placeholders of the texts. A severity replaces the table's.
    """
    text = texts()[name]
    values = {**evidence, **words}
    title, consequence, remedy = (text[part].format(**values) for part in ("title", "consequence", "remedy"))
    code = name.partition("/")[0]
    return Finding(code, severity or cast("Severity", text["severity"]), title, evidence, consequence, remedy)


class Findings(list[Finding]):
    """A list of findings, the most severe first, with the names of the checks.

    Attributes
    ----------
    checked
        The names of the checks that ran.
    unchecked
        The names of those that did not, each with its reason.
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
        """Return the number of findings of each severity; without findings, also the names of the checks."""
        counts = [sum(each.severity == severity for each in self) for severity in SEVERITIES]
        found = ", ".join(counted(n, name) for n, name in zip(counts, SEVERITIES, strict=True) if n)
        size = f"{counted(self.rows, 'row')} of {counted(self.classes, 'class')}: {found or 'nothing found'}."
        return size if self else f"{size} {self.looked_for()}"

    def looked_for(self) -> str:
        """Return the names of the checks that ran, and of those that did not."""
        ran = f"Looked for: {'; '.join(self.checked)}."
        return ran + (f" Not looked for: {'; '.join(self.unchecked)}." if self.unchecked else "")

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
