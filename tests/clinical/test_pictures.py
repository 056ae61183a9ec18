import io

import numpy as np
import pytest
from matplotlib import image as matplotlib_image

from gmmas_jax.clinical import overlay, views
from gmmas_jax.clinical.wording import LABEL_COLOURS

SHAPE = (30, 36, 24)
SPACING = (1.0, 1.0, 2.0)


def _case():
    """A grey brain with a tumour on the patient's left, in front and high up (RAS indices)."""
    volume = np.zeros(SHAPE, np.float32)
    volume[3:27, 3:33, 3:21] = 50.0
    label = np.zeros(SHAPE, np.uint8)
    label[5:11, 24:31, 12:19] = 2
    label[6:10, 25:30, 12:17] = 3
    volume[label > 0] = 100.0
    return {"t1c": volume, "t2f": volume}, label


def _pixels(content):
    return matplotlib_image.imread(io.BytesIO(content), format="png")[..., :3]


def _coloured(pixels, colour):
    """Where a picture [rows columns 3] is near a colour."""
    target = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.abs(pixels - target).max(axis=-1) < 0.15


def test_slices_go_through_the_largest_cross_section():
    images, label = _case()
    label[5:12, 24:32, 15] = 2
    label[8, 27, 4] = 2  # a speck elsewhere does not move them
    scene = views.make_scene(images, label, spacing=SPACING)
    assert scene.slices["axial"] == 15
    assert 24 <= scene.slices["coronal"] < 31
    assert 5 <= scene.slices["sagittal"] < 11
    assert "from below" in views.describe_slice(scene, "axial", SHAPE)


def test_without_a_tumour_slices_go_through_the_middle():
    images, label = _case()
    for nothing in (None, np.zeros_like(label)):
        scene = views.make_scene(images, nothing, spacing=SPACING)
        assert scene.slices == {"axial": 12, "coronal": 18, "sagittal": 15}


def test_a_cavity_alone_is_looked_for_but_never_before_the_tumour():
    images, label = _case()
    cavity = np.zeros_like(label)
    cavity[20:26, 5:15, 4:8] = 4
    assert 4 <= views.make_scene(images, cavity, spacing=SPACING).slices["axial"] < 8
    both = np.where(cavity > 0, cavity, label)
    assert views.make_scene(images, both, spacing=SPACING).slices["axial"] >= 12


def test_radiological_convention():
    images, label = _case()
    scene = views.make_scene(images, label, spacing=SPACING)
    for plane, (row_half, column_half) in {
        "axial": ("top", "right"),  # anterior is up, the patient's left on the right
        "coronal": ("top", "right"),
        "sagittal": ("top", "left"),  # anterior on the left
    }.items():
        rows, columns = np.nonzero(views.cut(label, scene, plane))
        height, width = views.cut(label, scene, plane).shape
        assert (rows.mean() < height / 2) == (row_half == "top"), plane
        assert (columns.mean() > width / 2) == (column_half == "right"), plane
    assert views.EDGE_LETTERS["axial"] == ("R", "L")


def test_pictures_keep_the_physical_proportions():
    images, label = _case()
    scene = views.make_scene(images, label, spacing=SPACING)
    # 24 voxels of brain and a margin of 6 mm on both sides, as far as the volume reaches.
    width, height = views.size_mm(scene, "coronal")
    assert (width, height) == (30.0, 48.0)
    panel = next(
        p for p in overlay.draw_panels(images, label, spacing=SPACING, pixels=100)
        if p.plane == "coronal" and p.image
    )  # fmt: skip
    pixels = _pixels(panel.image)
    assert pixels.shape[1] == 100
    assert pixels.shape[0] == pytest.approx(100 * height / width, abs=1)


def test_outlines_are_drawn_on_the_outlined_panels_only_and_on_the_right_side():
    images, label = _case()
    panels = overlay.draw_panels(images, label, spacing=SPACING, pixels=300)
    assert [p.sequence for p in panels[:4]] == ["t1n", "t1c", "t2w", "t2f"]
    assert [p.image is None for p in panels[:4]] == [True, False, True, False]
    plain = _pixels(next(p for p in panels if not p.outlined and p.image).image)
    outlined = _pixels(next(p for p in panels if p.outlined and p.image).image)
    for name in ("ED", "ET"):
        assert not _coloured(plain, LABEL_COLOURS[name]).any()
        columns = np.nonzero(_coloured(outlined, LABEL_COLOURS[name]))[1]
        assert columns.size
        assert columns.min() > 150  # the patient's left


def test_an_outline_at_the_edge_of_the_volume_does_not_widen_the_picture():
    volume = np.full(SHAPE, 10.0, np.float32)
    label = np.full(SHAPE, 2, np.uint8)
    panel = next(
        p for p in overlay.draw_panels({"t1c": volume}, label, spacing=SPACING, pixels=100)
        if p.outlined and p.image
    )  # fmt: skip
    assert _pixels(panel.image)[0, 0].max() < 1.0  # no white frame


def test_without_outlines_no_row_is_shown_twice():
    images, _ = _case()
    panels = overlay.draw_panels(images, None, spacing=SPACING, pixels=50)
    assert [p.plane for p in panels[::4]] == ["axial", "coronal", "sagittal"]


def test_overlay_is_a_picture_and_the_same_each_time():
    images, label = _case()
    first, second = (
        overlay.overlay_png(images, label, spacing=SPACING, title="case", dpi=40) for _ in range(2)
    )
    assert first == second
    assert _pixels(first).shape[1] == 12 * 40
    assert overlay.overlay_png(images, None, spacing=SPACING, title="case", dpi=20)


def test_grey_levels_keep_the_background_black():
    volume = np.zeros((4, 4, 4), np.float32)
    assert views.grey_window(volume).high > 0
    volume[1:3] = np.linspace(100, 200, 32).reshape(2, 4, 4)
    window = views.grey_window(volume)
    assert window.low == 0.0
    assert 195 < window.high <= 200
    volume[1, 0, 0] = -300
    assert views.grey_window(volume).low < 0
