"""Which hospital an id names: one word for one hospital, whoever published the exam."""

import re

_TCIA_OF_BRATS = {
    **{"TCIA01": "TCGA-02", "TCIA02": "TCGA-06", "TCIA03": "TCGA-08", "TCIA04": "TCGA-12"},
    **{"TCIA05": "TCGA-14", "TCIA06": "TCGA-19", "TCIA08": "TCGA-76", "TCIA09": "TCGA-CS"},
    **{"TCIA10": "TCGA-DU", "TCIA12": "TCGA-FG", "TCIA13": "TCGA-HT"},
}
"""BraTS 2018 and 2019 number the hospitals of TCGA, one for one in 167 rows of their mapping."""


def tcga_site(name: str) -> str | None:
    """Returns the hospital, which the second part of a TCGA barcode names."""
    match = re.match(r"TCGA-\w+(?=-)", name, flags=re.IGNORECASE)
    return match.group().upper() if match else None


def brats_site(name: str) -> str | None:
    """Returns the hospital that an id of BraTS 2017 to 2020 names; that of TCGA by TCGA's code.

    2017 writes TCIA without a number: that is an archive, not a hospital.
    """
    match = re.match(r"brats\d\d_([A-Za-z0-9]+)_", name, flags=re.IGNORECASE)
    if match is None or match[1].upper() == "TCIA":
        return None
    return _TCIA_OF_BRATS.get(match[1].upper(), match[1])
