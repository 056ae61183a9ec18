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
from gmmas_jax.synthesis.frame import BOX_MM

CHANNELS = (
    *("brain", "grey", "white", "tracts", "wetness", "veins", "ventricles", "halo", "depth"),
)
"""Tissue maps: the filled brain, smoothed so that its border is where it is 0.5 and thresholds move
it; grey and white matter; white matter and fluid smoothed, for what spreads along them; where
sinuses and large vessels run; the ventricles, and smoothed, for what is near them; the distance
from the brain's border, 1 from 15 mm on."""

PRIORS = ("glioblastoma", "astrocytoma", "oligodendroglioma")
PRIOR_MM = 4.0
FORMAT = 3

_BORDER_MM = 2.0
_FOOT_MM = -66.0
DEEP_MM = 15.0


@flax.struct.dataclass
class Anatomy:
    """Tissue maps of one head. A pytree, so that it passes through `jit` as an argument.

    Attributes:
        maps: [d h w 9] uint8, shares of 255, in the order of `CHANNELS`.
        priors: [3 d' h' w'] float32, 0 to 1, where each type of `PRIORS` starts, every 4 mm.
        spacing_mm: Edge of the maps' isotropic voxels; static under `jit`.
    """

    maps: jax.Array
    priors: jax.Array
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
        maps, priors = build_maps(spacing_mm)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file, format=FORMAT, spacing_mm=spacing_mm, maps=quantised(maps),
                priors=quantised(priors),
            )  # fmt: skip
    try:
        with np.load(path, allow_pickle=False) as data:
            version, stored = int(data["format"]), float(data["spacing_mm"])
            maps, priors = data["maps"], data.get("priors")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not an anatomy file ({error}); delete it to make it anew"
        ) from error
    if version != FORMAT or stored != spacing_mm or priors is None:
        raise UserError(
            f"{path}: holds anatomy version {version} at {stored:g} mm, expected version {FORMAT} "
            f"at {spacing_mm:g} mm; name another file or delete this one"
        )
    return Anatomy(jnp.asarray(maps), jnp.asarray(priors / np.float32(255)), spacing_mm)


def quantised(values: np.ndarray) -> np.ndarray:
    """Returns shares, 0 to 1, as uint8 shares of 255."""
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


def sample_anatomy(
    anatomy: Anatomy, points: jax.Array, channels: tuple[str, ...] = CHANNELS
) -> jax.Array:
    """Samples maps linearly; 0 outside.

    Args:
        anatomy: The maps.
        points: [3 ...] float32, places in the atlas, RAS in mm.
        channels: Which maps.

    Returns:
        [... c] float32, 0 to 1.
    """
    sizes = anatomy.maps.shape[:3]
    maps = anatomy.maps
    if channels != CHANNELS:
        # Slices, since indexing by an array asks for the map's own mesh, which `shard_map` hides.
        maps = jnp.stack([maps[..., CHANNELS.index(name)] for name in channels], axis=-1)
    flat = maps.reshape(-1, len(channels))
    lows, shares = [], []
    for axis in range(3):
        place = (points[axis] - BOX_MM[axis][0]) / anatomy.spacing_mm - 0.5
        low = jnp.floor(place)
        lows.append(low.astype(jnp.int32))
        shares.append(place - low)
    total = jnp.zeros((*points.shape[1:], flat.shape[-1]), jnp.float32)
    for corner in range(8):
        steps = [(corner >> axis) & 1 for axis in range(3)]
        index = jnp.zeros(points.shape[1:], jnp.int32)
        weight = jnp.ones(points.shape[1:], jnp.float32)
        for axis, (step, size) in enumerate(zip(steps, sizes, strict=True)):
            place = lows[axis] + step
            share = shares[axis] if step else 1.0 - shares[axis]
            weight = weight * jnp.where((place >= 0) & (place < size), share, 0.0)
            index = index * size + place.clip(0, size - 1)
        total = total + weight[..., None] * flat[index].astype(jnp.float32)
    return total / 255.0


def anatomy_affine(spacing_mm: float) -> np.ndarray:
    """Returns the voxel-to-world matrix [4 4] float64 (RAS, mm) of the anatomy's grid."""
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = [low + spacing_mm / 2 for low, _ in BOX_MM]
    return affine


def build_maps(spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Reads nilearn's MNI152 files and derives tissue maps and tumour location priors.

    Returns:
        [d h w 9] float32 in 0..1, in the order of `CHANNELS`, and [3 d' h' w'] in that of `PRIORS`.
    """
    volumes, world = _resampled(spacing_mm)
    tissue = np.clip(volumes["gm"], 0, 1), np.clip(volumes["wm"], 0, 1)
    maps = head_maps(volumes["t1"] > 0.02, *tissue, world, spacing_mm)
    coarse, places = _resampled(PRIOR_MM)
    grey, white = np.clip(coarse["gm"], 0, 1), np.clip(coarse["wm"], 0, 1)
    priors = location_priors(places, grey=grey, white=white, spacing_mm=PRIOR_MM)
    return maps, np.stack(priors).astype(np.float32)


def head_maps(
    mask: np.ndarray, grey: np.ndarray, white: np.ndarray, world: np.ndarray, spacing_mm: float
) -> np.ndarray:
    """Derives the maps of `CHANNELS` from a brain mask and the shares of its tissues.

    Args:
        mask: [d h w] bool; holes, as the ventricles of a T1-weighted atlas, are filled.
        grey: [d h w] float, 0 to 1.
        white: [d h w] float, 0 to 1.
        world: [3 d h w] float, MNI coordinates in mm.
        spacing_mm: Edge of a voxel.
    """
    from scipy import ndimage

    x, y, z = world
    # Below the foramen magnum it is spinal cord, and the box ends there.
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(mask, iterations=2)) & (z > _FOOT_MM)
    brain = ndimage.gaussian_filter(filled.astype(np.float32), _BORDER_MM / spacing_mm)
    depth = ndimage.distance_transform_edt(filled) * spacing_mm
    beyond = ndimage.distance_transform_edt(~filled) * spacing_mm
    fluid = np.clip(filled - grey - white, 0, 1)
    shell = (depth < 4) & (beyond < 4)
    sagittal = shell & (np.abs(x) < 5) & ((z > 0) | (y < -60)) & (z > -45)
    transverse = shell & (y < -45) & (z > -34) & (z < -10)
    falx = (np.abs(x) < 1.6) & (depth < 30) & (z > 0) & filled
    cistern = filled & (np.abs(x) < 32) & (y > -20) & (y < 15) & (z > -24) & (z < -2)
    sinuses = np.maximum(sagittal | transverse, 0.5 * falx)
    veins = ndimage.gaussian_filter(
        np.maximum(sinuses, 0.6 * cistern * fluid).astype(np.float32), 1.0 / spacing_mm
    )
    deep = (fluid > 0.7) & (np.abs(x) < 40) & (y > -62) & (y < 36) & (z > -18) & (z < 34)
    pieces, _ = ndimage.label(deep & (depth > 15))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    ventricles = fluid * ndimage.binary_dilation(pieces == sizes.argmax()) if sizes.any() else fluid
    parts = [
        brain,
        grey,
        white,
        ndimage.gaussian_filter(white, 3.0 / spacing_mm),
        ndimage.gaussian_filter(fluid, 4.0 / spacing_mm),
        veins,
        ndimage.gaussian_filter(ventricles, 0.7 / spacing_mm),
        ndimage.gaussian_filter(ventricles, 5.0 / spacing_mm),
        np.minimum(depth / DEEP_MM, 1.0),
    ]
    return np.stack(parts, axis=-1).astype(np.float32)


def _resampled(spacing_mm: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns MNI152's T1, grey and white matter on a grid, and the grid's coordinates."""
    from scipy.ndimage import affine_transform, gaussian_filter

    affine = anatomy_affine(spacing_mm)
    shape = tuple(int((high - low) / spacing_mm) for low, high in BOX_MM)
    volumes = {}
    for name in ("t1", "gm", "wm"):
        data, source = _read_nilearn(name)
        blurred = gaussian_filter(data, sigma=0.35 * (spacing_mm - 1.0)) if spacing_mm > 1 else data
        matrix = np.linalg.inv(source) @ affine
        volumes[name] = affine_transform(blurred, matrix[:3, :3], matrix[:3, 3], shape, order=1)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    return volumes, index * spacing_mm + affine[:3, 3].reshape(3, 1, 1, 1)


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
