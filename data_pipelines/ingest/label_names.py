"""The label convention that names of labels tell, as in `dataset.json` or `dseg.tsv`."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gmmas_jax.cases.labels import CONVENTIONS
from gmmas_jax.errors import UserError

_NAMES = {
    0: ("background", "bg", "none"),
    1: (
        *("ncr", "net", "netc", "ncrnet", "necrosis", "necrotic", "necroticcore", "necrotictumor"),
        *("necrotictumorcore", "nonenhancing", "nonenhancingtumor", "nonenhancingtumorcore"),
        *("necroticandnonenhancingcore", "necroticandnonenhancingtumorcore"),
        *("necroticandnonenhancingtumor", "necroticnonenhancingtumorcore"),
    ),
    2: (
        *("ed", "edema", "peritumoraledema", "snfh", "surroundingnonenhancingflairhyperintensity"),
        *("oedemaandinfiltration", "edemaandinfiltration", "invadededema", "peritumoral"),
    ),
    3: ("et", "enhancing", "enhancingtumor", "gdenhancingtumor", "enhancingcore", "activetumor"),
    4: ("rc", "resectioncavity", "cavity"),
}
_CODE_OF = {name: code for code, names in _NAMES.items() for name in names}
_REGION_NAMES = {
    "WT": ("wt", "wholetumor"),
    "TC": ("tc", "tumorcore"),
    "ET": _NAMES[3],
    "RC": _NAMES[4],
}
_REGION_OF = {name: region for region, names in _REGION_NAMES.items() for name in names}


def convention_of_codes(names: Mapping[int, str], *, prefer: str | None = None) -> str | None:
    """Returns the convention in which codes have these names, or None where none or unknown.

    Args:
        names: Code in the file to the name of its label.
        prefer: The convention to take where several agree.
    """
    meaning: dict[int, int] = {0: 0}
    for code, name in names.items():
        ours = _CODE_OF.get(_plain(name))
        if ours is None:
            return None
        meaning[code] = ours
    return _fitting(meaning, prefer)


def convention_of_labels(labels: Mapping[str, Any], *, prefer: str | None = None) -> str | None:
    """Returns the convention that `labels` of a `dataset.json` tell, or None.

    Args:
        labels: As nnU-Net writes them, name to code or to the codes of a region; or, as the
            Decathlon and nnU-Net 1 do, code to name.
        prefer: As for `convention_of_codes`.
    """
    if all(isinstance(name, str) and code.isdigit() for code, name in labels.items()):
        return convention_of_codes({int(c): str(n) for c, n in labels.items()}, prefer=prefer)
    if any(isinstance(value, list | tuple) and len(value) > 1 for value in labels.values()):
        return _of_regions(labels, prefer)
    codes: dict[int, str] = {}
    for name, value in labels.items():
        code = value[0] if isinstance(value, list | tuple) and value else value
        if name == "ignore":
            continue
        if not isinstance(code, int):
            return None
        codes[code] = name
    return convention_of_codes(codes, prefer=prefer)


def read_json(path: Path) -> Any:
    """Reads a JSON file, with or without a byte-order mark.

    Raises:
        UserError: If it cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a JSON file. Check the path."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: no valid JSON ({error}); expected a JSON object. Correct it, or write it "
            "again."
        ) from error


def _of_regions(labels: Mapping[str, Any], prefer: str | None) -> str | None:
    regions: dict[str, set[int]] = {}
    for name, value in labels.items():
        if name in ("background", "ignore"):
            continue
        region = _REGION_OF.get(_plain(name))
        codes = value if isinstance(value, list | tuple) else [value]
        if region is None or not all(isinstance(code, int) for code in codes):
            return None
        regions[region] = set(codes)
    if not {"WT", "TC", "ET"} <= set(regions):
        return None
    parts = {
        3: regions["ET"],
        1: regions["TC"] - regions["ET"],
        2: regions["WT"] - regions["TC"],
        4: regions.get("RC", set()),
    }
    if any(len(codes) > 1 for codes in parts.values()):
        return None
    return _fitting({0: 0} | {c: ours for ours, codes in parts.items() for c in codes}, prefer)


def _fitting(meaning: dict[int, int], prefer: str | None) -> str | None:
    """Returns the preferred convention in which these codes mean this, else the first."""
    if len(meaning) < 2:
        return None
    names = [*([prefer] if prefer else []), *CONVENTIONS]
    return next((name for name in names if meaning.items() <= CONVENTIONS[name].items()), None)


def _plain(name: str) -> str:
    text = re.sub(r"[^a-z0-9]", "", name.lower())
    return text.replace("tumour", "tumor").replace("oedema", "edema")
