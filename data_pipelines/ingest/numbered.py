"""Layouts whose files tell channel numbers: nnU-Net raw data and the Decathlon's Task01."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_pipelines.case_threads import map_cases
from data_pipelines.ingest.found import Found
from data_pipelines.ingest.four_d import count_volumes, split_volumes
from data_pipelines.ingest.gather import Gathering, Options, is_volume, single_files, stem
from data_pipelines.ingest.label_names import convention_of_labels, read_json
from data_pipelines.ingest.lists import listed_path
from gmmas_jax.cases.sequences import SEQUENCES, canonical_sequence
from gmmas_jax.errors import UserError

_SPLITS = {"Tr": "train", "Ts": "test"}
_CHANNEL = re.compile(r"(?P<id>.+)_(?P<channel>\d{4})")
_DECATHLON_ORDER = ("t2f", "t1n", "t1c", "t2w")
FILLED = "filled_with_zeros"
"""Key of our exported `dataset.json`: case to the sequences that it does not have."""


@dataclass(frozen=True)
class _Case:
    """A case of one of the two folders of images, or of the list in `dataset.json`.

    Attributes:
        case_id: Its name.
        split: By the folder; cases of the list are for training.
        files: Its images; in the order of the channels, where they are listed.
        label: Its mask.
        listed: Whether it is of the list.
    """

    case_id: str
    split: str
    files: list[Path]
    label: Path | None
    listed: bool = False


def nnunet(source: Path, *, options: Options) -> Found:
    """Finds the cases of an nnU-Net data set (`DatasetXXX_Name`).

    `channel_names` of its `dataset.json` (in version 1, `modality`) tell the order of channels, its
    `labels` the convention of the masks, and `dataset`, if there, the files of the training cases.
    Without names that tell sequences, the order has to be declared.

    Args:
        source: The folder with `imagesTr`.
        options: See `Options`.

    Raises:
        UserError: If there are no images, or the order of channels is neither told nor declared,
            or told and declared differently.
    """
    described = _description(source)
    order = _channel_order(source, described, options, fixed=None)
    convention = convention_of_labels(_labels(described), prefer="nnunet_brats21")
    return _ingest(source, options, order, convention, described)


def msd(source: Path, *, options: Options) -> Found:
    """Finds the cases of the Decathlon's Task01_BrainTumour.

    A 4-D file is taken apart into one file a sequence under `options.volumes`; files with channel
    numbers are taken as they are. The order is FLAIR, T1, T1 + contrast, T2 and codes are those of
    the convention `msd`, unless `dataset.json` says otherwise.

    Args:
        source: The folder with `imagesTr`.
        options: See `Options`.

    Raises:
        UserError: If there are no images, or no folder for the volumes was given.
    """
    described = _description(source)
    order = _channel_order(source, described, options, fixed=_DECATHLON_ORDER)
    labels = _labels(described)
    convention = convention_of_labels(labels, prefer="msd") if labels else "msd"
    return _ingest(source, options, order, convention, described)


def declared_order(names: Mapping[str, Any], source: str) -> tuple[str, ...] | None:
    """Returns the sequences that a map of channel number to name tells, or None.

    Args:
        names: As in `dataset.json`: {"0": "T1", …}.
        source: What messages name.

    Raises:
        UserError: If two channels are the same sequence.
    """
    if not all(number.isdigit() for number in names):
        return None
    ordered = [str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    order = [canonical_sequence(name) for name in ordered]
    if None in order or sorted(map(int, names)) != list(range(len(names))):
        return None
    if len(set(order)) < len(order):
        raise UserError(
            f"{source}: channel names {', '.join(ordered)} tell one sequence twice; expected each "
            f"of {', '.join(SEQUENCES)} at most once. Correct the names."
        )
    return tuple(str(name) for name in order)


def _ingest(
    source: Path,
    options: Options,
    order: tuple[str, ...],
    convention: str | None,
    described: Mapping[str, Any],
) -> Found:
    gathering = Gathering(options)
    cases = _cases(source, described, gathering)
    if options.volumes is None and not any(case.listed or _is_numbered(case) for case in cases):
        raise UserError(
            f"{source}: its images are 4-D files, which have to be taken apart; expected a folder "
            "for the volumes. Give one with --volumes DIR."
        )
    absent = described.get("gmmas", {}).get(FILLED, {})
    find = partial(_images, order=order, options=options)
    with closing(map_cases(find, cases, workers=options.workers)) as results:
        for done, (case, images) in enumerate(zip(cases, results, strict=True), 1):
            if options.on_case is not None and options.volumes is not None:
                options.on_case(done, len(cases), case.case_id)
            if isinstance(images, UserError):
                gathering.refused.append(f"{case.case_id}: {images}")
                continue
            left = {
                name: p for name, p in images.items() if name not in absent.get(case.case_id, ())
            }
            gathering.add(
                case.case_id,
                left,
                place=case.files[0].parent if case.files else source,
                seg=case.label,
                convention=convention,
                split=case.split,
            )
    gathering.notes.append(f"channels {', '.join(order)} (0000, 0001, …)")
    return gathering.found()


def _images(case: _Case, *, order: tuple[str, ...], options: Options) -> dict[str, Path]:
    if case.listed:
        if len(case.files) > len(order):
            raise UserError(
                f"{len(case.files)} images are listed; expected {len(order)}: {', '.join(order)}. "
                "Correct dataset.json."
            )
        return dict(zip(order, case.files, strict=False))
    if not _is_numbered(case):
        return _taken_apart(case, order, options)
    files: dict[str, list[Path]] = {}
    for path in case.files:
        match = _CHANNEL.fullmatch(stem(path.name))
        number = int(match["channel"]) if match is not None else len(order)
        if number >= len(order):
            raise UserError(
                f"{path}: no such channel in the order {', '.join(order)}; expected 0000 to "
                f"{len(order) - 1:04d}. Correct channel_names or --channel-order."
            )
        files.setdefault(order[number], []).append(path)
    return single_files(case.case_id, files)


def _taken_apart(case: _Case, order: tuple[str, ...], options: Options) -> dict[str, Path]:
    path = single_files(case.case_id, {"4-D image": case.files})["4-D image"]
    if count_volumes(path) == 1:
        raise UserError(
            f"{path}: one volume, and no channel number in the name; expected a 4-D file of "
            f"{', '.join(order)}, or names that end in _0000 and so on. Rename it."
        )
    if options.volumes is None:
        raise UserError(
            f"{path}: a 4-D file among files with channel numbers, which has to be taken apart; "
            "expected a folder for the volumes. Give one with --volumes DIR."
        )
    return split_volumes(path, order, options.volumes / case.case_id)


def _is_numbered(case: _Case) -> bool:
    return all(_CHANNEL.fullmatch(stem(path.name)) for path in case.files)


def _cases(source: Path, described: Mapping[str, Any], gathering: Gathering) -> list[_Case]:
    cases = []
    listed = described.get("dataset")
    if isinstance(listed, dict):
        cases = list(_listed_cases(source, listed, gathering))
    for ending, split in _SPLITS.items():
        if ending == "Tr" and isinstance(listed, dict):
            continue  # As nnU-Net does: the list counts, not the folder.
        images = _volumes(source / f"images{ending}")
        labels = {stem(path.name): path for path in _volumes(source / f"labels{ending}")}
        grouped: dict[str, list[Path]] = {}
        for path in images:
            match = _CHANNEL.fullmatch(stem(path.name))
            grouped.setdefault(match["id"] if match else stem(path.name), []).append(path)
        for case_id, files in sorted(grouped.items()):
            cases.append(_Case(case_id, split, files, labels.pop(case_id, None)))
        if labels:
            gathering.notes.append(
                f"labels{ending}: {len(labels)} masks without images were left alone "
                f"({', '.join(sorted(labels)[:3])})"
            )
    if not cases and not gathering.refused:
        raise UserError(
            f"{source}: no NIfTI file in imagesTr or imagesTs; expected the folder of one data "
            "set, which holds imagesTr and dataset.json. Name that folder."
        )
    return cases


def _listed_cases(source: Path, listed: Mapping[str, Any], gathering: Gathering) -> Iterator[_Case]:
    for case_id, item in listed.items():
        where = f"{source / 'dataset.json'}, dataset, {case_id}"
        try:
            images, label = item["images"], item.get("label")
            if not isinstance(images, list):
                raise TypeError
            files = [listed_path(source, os.path.expandvars(path), where) for path in images]
            mask = None
            if label is not None:
                mask = listed_path(source, os.path.expandvars(label), where)
        except (AttributeError, KeyError, TypeError):
            gathering.refused.append(
                f"{where}: {item!r}; expected {{'images': [paths], 'label': path}}. Correct it."
            )
        except UserError as error:
            gathering.refused.append(str(error))
        else:
            yield _Case(case_id, "train", files, mask, listed=True)


def _volumes(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if is_volume(path.name))


def _description(source: Path) -> Mapping[str, Any]:
    path = source / "dataset.json"
    if not path.is_file():
        return {}
    described = read_json(path)
    if not isinstance(described, dict):
        raise UserError(f"{path}: holds no JSON object; expected the one of nnU-Net. Correct it.")
    return described


def _labels(described: Mapping[str, Any]) -> Mapping[str, Any]:
    labels = described.get("labels")
    return labels if isinstance(labels, dict) else {}


def _channel_order(
    source: Path,
    described: Mapping[str, Any],
    options: Options,
    *,
    fixed: tuple[str, ...] | None,
) -> tuple[str, ...]:
    path = source / "dataset.json"
    names = described.get("channel_names") or described.get("modality")
    told = declared_order(names, str(path)) if isinstance(names, dict) else None
    declared = options.channel_order
    if told is not None and declared is not None and told != declared:
        raise UserError(
            f"{path}: its channels are {', '.join(told)}, declared were {', '.join(declared)}; "
            "expected the same. Leave out --channel-order, or correct the file."
        )
    order = told or declared or fixed
    if order is None:
        found = f"names the channels {names}" if described else "is missing"
        raise UserError(
            f"{path}: {found}; expected channel_names that tell the sequences. The order is never "
            "guessed: declare it, for example --channel-order t1n,t1c,t2w,t2f."
        )
    return order
