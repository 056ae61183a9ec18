"""The four MRI sequences, the names the field gives them, and their fifteen subsets."""

import re
from collections.abc import Iterable

import numpy as np

from gmmas_jax.errors import UserError

SEQUENCES = ("t1n", "t1c", "t2w", "t2f")
"""T1 native, T1 with contrast, T2, T2-FLAIR: the order of every channel axis."""

_ALIASES = {
    "t1n": ("t1n", "t1", "t1w", "t1nat", "t1native", "t1pre", "t1wpre"),
    "t1c": (
        *("t1c", "t1ce", "t1gd", "t1gad", "ct1", "cet1", "t1post", "t1contrast", "t1km"),
        *("t1wc", "t1wce", "t1wgd", "t1wpost", "ct1w", "cet1w"),
    ),
    "t2w": ("t2w", "t2"),
    "t2f": ("t2f", "flair", "fla", "t2flair", "t2fla", "t2wflair", "flairw"),
}
_SEQUENCE_OF = {alias: name for name, aliases in _ALIASES.items() for alias in aliases}


def _ordered(*subsets: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(s for s in SEQUENCES if s in subset.split("+")) for subset in subsets)


SUBSETS = _ordered(
    *("t2w", "t1c", "t1n", "t2f"),
    *("t1c+t2w", "t1c+t1n", "t2f+t1n", "t1n+t2w", "t2f+t2w", "t2f+t1c"),
    *("t2f+t1c+t1n", "t2f+t1n+t2w", "t2f+t1c+t2w", "t1c+t1n+t2w"),
    "t1n+t1c+t2w+t2f",
)
"""The fifteen non-empty subsets, in the row order of the published missing-sequence tables
(RFNet, mmFormer, M2FTrans and later)."""


def canonical_sequence(name: str) -> str | None:
    """Returns the sequence that an alias names, or None where it names none.

    Case and punctuation do not matter: `T2-FLAIR`, `t2_flair` and `t2flair` are one name.

    Args:
        name: A whole name, not a file name that contains one.
    """
    return _SEQUENCE_OF.get(re.sub(r"[^a-z0-9]", "", name.lower()))


def presence(names: Iterable[str]) -> np.ndarray:
    """Returns which sequences are there.

    Args:
        names: Sequence names, a subset of `SEQUENCES`.

    Returns:
        float32 [4], 1 where the sequence is present, in the order of `SEQUENCES`.

    Raises:
        UserError: If a name is not a sequence.
    """
    given = set(names)
    unknown = sorted(given.difference(SEQUENCES))
    if unknown:
        raise UserError(
            f"Unknown sequence {', '.join(map(repr, unknown))}: expected some of "
            f"{', '.join(SEQUENCES)}. Use these names."
        )
    return np.array([name in given for name in SEQUENCES], np.float32)
