"""Draws docs/images/augmentation.png: one slice of a generated patch under each transform.

python docs/scripts/augmentation_picture.py           # of a patient that is generated for it
python docs/scripts/augmentation_picture.py FOLDER    # of a case with a mask
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from data_pipelines.case_files import find_files
from data_pipelines.readers import read_case
from data_pipelines.sampling import cut, patch_box
from gmmas_jax.augment.patch import make_augmentation
from gmmas_jax.cases.prepare import prepare, whole_label, whole_volume
from gmmas_jax.cli import main as gmmas
from gmmas_jax.config import base_config, load_config, to_dict

PICTURE = Path("docs/images/augmentation.png")
SIZE = 112
SHOWN = {1: ("T1c", 3.5), 3: ("FLAIR", 6.0), 2: ("T2", 3.5)}
"""Channel to name and the z-score that is drawn white."""

ALWAYS = {"probability": 1.0}
EVERY_SEQUENCE = {"probability": 1.0, "sequence_probability": 1.0}
CHANGES = {
    "as cut out": {},
    "flip": {"flip": (1.0, 0.0, 0.0)},
    "rotation": {"rotation": ALWAYS},
    "scaling 0.7": {"scaling": ALWAYS | {"highest": 0.701}},
    "elastic": {"elastic": ALWAYS | {"displacement": 0.4}},
    "bias": {"bias": ALWAYS | {"strength": 0.6}},
    "blur": {"blur": EVERY_SEQUENCE | {"lowest": 1.0}},
    "low resolution": {"low_resolution": EVERY_SEQUENCE | {"lowest": 2.0}},
    "thick slices": {"thick_slices": EVERY_SEQUENCE | {"lowest": 5.0}},
    "Gaussian noise": {"gaussian_noise": ALWAYS | {"highest": 0.3}},
    "Rician noise": {"rician_noise": ALWAYS | {"highest": 0.6}},
    "contrast": {"contrast": ALWAYS | {"highest": 0.751}},
    "gamma": {"natural_gamma": ALWAYS | {"lowest": 1.49}},
    "inverted gamma": {"inverted_gamma": ALWAYS | {"lowest": 1.49}},
}


def generated_case(folder: Path) -> Path:
    """Generates one patient, as `gmmas synth` does, and returns its folder."""
    gmmas(["synth", "--out", str(folder), "--patients", "1", "--seed", "3"])
    return next(path for path in folder.iterdir() if path.is_dir())


def example_batch(folder: Path) -> dict[str, np.ndarray]:
    """Returns a batch of one: a patch of a case that is centred on the tumour."""
    files = find_files(folder)
    case = prepare(read_case(files.images, case_id="case", seg=files.seg), spacing_mm=1.0)
    assert case.label is not None
    middle = np.argwhere(case.label > 0).mean(axis=0)
    start = [int(m) - SIZE // 2 for m in middle]
    shape = case.image.shape[:3]
    batch = {
        "image": cut(case.image, start, (SIZE,) * 3),
        "whole": whole_volume(case.image, (96,) * 3),
        "label": cut(case.label, start, (SIZE,) * 3).astype(np.int32),
        "whole_label": whole_label(case.label, (96,) * 3).astype(np.int32),
        "box": patch_box(start, (SIZE,) * 3, shape),
        "present": case.present,
    }
    return {name: array[None] for name, array in batch.items()}


def main() -> None:
    """Draws the picture beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        given = sys.argv[1:]
        batch = example_batch(Path(given[0]) if given else generated_case(Path(folder)))
    off = to_dict(base_config())["augment"] | {
        "flip": (0.0, 0.0, 0.0),
        "intensity_scale": 0.0,
        "intensity_shift": 0.0,
    }
    results = {}
    for name, changes in CHANGES.items():
        section = off | {k: off[k] | v if isinstance(v, dict) else v for k, v in changes.items()}
        function = make_augmentation(**section)
        results[name] = batch if function is None else jax.jit(function)(jax.random.key(4), batch)
    together = jax.jit(make_augmentation(**to_dict(load_config("configs/gmmas.py"))["augment"]))
    for draw in range(1, 5):
        results[f"gmmas.py, draw {draw}"] = together(jax.random.key(draw), batch)
    draw_picture(results).savefig(PICTURE, dpi=110)


def draw_picture(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draws one slice of each batch, three sequences below each other."""
    columns = 9
    rows = -(-len(results) // columns)
    figure = plt.figure(figsize=(1.25 * columns, 4.05 * rows))
    blocks = figure.subfigures(rows, 1)
    for row, block in enumerate(blocks):
        names = list(results)[row * columns : (row + 1) * columns]
        axes = block.subplots(len(SHOWN), columns)
        block.subplots_adjust(0.005, 0.03, 0.995, 0.92, wspace=0.04, hspace=0.04)
        for place in axes.ravel():
            place.axis("off")
        for column, name in enumerate(names):
            axes[0, column].set_title(name, fontsize=7, pad=3)
            image, label = (np.asarray(results[name][key][0]) for key in ("image", "label"))
            outline = label[:, SIZE // 2].T[::-1] > 0
            for place, (sequence, (title, brightest)) in zip(
                axes[:, column], SHOWN.items(), strict=True
            ):
                # Seen from the front: left to right, top to bottom.
                plane = image[:, SIZE // 2, :, sequence].T[::-1]
                place.imshow(plane, cmap="gray", vmin=-2.5, vmax=brightest)
                place.contour(outline, [0.5], colors="tab:orange", linewidths=0.6)
                if column == 0:
                    place.text(3, 12, title, fontsize=6, color="white")
    return figure


if __name__ == "__main__":
    main()
