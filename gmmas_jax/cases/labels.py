"""Tumour labels, the regions made of them, and the conventions in which files hold them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gmmas_jax.errors import UserError

LABELS = ("background", "NCR", "ED", "ET", "RC", "TU")
"""Code to name: necrotic and non-enhancing core, oedema, enhancing tumour, resection cavity, and
tumour that was outlined as a whole, its parts not told apart."""

REGIONS: dict[str, tuple[int, ...]] = {"WT": (1, 2, 3, 5), "TC": (1, 3), "ET": (3,), "RC": (4,)}
"""Region name to the codes it unites; RC belongs to neither WT nor TC, as in the evaluation code
of BraTS 2024 and later."""

UNDIVIDED = ("background", "TU")
"""The classes of a network that outlines the tumour as a whole."""

CONVENTIONS: dict[str, Mapping[int, int]] = {
    # BraTS 2012-2021, UCSF-PDGM, UPENN-GBM, FeTS: 3 is unused.
    "brats2021": {0: 0, 1: 1, 2: 2, 4: 3},
    "brats2023": {0: 0, 1: 1, 2: 2, 3: 3},
    # BraTS 2024 and later, post-treatment: 4 is the resection cavity. Also our own codes.
    "brats2024": {0: 0, 1: 1, 2: 2, 3: 3, 4: 4},
    # Medical Segmentation Decathlon, Task01_BrainTumour.
    "msd": {0: 0, 1: 2, 2: 1, 3: 3},
    # One outline of the lesion, as physicians draw it.
    "lesion": {0: 0, 1: 5},
    # Output of nnU-Net's BraTS 2021 converter (Dataset137_BraTS21.py).
    "nnunet_brats21": {0: 0, 1: 2, 2: 1, 3: 3},
}
"""Convention name to {code in the file: our code}."""

_ROUNDING = 0.01
_UNKNOWN = 255


def convert_labels(array: np.ndarray, convention: str, source: str) -> np.ndarray:
    """Converts a label array of a declared convention into our codes.

    Args:
        array: Any numeric dtype and shape; values within 0.01 of an integer are rounded.
        convention: A name of `CONVENTIONS`.
        source: What messages name, for example the file.

    Returns:
        uint8, same shape, codes of `LABELS`.

    Raises:
        UserError: On an unknown convention, a value that is no integer, or a code that the
            convention does not know.
    """
    mapping = _mapping(convention, source)
    codes = integer_codes(array, source)
    table = np.full(256, _UNKNOWN, np.uint8)
    for theirs, ours in mapping.items():
        table[theirs] = ours
    label = table[codes]
    if (label == _UNKNOWN).any():
        values = sorted(set(np.unique(codes).tolist()) - set(mapping))
        raise UserError(
            f"{source}: label values {_listing(values)} are unknown to the convention "
            f"{convention!r}, which has {_listing(mapping)}. Declare the convention that the file "
            f"follows ({', '.join(CONVENTIONS)}), or correct the file."
        )
    return label


def convert_back(label: np.ndarray, convention: str) -> np.ndarray:
    """Converts our codes into those of a convention, the inverse of `convert_labels`.

    Args:
        label: Integers, any shape, codes of `LABELS`.
        convention: A name of `CONVENTIONS`.

    Returns:
        uint8, same shape.

    Raises:
        UserError: If the label holds a code that the convention cannot express.
    """
    table = np.full(256, _UNKNOWN, np.uint8)
    for theirs, ours in _mapping(convention, "label").items():
        table[ours] = theirs
    converted = table[label.astype(np.uint8)]
    if (converted == _UNKNOWN).any():
        codes = set(np.unique(label[converted == _UNKNOWN]).tolist())
        fitting = [name for name, codes_of in CONVENTIONS.items() if codes <= {*codes_of.values()}]
        raise UserError(
            f"The label convention {convention!r} has no code for "
            f"{', '.join(sorted(LABELS[code] for code in codes))}; "
            f"{' and '.join(map(repr, fitting)) or 'none'} has. Choose another for the mask."
        )
    return converted


def infer_convention(array: np.ndarray, source: str, *, numbered_channels: bool = False) -> str:
    """Returns the convention of a label file where its values leave no doubt.

    4 means enhancing tumour up to BraTS 2021 and resection cavity from 2024 on, and nothing in a
    file without 3 tells which. Files in nnU-Net naming come from converters of which some swap 1
    and 2.

    Args:
        array: Any numeric dtype and shape.
        source: What messages name.
        numbered_channels: Whether the images beside the label are named by channel number, as
            nnU-Net and the Medical Segmentation Decathlon do.

    Raises:
        UserError: If more than one convention fits, or none.
    """
    values = set(np.unique(integer_codes(array, source)).tolist())
    if values == {0}:
        return "brats2023"
    if numbered_channels:
        fitting = [name for name, mapping in CONVENTIONS.items() if values <= set(mapping)]
    elif values <= {0, 1}:
        # A lesion outlined as a whole, or necrosis and nothing around it.
        fitting = ["brats2023", "lesion"]
    elif values <= {0, 1, 2, 3}:
        return "brats2023"
    elif values <= {0, 1, 2, 3, 4} and {3, 4} <= values:
        return "brats2024"
    else:
        fitting = [n for n in ("brats2021", "brats2024") if values <= set(CONVENTIONS[n])]
    if not fitting:
        raise UserError(
            f"{source}: label values {_listing(values)} fit no known convention. Expected those of "
            f"{', '.join(f'{n} ({_listing(m)})' for n, m in CONVENTIONS.items())}."
        )
    raise UserError(
        f"{source}: label values {_listing(values)} are ambiguous: "
        f"{'; '.join(f'{name}: {_meaning(name, values)}' for name in fitting)}. "
        f"Declare the label convention, one of {', '.join(fitting)}."
    )


def class_names(num_classes: int) -> tuple[str, ...]:
    """Returns the labels that the classes of a network stand for, background first.

    Two classes are background and the tumour as a whole; more are the first codes of `LABELS`.
    """
    return UNDIVIDED if num_classes == len(UNDIVIDED) else LABELS[:num_classes]


def class_regions(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns the regions that classes make up: name to positions in `names`.

    Args:
        names: From `class_names`.
    """
    if tuple(names) == UNDIVIDED:
        return {"WT": (1,)}
    parts = {
        region: [LABELS[code] for code in codes if LABELS[code] != UNDIVIDED[1]]
        for region, codes in REGIONS.items()
    }
    return {
        region: tuple(names.index(part) for part in members)
        for region, members in parts.items()
        if set(members) <= set(names)
    }


def region_mask(label: np.ndarray, region: str) -> np.ndarray:
    """Returns where a region lies.

    Args:
        label: Integers, any shape, codes of `LABELS`.
        region: A name of `REGIONS`.

    Returns:
        bool, same shape.
    """
    return np.isin(label, REGIONS[region])


def _mapping(convention: str, source: str) -> Mapping[int, int]:
    if convention not in CONVENTIONS:
        raise UserError(
            f"{source}: unknown label convention {convention!r}; expected one of "
            f"{', '.join(CONVENTIONS)}."
        )
    return CONVENTIONS[convention]


def integer_codes(array: np.ndarray, source: str) -> np.ndarray:
    """Returns the codes of a label array, refusing what no convention has.

    Args:
        array: Any numeric dtype and shape.
        source: What messages name.

    Returns:
        uint8, same shape, 0 to 254; values within 0.01 of an integer are rounded.

    Raises:
        UserError: On a fraction, a negative value or one from 255 on.
    """
    if not np.issubdtype(array.dtype, np.integer) and array.dtype != bool:
        rounded = np.rint(array)
        # `not <=` also refuses NaN, which compares false with everything.
        wrong = ~(np.abs(array - rounded) <= _ROUNDING)
        if wrong.any():
            examples = ", ".join(f"{value:g}" for value in np.unique(array[wrong])[:3])
            raise UserError(
                f"{source}: {int(wrong.sum())} label voxels are not integers (for example "
                f"{examples}); expected label codes. The mask was probably resampled like an "
                "image: resample it with nearest neighbour."
            )
        array = rounded
    if array.size and (array.min() < 0 or array.max() >= _UNKNOWN):
        values = np.unique(array)
        raise UserError(
            f"{source}: label values {_listing(values[(values < 0) | (values >= _UNKNOWN)])} are "
            f"no label codes; expected small integers from 0 on. Correct the file."
        )
    return array.astype(np.uint8)


def _listing(values: Iterable[float]) -> str:
    numbers = sorted(map(float, values))
    text = ", ".join(f"{value:g}" for value in numbers[:8])
    return "{" + text + (", …" if len(numbers) > 8 else "") + "}"


def _meaning(convention: str, values: set[int]) -> str:
    mapping = CONVENTIONS[convention]
    return ", ".join(f"{value} = {LABELS[mapping[value]]}" for value in sorted(values) if value)
