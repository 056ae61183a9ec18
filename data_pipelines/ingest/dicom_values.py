"""Values of DICOM elements, as far as they can be used: real headers break the standard often."""

import math
from typing import Any

import pydicom
from pydicom.multival import MultiValue


def get_value(dataset: pydicom.Dataset, name: str) -> Any:
    """Returns a value, or None where it is absent or written as its kind must not be."""
    try:
        return dataset.get(name)
    except (ValueError, TypeError, OverflowError, NotImplementedError):
        return None


def get_size(dataset: pydicom.Dataset, name: str) -> int:
    """Returns a count, or 0 where there is none."""
    value = get_value(dataset, name)
    return int(value) if isinstance(value, int) and value > 0 else 0


def get_anywhere(dataset: pydicom.Dataset, name: str) -> Any:
    """Returns a value of the file, or in an enhanced one of its first frame."""
    if name in dataset:
        return get_value(dataset, name)
    for holder in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for groups in (get_value(dataset, holder) or [])[:1]:
            for group in groups:
                if group.VR == "SQ" and group.value and name in group.value[0]:
                    return get_value(group.value[0], name)
    return None


def get_text(dataset: pydicom.Dataset, name: str) -> str:
    """Returns a value as text without blanks around it, "" where there is none."""
    value = get_anywhere(dataset, name)
    return "" if value is None else str(value).strip()


def get_words(dataset: pydicom.Dataset, name: str) -> list[str]:
    """Returns the parts of a value that are not empty, as text."""
    value = get_anywhere(dataset, name)
    if value is None:
        return []
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [str(word).strip() for word in values if str(word).strip()]


def get_number(dataset: pydicom.Dataset, name: str) -> float | None:
    """Returns the first part of a value as a finite number, or None."""
    words = get_words(dataset, name)
    try:
        number = float(words[0]) if words else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def to_vector(value: Any, length: int) -> Any:
    """Returns so many finite numbers as a tuple, or None."""
    try:
        numbers = tuple(float(number) for number in value or ())
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == length and all(map(math.isfinite, numbers)) else None
