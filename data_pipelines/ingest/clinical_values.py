"""The written table of values: every spelling that clinical tables use, and what it becomes.

A spelling that is not here is refused, never guessed. `docs/reference/clinical-tables.md` shows the
same table to users.
"""

import math
import re
from typing import NamedTuple

MISSING = frozenset(
    [
        *("", "-", "--", ".", "?", "na", "n/a", "#n/a", "nan", "none", "null", "-1", "-1.0"),
        *("unknown", "[unknown]", "unk", "missing", "not available", "[not available]"),
        *("not applicable", "[not applicable]", "not reported", "not evaluated", "[not evaluated]"),
        *("not tested", "not done", "nd", "not determined", "pending", "[discrepancy]"),
        *("nos", "nec", "nos/nec", "nec/nos", "nos, nec"),
        *("indeterminate", "inconclusive", "equivocal", "ambiguous", "borderline"),
    ]
)
"""Spellings of "not known", in small letters. They are never a class."""

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "idh": {
        "wildtype": (
            *("wildtype", "wild-type", "wild type", "wt", "idhwt", "idh-wt", "idh wt"),
            *("idh wildtype", "idh-wildtype", "idh wild-type", "not mutated", "non-mutant"),
        ),
        "mutant": (
            *("mutant", "mutated", "mut", "mutation", "mutated (nos)", "mutant (nos)"),
            *("idhmut", "idh-mut", "idh mut", "idh mutant", "idh-mutant", "idh-mutated"),
            *("idh1 mutant", "idh2 mutant", "idh1-mutant", "idh2-mutant"),
        ),
    },
    "codel_1p19q": {
        "intact": (
            *("intact", "retained", "non-codel", "noncodel", "non-codeleted", "not codeleted"),
            *("not co-deleted", "no co-deletion", "non-co-deleted", "no codeletion"),
        ),
        "codeleted": (
            *("codeleted", "co-deleted", "codel", "codeletion", "co-deletion"),
            *("relative co-deletion", "1p/19q-codeleted", "1p/19q codeleted"),
        ),
    },
    "mgmt": {
        "unmethylated": ("unmethylated", "un-methylated", "non-methylated", "negative", "neg"),
        "methylated": ("methylated", "positive", "pos"),
    },
    "outcome": {
        "progression": ("progression", "true progression", "tp"),
        "pseudoprogression": ("pseudoprogression", "pseudo-progression", "psp"),
    },
    "sex": {"female": ("female", "f", "woman"), "male": ("male", "m", "man")},
    "survival_event": {
        "1": ("1", "1.0", "1:deceased", "deceased", "dead", "died"),
        "0": ("0", "0.0", "0:living", "living", "alive", "lost to follow-up", "censored"),
    },
    "grade": {
        "2": ("2", "2.0", "ii", "g2", "grade 2", "grade ii", "who 2", "who ii", "who grade ii"),
        "3": ("3", "3.0", "iii", "g3", "grade 3", "grade iii", "who 3", "who iii", "who grade iii"),
        "4": ("4", "4.0", "iv", "g4", "grade 4", "grade iv", "who 4", "who iv", "who grade iv"),
    },
}
"""Column of the manifest to value to its spellings, in small letters."""

FLAGS = {
    "idh": ("wildtype", "mutant"),
    "codel_1p19q": ("intact", "codeleted"),
    "mgmt": ("unmethylated", "methylated"),
}
"""What 0 and 1 mean in a column whose name says so, as in IDH_mutated; elsewhere they are refused,
because half of all tables count the other way round."""

SUBTYPES: dict[str, tuple[str | None, str | None]] = {
    "idhmut-codel": ("mutant", "codeleted"),
    "idhmut-non-codel": ("mutant", "intact"),
    "idhmut-noncodel": ("mutant", "intact"),
    "idhmut": ("mutant", None),
    "idhwt": ("wildtype", None),
}
"""TCGA's joint subtype to IDH and 1p/19q. It says nothing about 1p/19q where IDH is wildtype."""

_SUBSTITUTION = re.compile(
    r"(idh1[ :]*(p\.)?\(?(r132[acghlpqsv]|arg132(ala|cys|gly|his|leu|pro|gln|ser|val))\)?"
    r"|idh2[ :]*(p\.)?\(?(r172[agkmstw]|arg172(ala|gly|lys|met|ser|thr|trp))\)?)"
)
"""An amino acid replaced at the hot spots of IDH1 (R132) and IDH2 (R172)."""

_LIMITS = {"age": (0.0, 120.0), "survival_days": (0.0, 40000.0)}
_SPELLING_OF = {
    column: {word: value for value, words in values.items() for word in words}
    for column, values in WORDS.items()
}


class UnknownSpelling(Exception):
    """A cell holds what the written table does not have; carries what is known instead."""


class Survival(NamedTuple):
    """Days, and whether the patient died; None where not known."""

    days: float | None
    event: int | None


def spelled(text: str) -> str:
    """Returns a cell as the table writes spellings: small letters, one blank, plain minus."""
    plain = re.sub("[\u2010-\u2015\u2212]", "-", text)
    return " ".join(plain.casefold().split())


def is_missing(text: str) -> bool:
    """Returns whether a cell says that the value is not known."""
    return spelled(text) in MISSING


def read_word(column: str, text: str, *, flag: bool = False) -> str | None:
    """Returns the class that a cell means.

    Args:
        column: A name of `WORDS`.
        text: The cell.
        flag: Whether the name of the table's column says what 0 and 1 mean.

    Returns:
        The value for the manifest, or None where the cell says that it is not known.

    Raises:
        UnknownSpelling: If the table does not have the spelling.
    """
    word = spelled(text)
    if word in MISSING:
        return None
    if flag and word in ("0", "0.0", "1", "1.0"):
        return FLAGS[column][int(float(word))]
    known = _SPELLING_OF[column]
    if word in known:
        return known[word]
    if column == "idh" and _SUBSTITUTION.fullmatch(word):
        return "mutant"
    listed = (["0", "1"] if flag else []) + sorted(known)
    hint = ""
    if column in FLAGS and word in ("0", "1", "0.0", "1.0", "yes", "no", "true", "false"):
        hint = f" (the column does not say whether {word} means {' or '.join(FLAGS[column])})"
    if column == "idh":
        listed.append("IDH1 p.R132H and the like")
    raise UnknownSpelling(f"{', '.join(listed)}, or a spelling of missing{hint}")


def read_number(column: str, text: str) -> float | None:
    """Returns a number; a decimal comma is read.

    Args:
        column: `age` in years or `survival_days`.
        text: The cell.

    Raises:
        UnknownSpelling: If the cell holds no number, or one that the column cannot have.
    """
    if is_missing(text):
        return None
    low, high = _LIMITS[column]
    try:
        number = float(re.sub(r"^(\d+),(\d+)$", r"\1.\2", spelled(text)))
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        unit = "years" if column == "age" else "days"
        raise UnknownSpelling(f"a number of {unit} from {low:g} to {high:g}")
    return number


def read_survival(text: str) -> Survival:
    """Returns days of survival, also from `ALIVE (361 days later)`, as BraTS 2020 writes.

    Raises:
        UnknownSpelling: If the cell holds no number of days.
    """
    alive = re.fullmatch(r"alive \((\d+) days later\)", spelled(text))
    if alive is not None:
        return Survival(float(alive[1]), 0)
    return Survival(read_number("survival_days", text), None)


def read_subtype(text: str) -> tuple[str | None, str | None]:
    """Returns IDH and 1p/19q from TCGA's joint subtype, with or without `LGG_` or `GBM_` before it.

    Raises:
        UnknownSpelling: If the table does not have the spelling.
    """
    word = re.sub(r"^(lgg|gbm)_", "", spelled(text))
    if word in MISSING:
        return None, None
    if word not in SUBTYPES:
        raise UnknownSpelling(", ".join(sorted(SUBTYPES)))
    return SUBTYPES[word]
