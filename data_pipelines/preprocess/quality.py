"""How well a case was preprocessed, in numbers, and which of them are too bad."""

from collections.abc import Mapping
from typing import Any

BRAIN_ML = (850.0, 2200.0)
ATLAS_DICE = 0.85
MIN_INFORMATION = 0.15
MAX_CUT = 0.02
MAX_RIM = 0.85
MAX_CLIPPED = 0.01
MAX_DISPLACEMENT_MM = 60.0


def faults(numbers: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with a case, in words; nothing wrong, no words.

    Args:
        numbers: The part `quality` of preprocess.json.
    """
    found = []
    low, high = BRAIN_ML
    if not low <= numbers["brain_ml"] <= high:
        found.append(
            f"brain of {numbers['brain_ml']:.0f} mL; expected {low:.0f} to {high:.0f} mL: brain "
            "extraction or voxel sizes are wrong, or the brain is not whole"
        )
    if numbers["atlas_dice"] < ATLAS_DICE:
        found.append(
            f"the brain overlaps with the atlas's by a Dice of {numbers['atlas_dice']:.2f} only; "
            f"expected {ATLAS_DICE:g}: extraction or registration failed, or it is no whole brain"
        )
    if numbers["cut"] > MAX_CUT:
        found.append(
            f"{numbers['cut']:.1%} of the brain lies outside of the atlas's grid or the reference "
            f"image; expected at most {MAX_CUT:.0%}"
        )
    if numbers["rim"] > MAX_RIM:
        found.append(
            f"around the brain it is {numbers['rim']:.0%} as bright as within, in every sequence; "
            f"expected bone or air, at most {MAX_RIM:.0%}: what was found is no brain"
        )
    for name, sequence in numbers["sequences"].items():
        if sequence["clipped"] > MAX_CLIPPED:
            found.append(f"{name}: {sequence['clipped']:.1%} of the voxels were clipped")
        if "information_after" not in sequence:
            continue
        if sequence["information_after"] < MIN_INFORMATION:
            found.append(
                f"{name}: shares {sequence['information_after']:.2f} nats with the reference; "
                f"expected {MIN_INFORMATION:g}: not registered, or of another patient"
            )
        if sequence["displacement_mm"] > MAX_DISPLACEMENT_MM:
            found.append(
                f"{name}: moved by {sequence['displacement_mm']:.0f} mm; expected at most "
                f"{MAX_DISPLACEMENT_MM:.0f} mm within an exam"
            )
    return found
