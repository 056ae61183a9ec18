"""What `gmmas check` can find: the codes, how grave each is, and what to do."""

from dataclasses import dataclass
from typing import Any, NamedTuple

LEVELS = ("error", "warning", "note")


class Code(NamedTuple):
    """A kind of finding.

    Attributes:
        level: One of `LEVELS`: an error keeps the case from being used or makes results wrong; a
            warning is to be looked at; a note is to be known.
        meaning: What it says, in a few words.
        remedy: What to do, where the finding itself does not say it better.
    """

    level: str
    meaning: str
    remedy: str


_COPY = "Copy or download the file again."
_CONVERT = "Convert the exam again, from DICOM if it is there."
_LOOK = "Look at the images; correct the manifest or the file."
_ONE_SPLIT = "Put all exams of a person into one split, or remove one of the two."

CODES: dict[str, Code] = {
    "manifest.row": Code("error", "a row of the manifest cannot be used", "Correct the row."),
    "manifest.duplicate_id": Code(
        "error", "two rows have one case_id", "Rename or remove one of the rows."
    ),
    "file.missing": Code("error", "a file is not there", "Correct the path in the manifest."),
    "file.leaves_folder": Code(
        "error",
        "a path leads out of the cohort's folder by '..'",
        "Move the file into the folder, or give the absolute path.",
    ),
    "file.unreadable": Code("error", "a file cannot be opened", "Check its permissions."),
    "file.truncated": Code("error", "a file ends early, is damaged or empty", _COPY),
    "file.compressed_twice": Code("error", "gzip within gzip", "Decompress it once (gunzip)."),
    "file.not_gzip": Code(
        "error", "the name says gzip and the content does not, or the reverse", "Rename the file."
    ),
    "file.not_nifti": Code("error", "no NIfTI file", "Convert it to .nii.gz."),
    "file.pair": Code("error", "one half of a .hdr/.img pair", "Convert the pair to .nii.gz."),
    "file.not_3d": Code(
        "error", "not one 3D volume", "Split it into one file per sequence or time point."
    ),
    "file.too_large": Code("error", "the header promises an impossible size", _COPY),
    "file.voxel_type": Code(
        "error", "voxels are colours, complex or wider than 64 bits", "Convert it."
    ),
    "file.header": Code("error", "the header contradicts itself", _COPY),
    "file.trailing_bytes": Code(
        "note", "bytes after the last voxel, which are ignored", "Export it again if in doubt."
    ),
    "geometry.voxel_size": Code("error", "voxel sizes that no head MRI has", _CONVERT),
    "geometry.affine": Code("error", "the orientation is invalid", _CONVERT),
    "geometry.no_orientation": Code(
        "warning",
        "the header tells no orientation: left and right are assumed",
        "Convert the exam again with a program that keeps the orientation.",
    ),
    "geometry.qform_sform": Code(
        "warning",
        "the header tells two orientations; the sform is used",
        "Look at the image over another sequence; write one orientation into both forms.",
    ),
    "geometry.images_differ": Code(
        "error",
        "sequences of a case on different grids",
        "Run `gmmas preprocess`, which co-registers them.",
    ),
    "geometry.label_differs": Code(
        "error",
        "the mask is not on the grid of its images",
        "Resample the mask (nearest neighbour) to the images it was drawn on; never copy a header.",
    ),
    "geometry.thick_slices": Code(
        "note",
        "slices above 3 mm: small parts of a tumour may be missed",
        "Nothing needs to be done.",
    ),
    "geometry.unlike_cohort": Code(
        "note",
        "another grid than nearly all of the cohort",
        "Check that the case was preprocessed like the others; images are resampled in any case.",
    ),
    "image.constant": Code(
        "error", "every voxel has one value", "Leave the sequence out: it may be missing."
    ),
    "image.not_finite": Code(
        "error", "voxels are NaN or infinite", "Replace them by 0 outside the brain."
    ),
    "image.scaling": Code("error", "scl_slope or scl_inter is impossible", "Correct the header."),
    "image.negative": Code(
        "warning",
        "many negative voxels: already normalised, or a failed bias correction",
        "Give raw intensities with 0 outside the brain.",
    ),
    "image.same_voxels": Code(
        "error",
        "the same voxels as two sequences of one case",
        "Leave out the sequence that is missing.",
    ),
    "image.not_stripped": Code(
        "warning", "skull or background is still there", "Run `gmmas preprocess`."
    ),
    "image.cut_off": Code(
        "warning",
        "the brain reaches the edge of the field of view",
        "Look at the image; export the whole volume.",
    ),
    "image.brain_volume": Code(
        "warning",
        "a brain volume that no adult has: the brain extraction may have failed",
        "Look at the image; extract the brain again.",
    ),
    "case.no_sequence": Code("error", "no sequence at all", "Name at least one file."),
    "case.lacks_key_sequence": Code(
        "note",
        "no t1c or no t2f: the parts of a tumour are told apart less well",
        "Nothing needs to be done.",
    ),
    "case.sequences_swapped": Code("warning", "contrasts fit other sequence names better", _LOOK),
    "case.not_aligned": Code(
        "warning", "sequences do not lie on each other", "Register the case again."
    ),
    "case.lost": Code(
        "error",
        "the case could not be checked: its worker died or memory ran out",
        "Free memory, or take the case out; the other cases were checked.",
    ),
    "case.quality_fail": Code(
        "note", "quality is 'fail': training leaves the case out", "Look at its quality picture."
    ),
    "label.values": Code(
        "error",
        "mask values that are no label codes (fractions, negative, 255)",
        "Write the mask again with small integers; resample with nearest neighbour.",
    ),
    "label.unknown_code": Code(
        "error",
        "codes that the convention does not have",
        "Declare the convention that the file follows, or correct the file.",
    ),
    "label.ambiguous": Code(
        "error", "the values fit several conventions", "Declare the convention in the manifest."
    ),
    "label.inferred": Code(
        "note", "convention not declared, and inferred from the values", "Declare it."
    ),
    "label.rounded": Code("note", "values near integers were rounded", "Nothing needs to be done."),
    "label.empty": Code("warning", "no voxel is labelled", "Leave the mask out if it is unknown."),
    "label.tiny": Code("warning", "a mask of one voxel, or of one slice", _LOOK),
    "label.enhancing_alone": Code(
        "warning",
        "enhancing tumour and nothing else",
        "Check the convention: 3 or 4 may be something else in this set.",
    ),
    "label.outside_brain": Code(
        "warning",
        "labelled voxels where every sequence is 0",
        "Check that the mask belongs to these images and is not flipped.",
    ),
    "cohort.conventions_mixed": Code(
        "warning", "more than one label convention", "Check that each set's convention is its own."
    ),
    "cohort.other_convention": Code(
        "warning",
        "the codes of all files together suggest another convention",
        "Declare the convention that the files follow, brats2021 most likely.",
    ),
    "cohort.codes_swapped": Code(
        "warning",
        "core lies outside of oedema: codes 1 and 2 are probably those of another convention",
        "Compare with an image; brats2023, msd and nnunet_brats21 differ in 1 and 2.",
    ),
    "cohort.volume_outlier": Code(
        "warning", "a label's volume is far from that of the other cases", _LOOK
    ),
    "cohort.class_absent": Code(
        "warning",
        "a split lacks a class: its metrics are not defined there",
        "Split again, stratified, or leave the task out.",
    ),
    "table.impossible_types": Code(
        "warning", "molecular and histological types that exclude each other", "Ask the source."
    ),
    "table.age": Code("warning", "an age that no patient has", "Correct it; the unit is years."),
    "leakage.patient_in_splits": Code("error", "one patient_id in two splits", _ONE_SPLIT),
    "leakage.person_in_splits": Code(
        "error", "ids of two data sets that name one person, in two splits", _ONE_SPLIT
    ),
    "leakage.identical": Code("error", "the same voxels in two splits", _ONE_SPLIT),
    "leakage.near_identical": Code("error", "nearly the same image in two splits", _ONE_SPLIT),
    "duplicate.identical": Code(
        "error", "the same voxels in two cases", "Remove one; a copy counts twice."
    ),
    "duplicate.near_identical": Code(
        "warning", "nearly the same image in two cases", "Look at both; remove one if it is a copy."
    ),
    "duplicate.person": Code(
        "warning", "ids of two data sets that name one person", "Give both rows one patient_id."
    ),
    "overlap.person": Code("error", "a person is also in the other set", "Remove it from one."),
    "overlap.patient_id": Code(
        "warning", "a patient_id is also in the other set", "Remove it from one if it is the same."
    ),
    "overlap.identical": Code("error", "the same voxels in the other set", "Remove one."),
    "overlap.near_identical": Code(
        "error", "nearly the same image in the other set", "Look at both; remove one."
    ),
}
"""Code to what it means."""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        code: A key of `CODES`.
        found: What was found, in words.
        case_id: The case; None for the cohort as a whole.
        file: Path of the file, as the manifest has it.
        expected: What was expected; empty where the code says it.
        remedy: What to do; the code's where it is empty.
    """

    code: str
    found: str
    case_id: str | None = None
    file: str | None = None
    expected: str = ""
    remedy: str = ""

    @property
    def level(self) -> str:
        """One of `LEVELS`."""
        return CODES[self.code].level

    def document(self) -> dict[str, Any]:
        """Returns the entry of check.json."""
        return {
            "code": self.code,
            "level": self.level,
            "case_id": self.case_id,
            "file": self.file,
            "found": self.found,
            "expected": self.expected,
            "remedy": self.remedy or CODES[self.code].remedy,
        }


def from_message(code: str, message: str, *, case_id: str | None, source: str | None) -> Finding:
    """Takes apart a `UserError`'s "<source>: <found>; expected <expected>. <remedy>".

    Args:
        code: A key of `CODES`.
        message: The message.
        case_id: Of the finding.
        source: The file that the message begins with; the finding's file.
    """
    words = message if source is None else message.removeprefix(f"{source}: ")
    told, _, remedy = words.partition(". ")
    found, _, expected = told.partition("; expected ")
    return Finding(
        code,
        found.strip().rstrip("."),
        case_id=case_id,
        file=source,
        expected=expected.strip().rstrip("."),
        remedy=remedy.strip(),
    )
