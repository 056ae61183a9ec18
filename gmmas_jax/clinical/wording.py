"""The words of the reports: names of sequences, labels, regions, tasks and classes, and cautions.

One place, so that the picture, the page and the findings never disagree about a name.
"""

SEQUENCE_TITLES = {"t1n": "T1", "t1c": "T1 + contrast", "t2w": "T2", "t2f": "T2-FLAIR"}

LABEL_TITLES = {
    "NCR": "Necrotic or non-enhancing core",
    "ED": "Oedema and infiltration",
    "ET": "Enhancing tumour",
    "RC": "Resection cavity",
    "TU": "Tumour, its parts not told apart",
}

# Okabe & Ito's colours for colour-blind readers, picked for contrast on black.
LABEL_COLOURS = {"NCR": "#56b4e9", "ED": "#f0e442", "ET": "#ff6b35", "RC": "#d68fc0"}
LABEL_COLOURS["TU"] = LABEL_COLOURS["ED"]  # They never occur together.

REGION_TITLES = {
    "WT": "Whole tumour",
    "TC": "Tumour core",
    "ET": "Enhancing tumour",
    "RC": "Resection cavity",
}

TASK_TITLES = {
    "idh": "IDH mutation",
    "codel_1p19q": "1p/19q codeletion",
    "histology": "Histology",
    "grade": "WHO grade",
    "mgmt": "MGMT promoter methylation",
    "outcome": "Change after treatment",
}

CLASS_TITLES = {
    ("idh", "wildtype"): "IDH-wildtype",
    ("idh", "mutant"): "IDH-mutant",
    ("codel_1p19q", "intact"): "1p/19q intact",
    ("codel_1p19q", "codeleted"): "1p/19q codeleted",
    ("grade", "2"): "grade 2",
    ("grade", "3"): "grade 3",
    ("grade", "4"): "grade 4",
}

TASK_CAUTIONS = {
    "codel_1p19q": "Meaningful only if the tumour is IDH-mutant.",
    "mgmt": "Contested: results from routine MRI have mostly not held up in new hospitals.",
    "outcome": "Applies only to changes seen after radiotherapy.",
}

# What the reader loses, by the sequence that is not there (BraTS missing-sequence tables: without
# T1c the enhancing tumour loses about 30 points of Dice, without FLAIR the whole tumour 2 to 3).
MISSING_CONSEQUENCES = {
    "t1n": "Without T1, blood products and enhancement are harder to tell apart.",
    "t1c": "Without T1 + contrast, enhancing tumour and core are guesses.",
    "t2w": "Without T2, the core's fluid and the T2–FLAIR mismatch cannot be judged.",
    "t2f": "Without T2-FLAIR, the outer edge of the oedema is uncertain.",
}


def percent(share: float) -> str:
    """Returns a share in [0, 1] as a percentage; rounding never makes it a certainty."""
    value = 100 * share
    if 0 < value < 1:
        return "< 1\u00a0%"
    if 99 < value < 100:
        return "> 99\u00a0%"
    return f"{value:.0f}\u00a0%"


def class_title(task: str, name: str) -> str:
    """Returns how a class is written in a report, e.g. "IDH-mutant"."""
    return CLASS_TITLES.get((task, name), name)
