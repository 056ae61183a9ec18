"""Diagnoses of any year to the histology and grade of WHO CNS5.

Adult-type diffuse gliomas are defined by IDH and 1p/19q since 2021 (Louis et al., The 2021 WHO
Classification of Tumors of the Central Nervous System, Neuro-Oncology 23:1231). So a name alone
tells the type only where it names them; older names are decided by the markers beside them.
"""

import re
from dataclasses import dataclass, replace

from data_pipelines.ingest.clinical_values import UnknownSpelling, is_missing, spelled

_FAMILIES: dict[str, tuple[str, ...]] = {
    "glioblastoma": (
        *("glioblastoma", "glioblastoma multiforme", "gbm", "gb", "gliosarcoma"),
        *("giant cell glioblastoma", "untreated primary de novo gbm"),
    ),
    "astrocytoma": ("astrocytoma", "fibrillary astrocytoma", "gemistocytic astrocytoma"),
    "oligodendroglioma": ("oligodendroglioma",),
    "oligoastrocytoma": ("oligoastrocytoma", "mixed glioma", "oligo-astrocytoma"),
    "glioma": ("glioma", "high grade glioma", "low grade glioma", "low-grade glioma"),
}
_ONCOTREE: dict[str, tuple[str, str | None]] = {
    "gbm": ("glioblastoma", None),
    "astr": ("astrocytoma", None),
    "dastr": ("astrocytoma", None),
    "aastr": ("astrocytoma", "3"),
    "odg": ("oligodendroglioma", None),
    "aodg": ("oligodendroglioma", "3"),
    "oast": ("oligoastrocytoma", None),
    "aoast": ("oligoastrocytoma", "3"),
    "difg": ("glioma", None),
    "hggnos": ("glioma", None),
    "lggnos": ("glioma", None),
}
_FAMILY_OF = {word: family for family, words in _FAMILIES.items() for word in words}
_QUALIFIERS = (
    (r"\bidh[12]?[ -]*(mutant|mutated|mut)\b", "idh", "mutant"),
    (r"\bidh[12]?[ -]*(wild[ -]?type|wt)\b", "idh", "wildtype"),
    (r"\b1p/?19q[ -]*co-?deleted\b", "codel", "codeleted"),
    (r"\b(who )?(cns )?(grade )?(iv|4)$", "grade", "4"),
    (r"\b(who )?(cns )?(grade )?(iii|3)$", "grade", "3"),
    (r"\b(who )?(cns )?(grade )?(ii|2)$", "grade", "2"),
)


@dataclass(frozen=True)
class Diagnosis:
    """What the words of a diagnosis say.

    Attributes:
        family: Glioblastoma, astrocytoma, oligodendroglioma, oligoastrocytoma or glioma.
        idh, codel: What the words say about the markers, or None.
        grade: What they say about the grade ("anaplastic" is 3), or None.
    """

    family: str
    idh: str | None = None
    codel: str | None = None
    grade: str | None = None

    @property
    def histology(self) -> str | None:
        """The type of WHO CNS5, where the words alone are one of its three names."""
        names: dict[tuple[str, str | None, str | None], str] = {
            ("glioblastoma", "wildtype", None): "glioblastoma",
            ("astrocytoma", "mutant", None): "astrocytoma",
            ("oligodendroglioma", "mutant", "codeleted"): "oligodendroglioma",
        }
        return names.get((self.family, self.idh, self.codel))


@dataclass(frozen=True)
class Integrated:
    """Histology and grade for the manifest, and what has to be told about them."""

    histology: str | None
    grade: str | None
    notes: tuple[str, ...] = ()


def read_diagnosis(text: str) -> Diagnosis | None:
    """Returns what a diagnosis says, from its words or its oncotree code.

    Raises:
        UnknownSpelling: If the words are not known.
    """
    if is_missing(text):
        return None
    words = spelled(text)
    if words in _ONCOTREE:
        of_code, grade = _ONCOTREE[words]
        return Diagnosis(of_code, grade=grade)
    diagnosis = Diagnosis("")
    rest = re.sub(r"[,;()]", " ", words)
    for pattern, field, value in _QUALIFIERS:
        rest, found = re.subn(pattern, " ", " ".join(rest.split()))
        if found:
            diagnosis = replace(diagnosis, **{field: value})
    rest, anaplastic = re.subn(r"\banaplastic\b", " ", rest)
    if anaplastic and diagnosis.grade is None:
        diagnosis = replace(diagnosis, grade="3")
    rest = re.sub(r"\b(diffuse|nos|nec|and|adult-type|brain)\b", " ", rest)
    family = _FAMILY_OF.get(" ".join(rest.split()))
    if family is None:
        raise UnknownSpelling(
            f"one of {', '.join(_FAMILY_OF)}, with or without anaplastic, diffuse, IDH-mutant, "
            f"IDH-wildtype, 1p/19q-codeleted and a grade; an oncotree code "
            f"({', '.join(_ONCOTREE).upper()}); or a spelling of missing"
        )
    return replace(diagnosis, family=family)


def integrate(
    diagnosis: Diagnosis | None, *, idh: str | None, codel: str | None, grade: str | None
) -> Integrated:
    """Returns histology and grade by WHO CNS5.

    A diagnosis in the words of WHO CNS5 stands as written. Anything older is decided by the
    markers, and stays missing where they are not known: IDH-wildtype glioma of lower grade is none
    of the three types without TERT, EGFR and chromosomes 7 and 10, which no table here has.

    Args:
        diagnosis: The words, or None where the table has none.
        idh: Value of the manifest or None.
        codel: 1p/19q, value of the manifest or None.
        grade: As written, or None.
    """
    said = diagnosis or Diagnosis("")
    notes = list(contradictions(None, idh=idh, codel=codel))
    for marker, name, column in ((said.idh, "IDH", idh), (said.codel, "1p/19q", codel)):
        if marker is not None and column is not None and marker != column:
            notes.append(f"the diagnosis says {name} {marker}, the {name} column {column}")
    idh, codel, grade = idh or said.idh, codel or said.codel, grade or said.grade
    if said.family == "glioblastoma":
        grade = grade or "4"
    if said.histology is not None:
        notes += contradictions(said.histology, idh=idh, codel=codel, markers=False)
        return Integrated(said.histology, grade, tuple(notes))
    histology = _by_markers(idh, codel, grade, said.family)
    if said.family and said.family != histology:
        notes.append(_told(said.family, histology, idh, codel))
    if histology == "oligodendroglioma" and grade == "4":
        notes.append("oligodendroglioma has no grade 4 in WHO CNS5: grade left empty")
        grade = None
    if histology is None and idh == "wildtype" and grade in ("2", "3"):
        notes.append(
            f"IDH-wildtype of grade {grade} as written: WHO CNS5 calls some of these glioblastoma, "
            "grade 4, by markers that are not here"
        )
    return Integrated(histology, grade, tuple(notes))


def contradictions(
    histology: str | None, *, idh: str | None, codel: str | None, markers: bool = True
) -> list[str]:
    """Returns what cannot be true together in WHO CNS5, one line each.

    Args:
        histology: Value of the manifest or None.
        idh: Value of the manifest or None.
        codel: 1p/19q, value of the manifest or None.
        markers: Whether to compare the two markers with each other too.
    """
    told = []
    if markers and idh == "wildtype" and codel == "codeleted":
        told.append("1p/19q codeleted and IDH wildtype contradict each other")
    if histology == "glioblastoma" and idh == "mutant":
        told.append("glioblastoma and IDH mutant contradict each other")
    if histology in ("astrocytoma", "oligodendroglioma") and idh == "wildtype":
        told.append(f"{histology} and IDH wildtype contradict each other")
    if histology == "astrocytoma" and codel == "codeleted":
        told.append("astrocytoma and 1p/19q codeleted contradict each other")
    if histology == "oligodendroglioma" and codel == "intact":
        told.append("oligodendroglioma and 1p/19q intact contradict each other")
    return told


def _by_markers(idh: str | None, codel: str | None, grade: str | None, family: str) -> str | None:
    if idh == "mutant":
        if codel == "codeleted":
            return "oligodendroglioma"
        if codel == "intact" or family == "glioblastoma":
            return "astrocytoma"
        # Without 1p/19q, only an astrocytoma's name speaks: it is what is left without it.
        return "astrocytoma" if family == "astrocytoma" else None
    if idh == "wildtype" and codel != "codeleted" and grade == "4":
        return "glioblastoma" if family != "oligodendroglioma" else None
    return None


def _told(family: str, histology: str | None, idh: str | None, codel: str | None) -> str:
    markers = f"IDH {idh or 'unknown'}, 1p/19q {codel or 'unknown'}"
    if histology is None:
        return f"{family!r} with {markers} is no type of WHO CNS5: histology left empty"
    return f"{family!r} with {markers} is {histology} in WHO CNS5"
