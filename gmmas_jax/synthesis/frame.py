"""Where an image's voxels lie in the patient: everything generated is a function of this."""

import flax.struct
import jax
import jax.numpy as jnp

BOX_MM = ((-80.0, 80.0), (-114.0, 78.0), (-74.0, 86.0))
"""What a whole head fills, with room for deformation: left, right / posterior, anterior / foot,
head."""

_AT_VERTEX = 0.7
"""How often what befalls one end of a head befalls the vertex; else the skull base."""


@flax.struct.dataclass
class Frame:
    """A grid along the patient's axes. A pytree, so that it passes through `jit`.

    A patient is continuous: a patch of a frame shows the same patient as the whole frame.

    Attributes:
        start: [3] float32, centre of the first voxel, RAS in mm.
        step: [3] float32, edges of a voxel in mm.
        shape: Voxels along each axis; static under `jit`.
    """

    start: jax.Array
    step: jax.Array
    shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)

    def along(self, axis: int) -> jax.Array:
        """Returns the coordinates [n] float32 of the voxels' centres along an axis, in mm."""
        return self.start[axis] + self.step[axis] * jnp.arange(self.shape[axis], dtype=jnp.float32)

    def points(self) -> jax.Array:
        """Returns the voxels' centres [3 d h w] float32 in mm."""
        return jnp.stack(jnp.meshgrid(*(self.along(axis) for axis in range(3)), indexing="ij"))


def whole_frame(spacing_mm: float) -> Frame:
    """Returns the frame of a whole head: 160×192×160 voxels at 1 mm."""
    shape = tuple(int((high - low) / spacing_mm) for low, high in BOX_MM)
    start = jnp.array([low + spacing_mm / 2 for low, _ in BOX_MM], jnp.float32)
    return Frame(start, jnp.full(3, spacing_mm, jnp.float32), (shape[0], shape[1], shape[2]))


def to_one_end(frame: Frame, end: jax.Array) -> jax.Array:
    """Returns how far it is, [1 1 w] float32 in mm, to the box's end at the vertex or at the base.

    Args:
        frame: Of the result.
        end: [] float32, uniform in 0..1: the vertex in 70 % of the draws, else the skull base.
    """
    low, high = BOX_MM[2]
    place = frame.along(2).reshape(1, 1, -1)
    return jnp.where(end < _AT_VERTEX, high - place, place - low)


def frame_at(point: jax.Array) -> Frame:
    """Returns the frame of the one voxel around a point [3] in mm."""
    return Frame(point, jnp.ones(3, jnp.float32), (1, 1, 1))
