"""The anatomy that every synthetic patient is deformed from: the MNI152 average brain.

nilearn carries the ICBM 2009a non-linear average (Fonov et al. 2009, NeuroImage 47:S102): T1 and
the probabilities of grey and white matter, 1 mm, skull-stripped. They are cut to the brain,
resampled and stored once as one array file; after that nilearn is not needed.
"""

import os
import zipfile
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gmmas_jax.cases.files import atomic_path
from gmmas_jax.errors import UserError

# Brain box of MNI152 with room for deformation, in mm: left, right / posterior, anterior / foot,
# head.
BOX_MM = ((-80.0, 80.0), (-114.0, 78.0), (-74.0, 86.0))
MAPS = (
    "brain",
    "grey",
    "white",
    "prior_glioblastoma",
    "prior_astrocytoma",
    "prior_oligodendroglioma",
)
FORMAT = 1


@flax.struct.dataclass
class Anatomy:
    """Tissue maps on one grid. A pytree, so that it passes through `jit` as an argument.

    Attributes:
        maps: [6 d h w] float32 in 0..1, in the order of `MAPS`.
        spacing_mm: Edge of the isotropic voxels; static under `jit`.
    """

    maps: jax.Array
    spacing_mm: float = flax.struct.field(pytree_node=False)


def load_anatomy(path: Path, *, spacing_mm: float) -> Anatomy:
    """Loads the cached maps, or makes them from nilearn's files and stores them at `path`.

    Args:
        path: The cache, a `.npz` file.
        spacing_mm: Edge of the isotropic voxels in mm.

    Returns:
        The anatomy, RAS; 80×96×80 voxels at 2 mm, 160×192×160 at 1 mm.

    Raises:
        UserError: The file holds another spacing, is not an anatomy, or cannot be made because
            nilearn is missing.
    """
    if not path.exists():
        maps = build_maps(spacing_mm)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            quantised = np.round(maps * 255).astype(np.uint8)
            np.savez_compressed(file, format=FORMAT, spacing_mm=spacing_mm, maps=quantised)
    try:
        with np.load(path, allow_pickle=False) as data:
            version, stored = int(data["format"]), float(data["spacing_mm"])
            maps = data["maps"].astype(np.float32) / 255
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not an anatomy file ({error}); delete it to make it anew"
        ) from error
    if version != FORMAT or stored != spacing_mm:
        raise UserError(
            f"{path}: holds anatomy version {version} at {stored:g} mm, expected version {FORMAT} "
            f"at {spacing_mm:g} mm; name another file or delete this one"
        )
    return Anatomy(jnp.asarray(maps), spacing_mm)


def anatomy_affine(spacing_mm: float) -> np.ndarray:
    """Returns the voxel-to-world matrix [4 4] float64 (RAS, mm) of the anatomy's grid."""
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = [low + spacing_mm / 2 for low, _ in BOX_MM]
    return affine


def build_maps(spacing_mm: float) -> np.ndarray:
    """Reads nilearn's MNI152 files and derives tissue maps and tumour location priors.

    Returns:
        [6 d h w] float32 in 0..1, in the order of `MAPS`.
    """
    from scipy.ndimage import affine_transform, gaussian_filter

    affine = anatomy_affine(spacing_mm)
    shape = tuple(int((high - low) / spacing_mm) for low, high in BOX_MM)
    volumes = {}
    for name in ("t1", "gm", "wm"):
        data, source = _read_nilearn(name)
        blurred = gaussian_filter(data, sigma=0.35 * (spacing_mm - 1.0)) if spacing_mm > 1 else data
        matrix = np.linalg.inv(source) @ affine
        volumes[name] = affine_transform(blurred, matrix[:3, :3], matrix[:3, 3], shape, order=1)
    brain = np.clip(volumes["t1"] / np.percentile(volumes["t1"][volumes["t1"] > 0], 20), 0, 1)
    tissue = np.clip(volumes["gm"], 0, 1), np.clip(volumes["wm"], 0, 1)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    world = index * spacing_mm + affine[:3, 3].reshape(3, 1, 1, 1)
    priors = location_priors(world, grey=tissue[0], white=tissue[1], spacing_mm=spacing_mm)
    return np.stack([brain, *tissue, *priors]).astype(np.float32)


def location_priors(
    world: np.ndarray, *, grey: np.ndarray, white: np.ndarray, spacing_mm: float
) -> list[np.ndarray]:
    """Says where each type of glioma starts, from 0 (never) to 1 (most often).

    Supratentorial, and by lobe: gliomas of adults are frontal in 40 %, temporal in 29 %, parietal
    in 14 % (Larjavaara et al. 2007, Neuro-Oncology 9:319). Glioblastoma starts in deep white
    matter; IDH-mutant astrocytoma is frontal, also insular and temporal (Lai et al. 2011, J Clin
    Oncol 29:4482); oligodendroglioma sits in frontal cortex and the white matter below it (Koeller
    and Rushing 2005, RadioGraphics 25:1669).

    Args:
        world: [3 d h w] float, MNI coordinates in mm.
        grey: [d h w] float, probability of grey matter.
        white: [d h w] float, probability of white matter.
        spacing_mm: Edge of a voxel.

    Returns:
        Three [d h w] float arrays: glioblastoma, astrocytoma, oligodendroglioma.
    """
    from scipy.ndimage import gaussian_filter

    x, y, z = world
    supratentorial = (z > -30 + 0.45 * np.maximum(-y - 20, 0)) & ~((np.abs(x) < 18) & (z < -8))
    frontal = (y > -8) & (z > -20)
    temporal = (np.abs(x) > 28) & (z < 4) & (y > -50) & (y < 20)
    deep = gaussian_filter(white, 6.0 / spacing_mm)
    near_cortex = gaussian_filter(grey, 4.0 / spacing_mm) * gaussian_filter(white, 4.0 / spacing_mm)
    base = supratentorial * (white > 0.3)
    lobes = 0.35 + 0.4 * frontal + 0.45 * temporal
    weights = [
        base * lobes * deep,
        base * (0.25 + 0.75 * frontal + 0.45 * temporal) * np.sqrt(near_cortex * deep),
        base * (0.12 + frontal) * near_cortex**1.5,
    ]
    return [w / w.max() for w in weights]


def _read_nilearn(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one of nilearn's MNI152 volumes scaled to 0..1, and its affine."""
    try:
        import nilearn.datasets
        import nilearn.image
    except ImportError as error:
        raise UserError(
            "the MNI152 anatomy comes from nilearn, which is not installed: `pip install nilearn`, "
            "or give an anatomy file made elsewhere"
        ) from error
    folder = Path(os.fspath(nilearn.datasets.__file__)).parent / "data"
    file = folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    if not file.exists():
        raise UserError(f"{file}: missing; this version of nilearn does not carry MNI152")
    image = nilearn.image.load_img(file)
    data = np.asarray(image.dataobj, np.float32)
    return data / data.max(), np.asarray(image.affine)
