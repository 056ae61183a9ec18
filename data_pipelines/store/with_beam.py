"""The cases of a store spread by Apache Beam.

Volumes never pass through Beam: an element is a case's row and paths, and its result a line of
text; the record goes from the worker's memory to its own file. So a build needs no shuffle of
terabytes, any runner resumes it, and its result is that of a build without Beam. Workers must see
the images and the store under the same paths as the machine that starts the build.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.store.one_case import Built, Item, OutputError, build_case
from data_pipelines.store.record import read_facts
from gmmas_jax.errors import UserError

_RESULTS = "beam-results"


def run_with_beam(
    items: Sequence[Item], options: Sequence[str], *, workers: int
) -> list[Built | UserError]:
    """Builds the cases in a pipeline.

    Args:
        items: The cases, of one store.
        options: Words for Beam's `PipelineOptions`; none takes its runner for one machine.
        workers: Processes of that runner.

    Returns:
        One result per item, in their order.

    Raises:
        OutputError: If the store cannot be written.
        UserError: If Beam is not installed, or refuses the options.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
    except ImportError as error:
        raise UserError(
            "--beam: apache-beam is not installed; expected it. Install it with "
            "`pip install gmmas-jax[beam]`, or build without --beam."
        ) from error
    results = items[0].work / _RESULTS
    shutil.rmtree(results, ignore_errors=True)
    pipeline_options = PipelineOptions(list(options) or _on_this_machine(workers))
    pipeline_options.view_as(SetupOptions).save_main_session = False
    pipeline = beam.Pipeline(options=pipeline_options)
    _ = (
        pipeline
        | "cases" >> beam.Create(list(items))
        # Else a runner may fuse all cases into one bundle, on one worker.
        | "spread" >> beam.Reshuffle()
        | "build" >> beam.Map(_one_line)
        | "tell" >> beam.io.WriteToText(str(results / "part"), file_name_suffix=".jsonl")
    )
    pipeline.run().wait_until_finish()
    lines = [
        json.loads(line)
        for path in sorted(results.glob("part*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    shutil.rmtree(results)
    found = {line["case_id"]: _result(line) for line in lines}
    return [found[item.row.case_id] for item in items]


def _on_this_machine(workers: int) -> list[str]:
    return [
        "--runner=DirectRunner",
        "--direct_running_mode=multi_processing",
        f"--direct_num_workers={workers}",
        "--default_sdk_harness_log_level=ERROR",
    ]


def _one_line(item: Item) -> str:
    """Builds one case on a worker; returns what became of it as JSON."""
    told: dict[str, Any] = {"case_id": item.row.case_id}
    try:
        built = build_case(item)
        told |= {"path": str(built.path), "hashes": built.hashes, "read": built.read}
    except OutputError as error:
        told["cannot_write"] = str(error)
    except UserError as error:
        told["refused"] = str(error)
    return json.dumps(told)


def _result(line: dict[str, Any]) -> Built | UserError:
    if "cannot_write" in line:
        raise OutputError(line["cannot_write"])
    if "refused" in line:
        return UserError(line["refused"])
    path = Path(line["path"])
    return Built(path=path, facts=read_facts(path), hashes=line["hashes"], read=line["read"])
