"""Where the results of benchmarks lie."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def save_result(name: str, result: Mapping[str, Any], page: str) -> None:
    """Writes a result as JSON and as a page to `results/`, named by benchmark and date."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{result['date']}"
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(page)
    print(path.with_suffix(".md"))
