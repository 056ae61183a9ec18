"""One case in, masks and probabilities on its own grid out."""

import copy
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmmas_jax.cases.case import Case
from gmmas_jax.cases.fit import fit, unfit
from gmmas_jax.cases.labels import LABELS, UNDIVIDED, class_names, region_mask
from gmmas_jax.cases.prepare import Prepared, prepare, restore, whole_volume
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.clinical.volumes import volumes_ml
from gmmas_jax.errors import UserError
from gmmas_jax.export.weights import Weights, load_weights
from gmmas_jax.inference.postprocessing import clean
from gmmas_jax.inference.program import Program
from gmmas_jax.inference.settings import InferenceSettings, substitutes_of
from gmmas_jax.inference.sliding_window import Tiling, Windows, make_tiling, overlap_slices, slide
from gmmas_jax.inference.uncertainty import mutual_information, softmax
from gmmas_jax.models.build import make_model
from gmmas_jax.models.gmmas import GMMAS
from gmmas_jax.models.unet import UNet

_IMPORTANT = {
    "t1c": "the outlines of enhancing tumour and core are guesses",
    "t2f": "the outer edge of the oedema is uncertain",
}

_LEFT_RIGHT = 0

_NAMES = {"gmmas": "GMMAS", "concat": "U-Net", "msf": "MU-Net"}
"""What a network is called, by its fusion."""


@dataclass(frozen=True, eq=False)
class PreparedPrediction:
    """What the network says about a prepared case, at the network's spacing.

    Attributes:
        probabilities: float32 [d h w k]; outside the brain background has 1.
        label: uint8 [d h w], the most probable label.
        tasks: Task to probabilities, float32 [classes].
        uncertainty: Task to mutual information in nats; empty where it was not estimated.
        tumour_seen: Whether enough tumour was outlined for the tasks to mean something.
    """

    probabilities: np.ndarray
    label: np.ndarray
    tasks: dict[str, np.ndarray]
    uncertainty: dict[str, float]
    tumour_seen: bool


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says about a case, on the case's RAS-canonical grid.

    Attributes:
        case_id: Name of the case.
        label: uint8 [d h w], codes of `LABELS`.
        probabilities: float32 [d h w k], in the order of `labels`.
        labels: Names of the labels that the network tells apart, background first.
        tasks: Task to probabilities, float32 [classes] in the order of `TASKS`.
        uncertainty: Task to mutual information in nats; empty where it was not estimated.
        volumes_ml: As `clinical.volumes.volumes_ml` returns them.
        present: Names of the sequences that were used.
        warnings: What the reader noticed and what is missing, in words for the report.
        seconds: Time it took.
    """

    case_id: str
    label: np.ndarray
    probabilities: np.ndarray
    labels: tuple[str, ...]
    tasks: dict[str, np.ndarray]
    uncertainty: dict[str, float]
    volumes_ml: dict[str, dict[str, float]]
    present: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float


class Predictor:
    """A network with its weights, compiled once for all cases.

    Example:
        predictor = Predictor.from_weights("weights/")
        prediction = predictor.predict(read_folder("patient/"))
    """

    def __init__(self, weights: Weights, *, flips: bool | None = None, samples: int | None = None):
        """Builds the network.

        Args:
            weights: From `load_weights`, or made in memory.
            flips: Also predict the case mirrored from left to right, and average; None does as
                the weights' config says.
            samples: Passes that estimate the tasks' uncertainty, 0 for none; None does as the
                weights' config says.

        Raises:
            UserError: If the config's sections `model` or `inference` are faulty.
        """
        config = weights.config
        asked = {"flips": flips, "samples": samples}
        inference = dict(config["inference"])
        inference |= {name: value for name, value in asked.items() if value is not None}
        self.settings = InferenceSettings.from_config(inference)
        section = config["model"]
        self.labels = class_names(section["num_classes"])
        self.tasks = _task_classes(section.get("tasks", {}))
        self.spacing_mm: float = config["data"]["spacing_mm"]
        self.identity = {
            "name": f"{_NAMES[section.get('fusion', 'gmmas')]} {weights.name}".strip(),
            "config": config["name"] or "unnamed",
            "weights_sha256": weights.sha256 or "0" * 64,
            "trained_on": weights.trained_on,
        }
        self._whole = tuple(config["data"]["whole"])
        model = make_model(**section)
        # What a network of slices sees is fitted into a frame, as in training.
        self._model = model
        slices = isinstance(model, UNet)
        self._frame = tuple(config["data"]["patch"][:2]) if slices else None
        self._needed = model.sequences if isinstance(model, UNet) else ()
        self._substitutes = substitutes_of(self.settings.substitutes)
        self._codes = np.array([LABELS.index(name) for name in self.labels], np.uint8)
        if self.labels == UNDIVIDED:
            self.settings.cleaning.check_undivided()
        self._variables = jax.device_put(weights.variables)
        self._keys = jax.random.split(
            jax.random.key(self.settings.seed), max(1, self.settings.samples)
        )
        # Without dropout in the heads every pass is the same: there is nothing to estimate.
        rate = section.get("classifier", {}).get("dropout", 0.0)
        self._samples = self.settings.samples if rate > 0 and self.tasks else 0
        self._global = Program(functools.partial(model.apply, method="global_features"))
        self._window = Program(_window_function(model, sampled=self._samples > 0))

    @classmethod
    def from_weights(
        cls, folder: str | os.PathLike[str], *, flips: bool | None = None
    ) -> "Predictor":
        """Loads a folder that `save_weights` wrote; errors as `load_weights` and `__init__`."""
        return cls(load_weights(folder), flips=flips)

    def compile_ahead(self) -> None:
        """Begins to compile, so that the first case can be read meanwhile."""

        def real(*shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, jnp.float32)

        batch, channels = self.settings.batch_size, len(SEQUENCES)
        features = self._global.begin(
            self._variables, real(1, *self._whole, channels), real(1, channels)
        )
        self._window.begin(
            self._variables,
            real(batch, *self.settings.window, channels),
            real(batch, channels),
            features,
            real(batch, 2, 3),
            self._keys,
        )

    def with_variables(self, variables: Mapping[str, Any]) -> "Predictor":
        """Returns a predictor of the same network with other weights; nothing is compiled anew."""
        other = copy.copy(self)
        other._variables = jax.device_put(dict(variables))
        return other

    def predict(self, case: Case) -> Prediction:
        """Predicts one case from the sequences that it has.

        Raises:
            UserError: If the case has no brain.
        """
        start = time.perf_counter()
        prepared = prepare(case, spacing_mm=self.spacing_mm)
        return self.finish(case, prepared, self.predict_prepared(prepared), start=start)

    def predict_prepared(
        self, prepared: Prepared, present: np.ndarray | None = None
    ) -> PreparedPrediction:
        """Predicts at the network's own spacing.

        Args:
            prepared: At `spacing_mm`.
            present: float [4], 1 for the sequences to use; of those that the case has. All by
                default.

        Raises:
            UserError: If no sequence is left.
        """
        mask = prepared.present if present is None else prepared.present * np.asarray(present)
        mask = (mask > 0).astype(np.float32)
        if not mask.any():
            raise UserError(
                f"None of the sequences asked for is there; the case has {_names(prepared.present)}"
                ". Choose at least one of these."
            )
        image, mask = self._substituted(prepared.image, mask)
        probabilities, logits, samples = self._run(image, prepared.brain, mask)
        if self.settings.flips:
            mirrored = self._run(
                np.flip(image, _LEFT_RIGHT), np.flip(prepared.brain, _LEFT_RIGHT), mask
            )
            probabilities += np.flip(mirrored[0], _LEFT_RIGHT)
            probabilities /= 2
            logits, samples = jax.tree.map(
                lambda a, b: (a + b) / 2, (logits, samples), mirrored[1:]
            )
        label = _most_probable(probabilities)
        clean(probabilities, label, self.settings.cleaning, voxel_ml=self.spacing_mm**3 / 1000)
        label = self._codes[label]
        return PreparedPrediction(
            probabilities=probabilities,
            label=label,
            tasks={task: softmax(values) for task, values in logits.items()},
            uncertainty={
                task: mutual_information(softmax(values)) for task, values in samples.items()
            },
            tumour_seen=self._tumour_ml(label) >= self.settings.min_tumour_ml,
        )

    def finish(
        self,
        case: Case,
        prepared: Prepared,
        found: PreparedPrediction,
        *,
        start: float | None = None,
    ) -> Prediction:
        """Brings a prediction to the grid of its case, where volumes are measured.

        Args:
            case: The case.
            prepared: What `prepare` made of it.
            found: What `predict_prepared` made of that with all sequences.
            start: When the work began, by `time.perf_counter`; now by default.
        """
        start = time.perf_counter() if start is None else start
        probabilities = restore(found.probabilities, prepared)
        label = self._codes[_most_probable(probabilities)]
        warnings = [
            *case.warnings,
            *(f"{s} is missing: {what}" for s, what in _IMPORTANT.items() if s not in case.images),
        ]
        if self.tasks and not found.tumour_seen:
            warnings.append(
                "no part of the images that the network looked at shows enough tumour to classify"
            )
        return Prediction(
            case_id=case.case_id,
            label=label,
            probabilities=probabilities,
            labels=self.labels,
            tasks=found.tasks,
            uncertainty=found.uncertainty,
            volumes_ml=volumes_ml(label, voxel_ml=case.grid.voxel_ml, known_labels=self.labels[1:]),
            present=tuple(name for name in SEQUENCES if name in case.images),
            warnings=tuple(warnings),
            seconds=time.perf_counter() - start,
        )

    def can_use(self, present: np.ndarray) -> bool:
        """Says whether the network works with some sequences alone, [4], in `SEQUENCES`' order."""
        there = {name for name, shown in zip(SEQUENCES, present, strict=True) if shown}
        return bool(there) and not self._lacking(there)

    def fusion_weights(self, prepared: Prepared, place: int) -> list[np.ndarray]:
        """Returns where multi-scale fusion takes from the encoder, for one axial slice.

        Args:
            prepared: At `spacing_mm`.
            place: Of the slice.

        Returns:
            W of each level, finest first, averaged over channels: float32 [h' w'] in 0..1, over the
            frame that the slice is fitted into. Empty for networks without such fusion.
        """
        if self._frame is None:
            return []
        image, mask = self._substituted(prepared.image[:, :, place : place + 1], prepared.present)
        _, kept = self._model.apply(
            self._variables,
            jnp.asarray(fit(image, self._frame))[None],
            jnp.asarray(mask)[None],
            {},
            jnp.zeros((1, 2, 3)),
            method="patch",
            mutable=["intermediates"],
        )
        levels = jax.device_get(kept.get("intermediates", {})).get("unet", {})
        return [levels[name]["weight"][0][0].mean(-1) for name in sorted(levels)]

    def _lacking(self, there: Set[str]) -> list[str]:
        """Returns the sequences that are needed and neither there nor to be substituted."""
        return [
            name
            for name in self._needed
            if name not in there and self._substitutes.get(name) not in there
        ]

    def _substituted(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Puts substitutes in the place of sequences that are needed and missing.

        Raises:
            UserError: If there is none for one of them.
        """
        there = {name for name, shown in zip(SEQUENCES, mask, strict=True) if shown}
        lacking = self._lacking(there)
        if lacking:
            raise UserError(
                f"{' and '.join(lacking)} missing; expected {' and '.join(self._needed)}, which is "
                "all that this network sees. Name a sequence to show in its place, such as "
                "inference.substitutes=t2f:t2w, or take weights that do without."
            )
        missing = [name for name in self._needed if name not in there]
        if missing:
            image, mask = image.copy(), mask.copy()
        for name in missing:
            place, other = (SEQUENCES.index(which) for which in (name, self._substitutes[name]))
            image[..., place], mask[place] = image[..., other], 1.0
        return image, mask

    def _run(
        self, image: np.ndarray, brain: np.ndarray, present: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Returns probabilities [d h w k], logits {task: [k]} and samples of them {task: [s k]}."""
        shape = image.shape[:2]
        if self._frame is not None:
            image = fit(image, self._frame)
        # NumPy's: each operation of JAX here would be a program more to compile.
        mask = present[None]
        features = self._global(self._variables, whole_volume(image, self._whole)[None], mask)
        batch = np.broadcast_to(mask, (self.settings.batch_size, mask.shape[1]))

        def run(windows: Windows) -> tuple[np.ndarray, Any]:
            probabilities, logits, samples = jax.device_get(
                self._window(
                    self._variables, windows.image, batch, features, windows.box, self._keys
                )
            )
            return probabilities, (logits, samples)

        tiling = make_tiling(image.shape[:3], self.settings.window, self.settings.overlap)
        probabilities, others = slide(image, tiling, batch_size=self.settings.batch_size, run=run)
        if self._frame is not None:
            probabilities = unfit(probabilities, shape)
        probabilities *= brain[..., None]
        probabilities[..., 0] += ~brain
        if not self.tasks:
            return probabilities, {}, {}
        weights = self._window_weights(probabilities.argmax(axis=-1), tiling)
        # [calls b ...], the last call cut to the windows that there are.
        stacked = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(weights)], *others)
        logits, samples = jax.tree.map(
            lambda values: np.tensordot(weights, values, axes=1), stacked
        )
        return probabilities, logits, samples

    def _window_weights(self, label: np.ndarray, tiling: Tiling) -> np.ndarray:
        """Returns how much each window counts for the tasks: by the tumour that lies in it.

        Windows with less than `min_tumour_ml` do not count; if all have less, the one with most
        counts alone.

        Returns:
            float32 [windows], sum 1.
        """
        tumour = region_mask(label, "WT")
        counts = np.array(
            [np.count_nonzero(tumour[overlap_slices(start, tiling)[1]]) for start in tiling.starts],
            np.float64,
        )
        enough = counts * self.spacing_mm**3 / 1000 >= self.settings.min_tumour_ml
        if enough.any():
            weights = counts * enough
        else:
            weights = np.eye(len(counts))[counts.argmax()]
        return (weights / weights.sum()).astype(np.float32)

    def _tumour_ml(self, label: np.ndarray) -> float:
        return np.count_nonzero(region_mask(label, "WT")) * self.spacing_mm**3 / 1000


def _window_function(model: GMMAS | UNet, *, sampled: bool) -> Callable[..., Any]:
    """Returns the function that is compiled: a batch of windows to what is wanted of each."""

    def window(
        variables: Any,
        image: jax.Array,
        present: jax.Array,
        features: Any,
        box: jax.Array,
        keys: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns probabilities [b d h w k], logits {task: [b k]}, samples {task: [b s k]}."""
        outputs: Any = model.apply(variables, image, present, features, box, method="patch")

        def sample(pooled: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
            single = {task: values[None] for task, values in pooled.items()}
            logits: Any = model.apply(
                variables, single, train=True, method="classify", rngs={"dropout": key}
            )
            return {task: values[0] for task, values in logits.items()}

        samples: dict[str, jax.Array] = {}
        if sampled:
            # A sample is one thinned network, the same for all windows: with a mask of its own for
            # each window, the average over windows would hide what the networks disagree about.
            over_keys = jax.vmap(sample, in_axes=(None, 0))
            samples = jax.vmap(over_keys, in_axes=(0, None))(outputs["pooled"], keys)
        return jax.nn.softmax(outputs["segmentation"]), outputs["tasks"], samples

    return window


def _task_classes(tasks: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    for task, count in tasks.items():
        if task not in TASKS or len(TASKS[task]) != count:
            raise UserError(
                f"model.tasks.{task} has {count} classes; expected some of "
                f"{', '.join(f'{name} ({len(classes)})' for name, classes in TASKS.items())}."
            )
    return {task: TASKS[task] for task in TASKS if task in tasks}


def _most_probable(probabilities: np.ndarray) -> np.ndarray:
    """Returns argmax [d h w] uint8, slice by slice: NumPy's own is eight times as large."""
    label = np.empty(probabilities.shape[:3], np.uint8)
    for index, values in enumerate(probabilities):
        label[index] = values.argmax(axis=-1)
    return label


def _names(present: Sequence[float] | np.ndarray) -> str:
    return ", ".join(name for name, there in zip(SEQUENCES, present, strict=True) if there)
