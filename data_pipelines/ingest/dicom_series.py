"""Which of the four sequences a DICOM series is, with the reason."""

import re
from typing import NamedTuple

from data_pipelines.ingest.dicom_headers import Acquisition

_MR = {
    *("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"),
    *("1.2.840.10008.5.1.4.1.1.4.4",),
}
"""MR image, enhanced MR image, legacy converted enhanced MR image."""
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

_LEFT_OUT_TYPES = {
    "LOCALIZER": "a localiser",
    "SCREEN SAVE": "a screenshot",
    "SCREENSHOT": "a screenshot",
    "ADC": "a map (ADC)",
    "FA": "a map (FA)",
    "DIFFUSION": "diffusion",
    "TRACEW": "diffusion",
    "PERFUSION": "perfusion",
    "CBF": "a perfusion map",
    "CBV": "a perfusion map",
    "RCBV": "a perfusion map",
    "MTT": "a perfusion map",
    "TTP": "a perfusion map",
    "SUBTRACTION": "a subtraction",
    "SUB": "a subtraction",
    "MIP": "a projection",
    "MNIP": "a projection",
    "MINIP": "a projection",
    "PROJECTION IMAGE": "a projection",
    "T1 MAP": "a map (T1)",
    "T2 MAP": "a map (T2)",
    "P": "a phase image",
    "PHASE": "a phase image",
    "PHASE MAP": "a phase image",
}
"""Values of ImageType that rule a series out."""

_LEFT_OUT_WORDS = (
    (r"locali[sz]er|\bscout\b|\bsurvey\b|\b3[- ]?plane|\bloc\b|aahead|\bsmartbrain", "a localiser"),
    (r"screen ?(save|shot|cap)|key ?image|\breport\b|\bdose\b", "a screenshot"),
    (r"\badc\b|\bfa\b|\badc map|apparent diff|tensor|\bcolou?r", "a map"),
    (r"\bdwi\b|\bdti\b|diffusion|\btrace|\bep2d diff|\bdiff\b|\bb ?[=_]? ?\d{3,4}\b", "diffusion"),
    (r"perf|\bdsc\b|\bdce\b|\basl\b|\bpcasl\b|\br?cb[fv]\b|\bmtt\b|\bttp\b", "perfusion"),
    (r"\bswi\b|\bswan\b|\bvenobold|t2 ?\*|\bt2 ?star|\bhemo\b|suscept", "susceptibility (T2*)"),
    (r"subtract|\bsub\b", "a subtraction"),
    (r"\bm?in?ip\b|\bmip\b|projection", "a projection"),
    (r"\bmra\b|\bmrv\b|\btof\b|angio|veno", "angiography"),
    (r"\bspectro|\bmrs\b|\bcsi\b|\bpress\b", "spectroscopy"),
    (r"\bbold\b|fmri|field ?map|\bb0\b|\bphase\b|\bcalib|\basset\b", "no anatomical image"),
    (r"\bciss\b|fiesta|\btrufi|b[- ]?ffe|\bbssfp", "a steady-state sequence"),
    (r"\bstir\b", "STIR"),
    (r"double inv|\bdir\b", "double inversion"),
    (r"spine|cervical|lumbar|thorac|\bneck\b|\bknee\b", "another part of the body"),
)
"""Words of the descriptions that rule a series out, after `_` and `-` became blanks."""

_FLAIR = r"flair|dark ?fluid|tirm|\bfla\b"
_T1 = r"\b(s|ax|sag|cor|tra)?t1|mp2?[ -]?rage|\bbravo\b|f?spgr|\bvibe\b|\bflash|\btfl|\btfe"
_T2 = r"\b(s|ax|sag|cor|tra)?t2"
_PD = r"\bpd\b|\bpdw|proton|\bpd ?t2"
_AFTER = (
    r"\bpost\b|\bpost ?(gd|gad|c|km)\b|\bgd\b|\bgad|\bc ?\+|\+ ?(c|gd|km)\b|\bce\b"
    r"|\bt1 ?w? ?(ce|gd|c|km)\b|\bkm\b|contrast|enhanc|dotarem|\bwith c|\bw ?/? ?c\b"
)
_BEFORE = (
    r"\bpre\b|\bpre ?(gd|gad|con|c)|without|\bw ?/? ?o\b|\bnon? ?(con|gd|gad|c\b)|\bohne\b"
    r"|\bnativ|unenh"
)
_OTHER_PARTS = ("SPINE", "NECK", "CHEST", "ABDOMEN", "PELVIS", "KNEE", "SHOULDER", "HEART")


class Recognised(NamedTuple):
    """A sequence, or None, and why."""

    sequence: str | None
    reason: str


def recognise(acquisition: Acquisition) -> Recognised:
    """Returns which of the four sequences a series is, if any.

    Descriptions and times (TR, TE, TI) are judged apart. Where both speak they have to agree: a
    series named T1 whose times are those of T2 is nothing that anybody should train on.
    """
    out = _left_out(acquisition)
    if out is not None:
        return Recognised(None, out)
    words, times = _by_words(acquisition), _by_times(acquisition)
    if words == "flair" and times == "t2" and acquisition.inversion_ms is None:
        times = None  # The inversion is not written down: nothing denies it.
    if words is not None and times is not None and words != times:
        return Recognised(
            None,
            f"its description says {_NAMES[words]}, its times {_NAMES[times]} "
            f"({_times(acquisition)})",
        )
    weighting = words or times
    if weighting is None:
        return Recognised(None, f"neither description nor times tell it ({_times(acquisition)})")
    if words and times:
        why = f"description and times ({_times(acquisition)}) say {_NAMES[weighting]}"
    elif words:
        why = f"the description says {_NAMES[weighting]}, the times nothing against it"
    else:
        why = f"times ({_times(acquisition)}) of {_NAMES[weighting]}, the description says nothing"
    if weighting == "pd":
        return Recognised(None, f"proton density, which is not one of the four: {why}")
    if weighting != "t1":
        return Recognised({"t2": "t2w", "flair": "t2f"}[weighting], why)
    sequence, contrast = _contrast(acquisition)
    return Recognised(sequence, f"{why}; {contrast}")


_NAMES = {"t1": "T1", "t2": "T2", "flair": "T2-FLAIR", "pd": "proton density"}


def _left_out(acquisition: Acquisition) -> str | None:
    if acquisition.sop_class.startswith(_SECONDARY_CAPTURE):
        return "a secondary capture, no scan"
    if acquisition.modality != "MR" or acquisition.sop_class not in _MR:
        return f"no MR image ({acquisition.modality or 'no modality'})"
    for word in acquisition.image_type:
        if word in _LEFT_OUT_TYPES:
            return f"{_LEFT_OUT_TYPES[word]}, by its image type"
    if any(part in acquisition.body_part for part in _OTHER_PARTS):
        return "another part of the body, by its header"
    text = " | ".join(map(_spaced, acquisition.texts))
    for pattern, kind in _LEFT_OUT_WORDS:
        if re.search(pattern, text):
            return f"{kind}, by its description"
    if "EP" in acquisition.scanning:
        return "echo-planar (diffusion, perfusion or function)"
    return None


def _spaced(text: str) -> str:
    """Returns a description with blanks between its words; "-C" means without contrast."""
    text = re.sub(r"(^|[\s_])-\s?(c|gd|km)\b", r" without \2", text)
    return re.sub(r"[_\-.:,;()]", " ", text)


def _by_words(acquisition: Acquisition) -> str | None:
    """Returns what the first text says that says anything: the description before the protocol."""
    for text in acquisition.texts:
        text = _spaced(text)
        t1, t2 = bool(re.search(_T1, text)), bool(re.search(_T2, text))
        if re.search(_FLAIR, text):
            return "t1" if t1 and not t2 else "flair"
        if re.search(_PD, text):
            # A dual echo is named by both: its times say which of the two this is.
            return _by_times(acquisition) if t2 else "pd"
        if t1 != t2:
            return "t1" if t1 else "t2"
    return None


def _by_times(acquisition: Acquisition) -> str | None:
    """Returns what TR, TE and TI say, in ms, or None where they are missing or between all."""
    repetition, echo = acquisition.repetition_ms, acquisition.echo_ms
    inversion = acquisition.inversion_ms
    if echo is None or repetition is None:
        return None
    if inversion is not None and inversion >= 1400 and echo >= 60:
        return "flair"
    if inversion is not None and 250 <= inversion < 1400 and echo < 40:
        return "t1"
    gradient = "GR" in acquisition.scanning and "SE" not in acquisition.scanning
    if gradient:
        return "t1" if echo < 12 and repetition < 3500 else None
    if echo < 40 and repetition < 1200:
        return "t1"
    if inversion is not None or "IR" in acquisition.scanning:
        return None
    if echo >= 60 and repetition >= 1500:
        return "t2"
    return "pd" if echo < 40 and repetition >= 1800 else None


def _contrast(acquisition: Acquisition) -> tuple[str, str]:
    """Returns t1n or t1c and why: what somebody wrote for this series counts before a field."""
    agent = acquisition.agent.casefold()
    given = bool(agent) and agent not in ("no", "none", "n", "0", "without", "no contrast")
    for text in acquisition.texts:
        text = _spaced(text)
        before, after = bool(re.search(_BEFORE, text)), bool(re.search(_AFTER, text))
        if before:
            return "t1n", "the description says before contrast"
        if after:
            return "t1c", "the description says after contrast"
    if given:
        return "t1c", "a contrast agent is named"
    return "t1n", "no word of contrast"


def _times(acquisition: Acquisition) -> str:
    parts = [
        f"{name} {value:g} ms"
        for name, value in (
            ("TR", acquisition.repetition_ms),
            ("TE", acquisition.echo_ms),
            ("TI", acquisition.inversion_ms),
        )
        if value is not None
    ]
    return ", ".join(parts) or "no times"
