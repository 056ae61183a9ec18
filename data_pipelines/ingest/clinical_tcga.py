"""Clinical tables of TCGA, as cBioPortal and TCGAbiolinks give them out."""

import re

from data_pipelines.ingest.clinical_cns5 import integrate
from data_pipelines.ingest.clinical_entry import Cells, Entry, make_entry
from data_pipelines.ingest.clinical_values import read_subtype
from data_pipelines.ingest.sites import tcga_site

_DAYS_A_MONTH = 365.25 / 12

TCGA_COLUMNS: dict[str, tuple[str, ...]] = {
    "id": (
        *("patientid", "patientidentifier", "bcrpatientbarcode", "patient", "submitterid"),
        *("tcgaid", "case", "caseid", "sampleid", "sampleidentifier", "barcode"),
    ),
    "idh": ("idhstatus", "paperidhstatus", "idhmutationstatus"),
    "subtype": ("idhcodelsubtype", "paperidhcodelsubtype", "idh1p19qsubtype"),
    "codel": (
        *("1p19qcodeletion", "x1p19qcodeletion", "paperx1p19qcodeletion"),
        *("paper1p19qcodeletion", "1p19qstatus", "codeletionstatus"),
    ),
    "mgmt": ("mgmtpromoterstatus", "papermgmtpromoterstatus", "mgmtstatus"),
    "diagnosis": (
        *("histology", "paperhistology", "histologicaldiagnosis", "histologicaltype"),
        *("cancertypedetailed", "oncotreecode"),
    ),
    "grade": ("grade", "papergrade", "neoplasmhistologicgrade", "histologicgrade", "tumorgrade"),
    "age": ("age", "diagnosisage", "ageyearsatdiagnosis", "paperageyearsatdiagnosis"),
    "months": ("osmonths", "overallsurvivalmonths", "survivalmonths", "papersurvivalmonths"),
    "event": (
        *("osstatus", "overallsurvivalstatus", "vitalstatus", "vitalstatus1dead"),
        *("papervitalstatus1dead",),
    ),
}
"""What the columns are called, as comparison keys; the first that is there counts."""


def read_tcga(cells: Cells) -> Entry:
    """TCGA from cBioPortal or TCGAbiolinks: a patient is the first three parts of a barcode."""
    barcode = cells.required(*TCGA_COLUMNS["id"])
    patient = re.sub(r"^(TCGA-\w+-\w+).*", r"\1", barcode, flags=re.IGNORECASE)
    idh = cells.word("idh", *TCGA_COLUMNS["idh"])
    codel = cells.word("codel_1p19q", *TCGA_COLUMNS["codel"])
    joint = cells.parsed(read_subtype, *TCGA_COLUMNS["subtype"]) or (None, None)
    for name, one, other in (("IDH", idh, joint[0]), ("1p/19q", codel, joint[1])):
        if one is not None and other is not None and one != other:
            cells.notes.of(
                patient,
                f"{name} is {one} in its own column (kept) and {other} in the joint subtype",
            )
    idh, codel = idh or joint[0], codel or joint[1]
    integrated = integrate(
        cells.diagnosis(*TCGA_COLUMNS["diagnosis"]),
        idh=idh,
        codel=codel,
        grade=cells.word("grade", *TCGA_COLUMNS["grade"]),
    )
    days = cells.number("survival_days", "osdays")
    months = cells.number("survival_days", *TCGA_COLUMNS["months"])
    if days is None and months is not None:
        days = round(months * _DAYS_A_MONTH, 1)
    values = {
        "idh": idh,
        "codel_1p19q": codel,
        **cells.told(patient, integrated),
        "mgmt": cells.word("mgmt", *TCGA_COLUMNS["mgmt"]),
        "age": cells.number("age", *TCGA_COLUMNS["age"]),
        "sex": cells.word("sex", "sex", "gender"),
        "survival_days": days,
        "survival_event": cells.event(*TCGA_COLUMNS["event"]),
        "site": tcga_site(patient),
    }
    return make_entry(cells, patient, None, values)
