"""Names of columns: which name a label, a row, a prediction, or one class's score."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

__all__ = [
    "LABEL_NAMES",
    "SURE_LABEL_NAMES",
    "family",
    "label_rank",
    "names_prediction",
    "names_row",
    "normalised",
    "without_family",
]

#: Names of a table's column of labels, the least ambiguous first, as `normalised` writes them.
LABEL_NAMES = (
    "label", "class", "target", "y", "labels", "targets",
    "y_true", "true_label", "true_class", "ground_truth", "groundtruth", "gt", "gold", "gold_label", "truth", "true",
    "actual", "actual_label", "actual_class", "observed", "obs", "label_id", "label_ids", "label_idx", "class_label",
    "class_id", "classlabel", "class_name", "label_name", "y_test", "expected", "target_class", "reference",
    "true_y", "category_id", "annotation", "classes", "cls", "y_val", "y_train", "class_idx",
    "species", "outcome", "category", "diagnosis", "variety", "survived", "sentiment", "digit", "quality", "churn",
    "income", "type", "kind", "result", "response", "answer",
)  # fmt: skip
SURE_LABEL_NAMES = 24  # of them: those that are rarely a class's or a feature's name
_RANK = {name: rank for rank, name in enumerate(LABEL_NAMES)}

_PREDICTION = re.compile(
    r"(y_)?(pred|preds|predicted|prediction|predictions|predict|argmax|top_?1|top_1_class)(_.*)?|y_?hat|winner|estimate"
)
_BESIDE = re.compile(
    r"fold|cv_fold|split|subset|correct|is_correct|error|errors|weight|weights|sample_weight|loss|nll|entropy|"
    r"max_prob|max_probability|top_prob|confidence|margin|timestamp|date|time|epoch|batch|response"
)
_ROW_SURE = re.compile(r"unnamed(_\d+)*|index_level_\d+|level_\d+|index|idx|row_?names?|rn")
_ROW_ID = re.compile(r"(.*_)?(id|ids|idx|index|uuid|guid|filename|file_name|filepath|path)|row(_?id|_?num|_?number)?")
_ROW_MAYBE = re.compile(
    r"no|nr|num|number|key|hash|file|files|image|img|image_name|sample|example|record|case|inst|instance|name|x|x1|url"
)

_KINDS = (
    r"p|pr|prob|probs|proba|probability|probabilities|logits?|scores?|log_?probs?|logp|class|confidence|pred|prediction|"
    r"outputs?|out|softmax|y_score|y_prob|y_proba|y_pred|prob_class|class_prob|cls|label|category|target"
)
_PREFIXED = re.compile(
    rf"\.?(?P<kind>{_KINDS})(?:\s*[._\-:(\[/ ]+\s*(?P<name>[^)\]]+?)\s*[)\]]*|(?P<digits>\d+))", re.IGNORECASE
)
_SUFFIXED = re.compile(rf"(?P<name>.+?)[._\-:/ ]+(?P<kind>{_KINDS})", re.IGNORECASE)


def normalised(name: str) -> str:
    """Return a name in lower case, its words joined by ``_``.

    Examples
    --------
    >>> normalised(" # True Label"), normalised("PassengerId"), normalised("Unnamed: 0")
    ('true_label', 'passenger_id', 'unnamed_0')
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", words.lower()).strip("_")


def label_rank(name: str) -> int | None:
    """Return the place of a column's name in `LABEL_NAMES`, 0 for the least ambiguous one; None if it is not there."""
    return _RANK.get(normalised(name))


def names_row(name: str) -> str:
    """Return how sure a column's name says that it names rows: "sure", "id", "maybe", or "" where it does not."""
    plain = normalised(name)
    if not name.strip() or _ROW_SURE.fullmatch(plain) or re.fullmatch(r"\.\.\.\d+", name.strip()):
        return "sure"
    if plain in _RANK:
        return ""
    return "id" if _ROW_ID.fullmatch(plain) else "maybe" if _ROW_MAYBE.fullmatch(plain) else ""


def names_prediction(name: str) -> str:
    """Return "prediction" for the name of a predicted class, "beside" for what stands beside scores, else ""."""
    plain = normalised(name)
    return "prediction" if _PREDICTION.fullmatch(plain) else "beside" if _BESIDE.fullmatch(plain) else ""


def family(names: Sequence[str]) -> tuple[str, dict[int, str]]:
    """Return a kind of score that at least two of the names state, and the names of the classes by position.

    Examples
    --------
    >>> family(["id", "P(cat)", "P(dog)"])
    ('p', {1: 'cat', 2: 'dog'})
    >>> family(["logit_0", "logit_1", "score"])
    ('logit', {0: '0', 1: '1'})
    >>> family(["cat", "dog"])
    ('', {})
    """
    found: dict[str, dict[int, str]] = {}
    for k, name in enumerate(names):
        match = _PREFIXED.fullmatch(name.strip())
        if match:
            found.setdefault(match["kind"].lower(), {})[k] = match["name"] or match["digits"]
        elif match := _SUFFIXED.fullmatch(name.strip()):
            found.setdefault(f"…{match['kind'].lower()}", {})[k] = match["name"]
    kind = max(found, key=lambda each: len(found[each]), default="")
    members = found.get(kind, {})
    # Two families of one size (prob_cat beside logit_cat): no choice follows from the names.
    several = Counter(map(len, found.values()))[len(members)] > 1
    return ("", {}) if len(members) < 2 or several or len(set(members.values())) < len(members) else (kind, members)


def without_family(names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes' names without what all of them begin or end with: ``prob_cat, prob_dog`` are ``cat, dog``."""
    _, members = family(names)
    return tuple(members[k] for k in range(len(names))) if len(members) == len(names) else tuple(names)
