"""What an ingest finds."""

from dataclasses import dataclass, field

from gmmas_jax.cases.manifest import Row


@dataclass
class Found:
    """Cases of one source.

    Attributes:
        rows: Their manifest rows; paths are absolute.
        notes: What was noticed and does no harm, one line each, naming the case or file.
        refused: What could not become a case, one line each, naming the case or file.
    """

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
