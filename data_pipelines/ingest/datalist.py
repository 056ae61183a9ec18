"""The layout `monai`: a datalist, `{"training": [{"image": …, "label": …}], …}`."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.case_files import told_by_name
from data_pipelines.case_threads import disk_refuses
from data_pipelines.ingest.found import Found
from data_pipelines.ingest.four_d import count_volumes, split_volumes
from data_pipelines.ingest.gather import Gathering, Options, stem
from data_pipelines.ingest.label_names import convention_of_labels, read_json
from data_pipelines.ingest.lists import listed_path, ordered_images
from data_pipelines.ingest.numbered import FILLED, declared_order
from gmmas_jax.cases.labels import CONVENTIONS
from gmmas_jax.cases.sequences import canonical_sequence
from gmmas_jax.errors import UserError

SECTIONS = {
    **{"training": "train", "train": "train"},
    **{"validation": "val", "val": "val"},
    **{"testing": "test", "test": "test"},
}
"""Key of the list to the split of its cases."""

_IDS = ("case_id", "subject_id", "id", "name")
_MASKS = ("label", "seg", "mask")


def monai(source: Path, *, options: Options) -> Found:
    """Reads a MONAI datalist.

    An item's `image` is a list of files in the order of the channels, one 4-D file (taken apart
    under `options.volumes`), or absent, with a key a sequence instead (`t1c`, `flair`, …). The
    order is that of `channel_names` or `modality` in the file, or declared, or told by the files'
    names; where two tell it, they have to agree.

    Args:
        source: The JSON file; its paths are relative to it, or absolute.
        options: See `Options`.

    Raises:
        UserError: If the file is no datalist, or its order of channels is not the declared one.
    """
    document = read_json(source)
    sections = [key for key in SECTIONS if isinstance(document, dict) and key in document]
    if not sections or not all(isinstance(document[key], list) for key in sections):
        raise UserError(
            f"{source}: no datalist; expected a JSON object with lists under some of "
            f"{', '.join(SECTIONS)}. Correct the file."
        )
    options = _with_order(document, source, options)
    convention = _convention(document)
    gathering = Gathering(options)
    items = [(key, n, item) for key in sections for n, item in enumerate(document[key])]
    for done, (key, number, item) in enumerate(items, 1):
        where = f"{source}, {key}[{number}]"
        try:
            case_id = _add(gathering, item, source, where, SECTIONS[key], convention)
        except UserError as error:
            if disk_refuses(error):
                raise
            gathering.refused.append(str(error))
            case_id = where
        if options.on_case is not None and options.volumes is not None:
            options.on_case(done, len(items), case_id)
    return gathering.found()


def _with_order(document: Mapping[str, Any], source: Path, options: Options) -> Options:
    names = document.get("channel_names", document.get("modality"))
    told = declared_order(names, str(source)) if isinstance(names, dict) else None
    declared = options.channel_order
    if told is not None and declared is not None and told != declared:
        raise UserError(
            f"{source}: its channels are {', '.join(told)}, declared were {', '.join(declared)}; "
            "expected the same. Leave out --channel-order, or correct the file."
        )
    return dataclasses.replace(options, channel_order=told or declared)


def _convention(document: Mapping[str, Any]) -> str | None:
    named = document.get("label_convention")
    if named in CONVENTIONS:
        return str(named)
    labels = document.get("labels")
    return convention_of_labels(labels) if isinstance(labels, dict) else None


def _add(
    gathering: Gathering, item: Any, source: Path, where: str, split: str, convention: str | None
) -> str:
    """Adds the case of an item and returns its id."""
    root, options = source.parent, gathering.options
    if isinstance(item, str):  # MONAI's form for cases without a label.
        item = {"image": item}
    if not isinstance(item, dict):
        raise UserError(f"{where}: is no object; expected {{'image': …, 'label': …}}. Correct it.")
    given = item.get("image")
    image = [given] if isinstance(given, str) else given or []
    if not isinstance(image, list) or not all(isinstance(path, str) for path in image):
        raise UserError(
            f"{where}, image: {given!r}; expected a path or a list of paths. Correct it."
        )
    listed = [listed_path(root, path, where) for path in image]
    mask = next((item[key] for key in _MASKS if isinstance(item.get(key), str)), None)
    seg = None if mask is None else listed_path(root, mask, where)
    by_key = {
        sequence: listed_path(root, path, where) for sequence, path in _named_images(item, where)
    }
    case_id = _case_id(item, [*listed, *by_key.values()], seg, where)
    images = by_key
    if len(listed) == 1 and (volumes := count_volumes(listed[0])) > 1:
        images = _taken_apart(case_id, listed[0], volumes, options, where)
    elif listed:
        images = ordered_images(listed, options, where)
    filled, fold = item.get(FILLED, []), item.get("fold")
    gathering.add(
        case_id,
        {name: path for name, path in images.items() if name not in filled},
        place=Path(where),
        seg=seg,
        convention=convention,
        split=split,
        fold=fold if isinstance(fold, int) and fold >= 0 else None,
        patient_id=str(item.get("patient_id") or case_id),
    )
    return case_id


def _named_images(item: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    seen = set()
    for key, path in item.items():
        sequence = canonical_sequence(key)
        if sequence is None or not isinstance(path, str):
            continue
        if sequence in seen:
            raise UserError(f"{where}: two files for {sequence}; expected one. Correct the item.")
        seen.add(sequence)
        yield sequence, path


def _taken_apart(
    case_id: str, path: Path, volumes: int, options: Options, where: str
) -> dict[str, Path]:
    if options.channel_order is None:
        raise UserError(
            f"{where}: {path} holds {volumes} volumes and nothing tells which sequences they are; "
            "the order must be declared, it is never guessed. Give it, for example "
            "--channel-order t2f,t1n,t1c,t2w."
        )
    if options.volumes is None:
        raise UserError(
            f"{where}: {path} is a 4-D file, which has to be taken apart; expected a folder for "
            "the volumes. Give one with --volumes DIR."
        )
    return split_volumes(path, options.channel_order, options.volumes / case_id)


def _case_id(item: Mapping[str, Any], images: list[Path], seg: Path | None, where: str) -> str:
    """Returns the id that the item gives, else what the names of its files have in common."""
    for key in _IDS:
        if isinstance(item.get(key), str | int) and (given := str(item[key]).strip()):
            if re.search(r"[/\\]|^\.+$", given):  # It becomes the name of a folder.
                raise UserError(
                    f"{where}, {key}: {given!r}; expected a name without slashes. Rename the case."
                )
            return given
    paths = [*images, *([] if seg is None else [seg])]
    if not paths:
        raise UserError(f"{where}: no file in it; expected an image. Add it, or remove the item.")
    prefixes = sorted((told_by_name(path.name)[1] for path in paths), key=len)
    if prefixes[0] and all(prefix.startswith(prefixes[0]) for prefix in prefixes):
        return prefixes[0]
    folders = {path.parent for path in images}
    return folders.pop().name if len(folders) == 1 else stem(paths[0].name)
