"""Lesions: counted, moved, sized, left out and described, against shapes whose answers are known."""

from dataclasses import replace
from math import isnan
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from k2chi.data import Chi, Grid, as_affine
from k2chi.measure.lesions.exclude import Exclusion, depths
from k2chi.measure.lesions.layers import Layers
from k2chi.measure.lesions.native import ToNative
from k2chi.measure.lesions.parts import Components
from k2chi.measure.lesions.shape import shapes
from k2chi.measure.lesions.study import LesionList, kept, reasons
from k2chi.measure.lesions.vein import CentralVein
from k2chi.phantom.head import DigitalHead
from k2chi.phantom.tissue import LABEL_OF

SHARED = Path(__file__).parents[2] / "shared" / "data" / "ms-lesions" / "gold_standard_MNI"
SIZE = (40, 36, 32)
GRID = Grid.of(SIZE)


def where(grid):
    """Position of each voxel in the scanner [mm]."""
    a = np.asarray(grid.affine)
    return np.moveaxis(np.indices(grid.shape), 0, -1) @ a[:3, :3].T + a[:3, 3]


def ball(grid, centre=(0.0, 0.0, 0.0), radius=5.0):
    return np.linalg.norm(where(grid) - centre, axis=-1) <= radius


def labels_of(*masks):
    out = np.zeros(masks[0].shape, dtype=np.int32)
    for n, m in enumerate(masks):
        out[m] = n + 1
    return torch.from_numpy(out)


def block(size, *boxes):
    """Labels of boxes, each given by its first corner and its edges in voxels."""
    out = torch.zeros(size, dtype=torch.int32)
    for n, (start, edges) in enumerate(boxes):
        i, j, k = (slice(s, s + e) for s, e in zip(start, edges, strict=True))
        out[i, j, k] = n + 1
    return out


def chi_of(values, grid=GRID, mask=None):
    v = torch.as_tensor(values, dtype=torch.float32)
    return Chi(v, torch.ones(grid.shape, dtype=torch.bool) if mask is None else mask, grid)


def turned(shape, voxel_mm, angles_deg):
    """A grid around the origin, turned about x, then about z."""
    a, c = np.deg2rad(angles_deg)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    m = np.eye(4)
    m[:3, :3] = z @ x @ np.diag(voxel_mm)
    m[:3, 3] = -m[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, as_affine(m))


# parts


@pytest.mark.parametrize(
    ("step", "counts"), [((0, 0, 1), (1, 1, 1)), ((0, 1, 1), (2, 1, 1)), ((1, 1, 1), (2, 2, 1))]
)
def test_neighbours_by_face_edge_and_corner(step, counts):
    """Two voxels that share a face, an edge or a corner are one lesion for 6, 18 or 26 neighbours."""
    mask = torch.zeros(5, 5, 5, dtype=torch.bool)
    mask[2, 2, 2] = True
    mask[2 + step[0], 2 + step[1], 2 + step[2]] = True
    assert tuple(int(Components(c)(mask, Grid.of((5, 5, 5))).max()) for c in (6, 18, 26)) == counts


def test_numbers_do_not_depend_on_storage():
    """Largest first, then by place in the scanner: an array stored flipped and permuted numbers alike."""
    rng = np.random.default_rng(0)
    mask = torch.from_numpy(rng.random((14, 15, 16)) > 0.93)
    grid = Grid.of((14, 15, 16), (1.0, 1.2, 0.8))
    found = Components(6)(mask, grid)
    sizes = torch.bincount(found.flatten())[1:]
    assert (sizes.diff() <= 0).all()
    assert len(sizes) > 50
    turn = np.eye(4)[[2, 1, 0, 3]].astype(float)
    turn[2, 0], turn[2, 3] = -1.0, 13.0  # new index k' runs down the old first axis
    turn = np.zeros((4, 4))
    turn[2, 0], turn[1, 1], turn[0, 2], turn[3, 3], turn[0, 3] = 1, 1, -1, 1, 13
    other = Grid((16, 15, 14), as_affine(np.asarray(grid.affine) @ turn))
    stored = mask.flip(0).permute(2, 1, 0)
    again = Components(6)(stored, other)
    assert torch.equal(again.permute(2, 1, 0).flip(0), found)


@pytest.mark.shared
def test_connectivity_changes_counts_of_real_lesions_by_half():
    """Expert masks: counts by scikit-image; 26 neighbours give fewer than 6, by about a half."""
    if not SHARED.exists():
        pytest.skip("needs ../shared/data/ms-lesions")
    measure = pytest.importorskip("skimage.measure")
    total, small, all_of = {6: 0, 26: 0}, 0, 0
    for name in ("patient01", "patient07", "patient26"):
        image = nib.load(SHARED / f"{name}.nii.gz")
        data = np.asarray(image.dataobj) > 0.5
        box = ndimage.find_objects(data.astype(int))[0]
        mask, grid = torch.from_numpy(data[box].copy()), Grid.of(data[box].shape)
        for neighbours, order in ((6, 1), (26, 3)):
            found = int(Components(neighbours)(mask, grid).max())
            assert found == measure.label(data[box], connectivity=order).max()
            total[neighbours] += found
        for props in measure.regionprops(measure.label(data[box], connectivity=3)):
            low, high = props.bbox[:3], props.bbox[3:]
            small += min(b - a for a, b in zip(low, high, strict=True)) < 3
        out = Exclusion()(Components()(mask, grid), grid)
        all_of += sum(any(w.startswith("small") for w in why) for why in out.values())
    assert 1.2 < total[6] / total[26] < 1.9
    assert all_of == small > 0


def test_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty"):
        Components()(torch.zeros(SIZE, dtype=torch.bool), GRID)


# to χ's grid


def test_identity_keeps_every_voxel():
    """On the same grid nothing changes, single voxels included; nor on the same voxels stored otherwise."""
    mask = torch.from_numpy(np.random.default_rng(1).random((14, 15, 16)) > 0.9)
    grid = turned((14, 15, 16), (0.9, 1.1, 2.0), (20, 35))
    labels = Components()(mask, grid)
    moved = ToNative()(labels, grid, grid)
    assert torch.equal(moved.labels, labels)
    assert all(f.native_mm3 == pytest.approx(f.drawn_mm3) and not f.lost for f in moved.fates)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 13
    stored = Grid(grid.shape, as_affine(np.asarray(grid.affine) @ flip))
    assert torch.equal(ToNative()(labels, grid, stored).labels.flip(0), labels)


@pytest.mark.parametrize(
    ("shape", "voxel", "angles", "within"),
    [((60, 60, 60), (0.7, 0.7, 0.7), (25, 40), 0.02), ((44, 44, 16), (1.0, 1.0, 3.0), (10, 5), 0.08)],
)
@pytest.mark.parametrize("share", [None, 0.5])
def test_turned_grids_keep_number_volume_and_place(shape, voxel, angles, within, share):
    """Balls of radius 4 to 6 mm keep their volume within 2 % on a finer grid and 8 % on thick slices."""
    at = ((-8.0, 0, 0), (6.0, 4, 2), (2.0, -9, -3))
    labels = labels_of(*(ball(GRID, c, r) for c, r in zip(at, (6, 5, 4), strict=True)))
    native = turned(shape, voxel, angles)
    moved = ToNative(share)(labels, GRID, native)
    assert sorted(torch.unique(moved.labels).tolist()) == [0, 1, 2, 3]
    for f, c in zip(moved.fates, at, strict=True):
        assert f.native_mm3 == pytest.approx(f.drawn_mm3, rel=within)
        assert f.pieces == 1
        centre = where(native)[(moved.labels == f.label).numpy()].mean(0)
        assert np.linalg.norm(centre - c) < 0.35


def test_neighbours_stay_apart():
    """Two lesions with one voxel between them keep their numbers on a coarser grid, where they touch."""
    labels = block(SIZE, ((10, 10, 10), (6, 8, 8)), ((17, 10, 10), (6, 8, 8)))
    native = Grid.of((14, 13, 12), (2.6, 2.6, 2.6))
    moved = ToNative()(labels, GRID, native)
    assert sorted(torch.unique(moved.labels).tolist()) == [0, 1, 2]
    assert Components()(moved.labels > 0, native).max() == 1  # found anew they would have merged


def test_a_voxel_goes_to_the_lesion_that_fills_most_of_it():
    """Lesions side by side, shifted by 0.3 voxels: the plane between goes to the larger share."""
    labels = block(SIZE, ((10, 10, 10), (6, 8, 8)), ((16, 10, 10), (6, 8, 8)))
    a = np.asarray(GRID.affine).copy()
    a[0, 3] += 0.3
    moved = ToNative()(labels, GRID, Grid(SIZE, as_affine(a)))
    assert torch.equal(moved.labels, labels)
    both = ToNative(0.3)(labels, GRID, Grid(SIZE, as_affine(a)))  # both lesions reach a share of 0.3 there
    assert torch.equal(both.labels[10:22], labels[10:22])
    a[0, 3] += 0.4
    moved = ToNative()(labels, GRID, Grid(SIZE, as_affine(a)))
    assert torch.equal(moved.labels[:-1], labels[1:])


def test_the_share_is_that_of_the_whole_voxel():
    """A plane 1 mm thick in the middle of slices of 3 mm fills a third of them, though the centre is full."""
    labels = block(SIZE, ((10, 10, 10), (6, 6, 1)))
    native = Grid((40, 36, 10), as_affine(np.asarray(GRID.affine) @ np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 3, 1], [0, 0, 0, 1.0]]
    )))  # fmt: skip
    (fate,) = ToNative(0.5)(labels, GRID, native).fates
    assert fate.largest_share == pytest.approx(1 / 3)
    assert "0.33" in fate.lost


def test_equal_shares_do_not_swell_a_lesion():
    """One voxel half way between eight stays one voxel."""
    a = np.asarray(GRID.affine).copy()
    a[:3, 3] += 0.5
    (fate,) = ToNative()(block(SIZE, ((10, 10, 10), (1, 1, 1))), GRID, Grid(SIZE, as_affine(a))).fates
    assert (fate.native_mm3, fate.largest_share) == (1.0, pytest.approx(1 / 8))


def test_a_lesion_cut_by_the_array_keeps_what_lies_on_it():
    """Six planes of a lesion, two of them beyond χ's grid, turned by nothing but half a voxel sideways."""
    labels = block(SIZE, ((10, 10, 10), (6, 6, 6)))
    a = np.asarray(GRID.affine).copy()
    a[1, 3] += 0.5
    (fate,) = ToNative()(labels, GRID, Grid((14, 36, 32), as_affine(a))).fates
    assert fate.off_grid == pytest.approx(1 / 3)
    assert fate.native_mm3 == pytest.approx(4 * 36)


def test_small_lesions_keep_their_volume():
    """Plates and rods of a voxel, on turned voxels of 0.8×0.8×1.2 mm, keep it to half a voxel."""
    boxes = [((4 + 8 * i, 4 + 9 * j, 8 + 8 * k), e) for i in range(4) for j in range(3) for k, e in enumerate(
        ((4, 4, 1), (1, 2, 6))
    )]  # fmt: skip
    labels = block(SIZE, *boxes)
    native = turned((60, 60, 40), (0.8, 0.8, 1.2), (15, 30))
    kept_volume, half = (ToNative(s)(labels, GRID, native).fates for s in (None, 0.5))
    for f in kept_volume:
        assert f.native_mm3 == pytest.approx(f.drawn_mm3, abs=native.voxel_volume_mm3 / 2 + 1e-6)
    assert sum(f.native_mm3 for f in half) < 0.8 * sum(f.drawn_mm3 for f in half)
    tiny = block(SIZE, ((4, 4, 4), (1, 1, 1)), ((20, 20, 20), (5, 5, 5)))
    lost = ToNative()(tiny, GRID, Grid.of((14, 13, 12), (2.6, 2.6, 2.6))).fates[0]
    assert "half a voxel" in lost.lost


def test_transform_moves_lesions():
    """A lesion drawn 3 mm off is brought back by a shift of 3 mm; on whole voxels exactly."""
    labels = labels_of(ball(GRID, (2, 0, 0), 4))
    shift = np.eye(4)
    shift[0, 3] = 3.0
    moved = ToNative(transform=as_affine(shift))(labels, GRID, GRID)
    assert torch.equal(moved.labels, labels_of(ball(GRID, (5, 0, 0), 4)))


def test_lost_lesions_are_listed():
    """A voxel that falls between voxels, and one off χ's grid, vanish with the reason; shares are right."""
    labels = block(SIZE, ((10, 10, 10), (6, 6, 6)), ((30, 20, 20), (1, 1, 1)), ((39, 35, 31), (1, 1, 1)))
    native = GRID.window((0, 0, 0), (36, 34, 30))
    a = np.asarray(native.affine).copy()
    a[:3, 3] += 0.5
    moved = ToNative(0.5)(labels, GRID, Grid(native.shape, as_affine(a)))
    big, between, off = moved.fates
    assert not big.lost
    assert between.largest_share == pytest.approx(1 / 8)
    assert "0.12" in between.lost
    assert "off" in off.lost
    assert off.off_grid == 1


def test_motions_that_are_not_rigid_and_grids_that_do_not_overlap_are_refused():
    with pytest.raises(ValueError, match="rigid"):
        ToNative(transform=as_affine(np.diag([1.1, 1, 1, 1])))
    with pytest.raises(ValueError, match="rigid"):
        ToNative(transform=as_affine(np.diag([-1.0, 1, 1, 1])))
    far = np.asarray(GRID.affine).copy()
    far[:3, 3] += 500
    with pytest.raises(ValueError, match="overlap"):
        ToNative()(labels_of(ball(GRID)), GRID, Grid(SIZE, as_affine(far)))


# shape and exclusion


def test_sizes_of_a_box():
    """Extents, diameters and place of a box of 3×4×5 voxels of 1.0×1.5×2.0 mm, worked by hand."""
    grid = Grid.of((20, 20, 20), (1.0, 1.5, 2.0))
    (s,) = shapes(block((20, 20, 20), ((4, 5, 6), (3, 4, 5))), grid)
    assert (s.voxels, s.volume_mm3) == (60, pytest.approx(180))
    assert s.extent_mm == pytest.approx((3, 6, 10))
    assert (s.first_slice, s.last_slice) == ((4, 5, 6), (6, 8, 10))
    assert s.centre_voxel == pytest.approx((5, 6.5, 8))
    assert s.centre_mm == pytest.approx((5 - 10, 1.5 * (6.5 - 10), 2 * (8 - 10)))
    assert s.longest_mm == pytest.approx(np.linalg.norm((3, 6, 10)), rel=0.01)
    assert s.narrowest_mm == pytest.approx(3, rel=0.01)
    assert s.long_mm == pytest.approx([np.hypot(6, 10), np.hypot(3, 10), np.hypot(3, 6)], rel=0.01)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("edge", "small"), [(1.45, True), (1.5, False), (1.55, False)])
def test_three_mm_along_every_axis(axis, edge, small):
    """Two voxels of 1.45 mm are 2.9 mm and left out; of 1.5 mm (exactly 3 mm) and 1.55 mm they stay."""
    voxel = [1.0, 1.0, 1.0]
    voxel[axis] = edge
    edges = [6, 6, 6]
    edges[axis] = 2
    grid = Grid.of((20, 20, 20), (voxel[0], voxel[1], voxel[2]))
    (why,) = Exclusion()(block((20, 20, 20), ((5, 5, 5), edges)), grid).values()
    assert bool(why) is small
    assert not why or f"{2 * edge:.3g} mm along {'xyz'[axis]}" in why[0]


@pytest.mark.parametrize(
    ("gap", "voxel", "near"), [(1, 1.0, True), (2, 1.0, False), (1, 1.2, False), (2, 0.5, True)]
)
def test_tissue_between_lesions(gap, voxel, near):
    """Confluent up to 1 mm of tissue, counted as voxels between the two."""
    grid = Grid.of(SIZE, (voxel, 1.0, 1.0))
    labels = block(SIZE, ((5, 10, 10), (8, 8, 8)), ((13 + gap, 10, 10), (8, 8, 8)))
    out = Exclusion()(labels, grid)
    assert [any("tissue" in w for w in why) for why in out.values()] == [near, near]
    if near:
        assert "lesion 2" in out[1][0]
        assert "lesion 1" in out[2][0]
    assert not any(Exclusion(gap_mm=-1)(labels, grid).values())


@pytest.mark.parametrize(("neck", "cores"), [(1.0, 2), (2.0, 2), (4.5, 1)])
def test_cores(neck, cores):
    """Two balls of 5 mm joined by a rod are two cores while it is thin; a ball or a long rod alone is one."""
    p = where(GRID)
    rod = (np.hypot(p[..., 1], p[..., 2]) <= neck) & (np.abs(p[..., 0]) < 9)
    lesion = ball(GRID, (-9, 0, 0), 5) | ball(GRID, (9, 0, 0), 5) | rod
    assert Exclusion().cores(lesion, GRID) == cores
    assert Exclusion().cores(ball(GRID, radius=8), GRID) == 1
    assert Exclusion().cores((np.hypot(p[..., 1], p[..., 2]) <= 3) & (np.abs(p[..., 0]) < 14), GRID) == 1
    out = Exclusion()(labels_of(lesion), GRID)[1]
    assert bool(out) is (cores > 1)


@pytest.mark.parametrize(("neck", "cores"), [(1.2, 2), (2.3, 1)])
def test_the_neck_is_held_against_the_smaller_core(neck, cores):
    """A bump of 3 mm on a ball of 8 mm is a core of its own only if its neck is thin beside its 3 mm."""
    p = where(GRID)
    rod = (np.hypot(p[..., 1], p[..., 2]) <= neck) & (np.abs(p[..., 0]) < 9)
    lesion = ball(GRID, (-7, 0, 0), 8) | ball(GRID, (8, 0, 0), 3) | rod
    assert Exclusion().cores(lesion, GRID) == cores


# layers


def test_depth_of_a_slab():
    """Half a voxel for the outer layer, then whole steps, by each axis' own voxel."""
    for axis, edge in enumerate((0.5, 1.0, 3.0)):
        grid = Grid.of((15, 15, 15), (0.5, 1.0, 3.0))
        slab = np.zeros((15, 15, 15), dtype=bool)
        slab[tuple(slice(5, 10) if a == axis else slice(None) for a in range(3))] = True
        line = depths(slab, grid)[tuple(slice(None) if a == axis else 7 for a in range(3))]
        assert line[5:10] == pytest.approx(edge * np.array([0.5, 1.5, 2.5, 1.5, 0.5]))


def shells(grid, rim=0.06, core=0.01, outside=-0.03, radius=6.0, thick=1.25):
    """A ball with a rim, by the same rule of depth that a reader of the docs would apply."""
    r = np.linalg.norm(where(grid), axis=-1)
    lesion = r <= radius
    return lesion, np.where(lesion, np.where(r > radius - thick - 0.25, rim, core), outside)


def one_window(lesion, grid, **more):
    return Layers(**more).windows(labels_of(lesion), chi_of(np.zeros(grid.shape), grid))[0]


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (0.7, 0.7, 0.7), (0.8, 0.8, 1.5)])
def test_rim_of_known_contrast(voxel):
    """A closed rim of +50 ppb over its core and +90 ppb over its surroundings is found as such."""
    grid = Grid.of((34, 34, 30), voxel)
    lesion, values = shells(grid)
    values = values + 0.01 * np.random.default_rng(0).standard_normal(values.shape)
    rim = Layers().rim(torch.as_tensor(values), one_window(lesion, grid))
    assert rim.rim_minus_core == pytest.approx(0.05, abs=0.01)
    assert rim.rim_minus_around == pytest.approx(0.09, abs=0.01)
    assert rim.bright_share > 0.95
    assert rim.bright_slices > 0.9
    assert rim.score > 0.75


def test_rim_score_tells_rim_half_rim_and_none():
    """All round 1, half of it about one half of the directions, bright throughout or like white matter 0."""
    lesion, full = shells(GRID)
    noise = 0.01 * np.random.default_rng(1).standard_normal(SIZE)
    half = np.where((where(GRID)[..., 0] > 0) | (full < 0.03), full, 0.01)
    even = np.where(lesion, 0.045, -0.03)
    flat = np.full(SIZE, -0.03)
    at = one_window(lesion, GRID)
    full, half, even, flat = (Layers().rim(torch.as_tensor(v + noise), at) for v in (full, half, even, flat))
    assert full.score > half.score > max(even.score, flat.score)
    assert 9 <= round(26 * half.bright_share) <= 18  # nine sectors lie on its side, eight half and half
    assert max(even.score, flat.score) < 0.05


def test_rim_numbers_ignore_the_reference():
    """A shift of χ changes no difference; a scale changes differences and leaves ratios alone."""
    lesion, values = shells(GRID)
    values = torch.as_tensor(values + 0.01 * np.random.default_rng(2).standard_normal(SIZE))
    at, of = one_window(lesion, GRID), Layers()
    a, b, c = (of.rim(v, at) for v in (values, values + 0.2, 3 * values))
    assert b.rim_minus_core == pytest.approx(a.rim_minus_core)
    assert c.rim_minus_core == pytest.approx(3 * a.rim_minus_core)
    assert b.score == pytest.approx(a.score)
    assert c.score == pytest.approx(a.score)
    assert of.contrast(values + 0.2, at).difference == pytest.approx(of.contrast(values, at).difference)


def test_profile_follows_the_edge():
    """Bins of 1 mm hold core, rim and surroundings where they are, whichever the voxel."""
    grid = Grid.of((40, 40, 24), (0.8, 0.8, 1.5))
    r = np.linalg.norm(where(grid), axis=-1)
    (at,) = Layers().windows(labels_of(r <= 7), chi_of(np.zeros(grid.shape), grid))
    bins = Layers().profile(torch.as_tensor(r), at)
    inner = [b for b in bins if -5 < b.distance_mm < 5]
    assert [b.distance_mm for b in inner] == [-4.5, -3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 4.5]
    for b in inner:  # the map is the distance from the centre: 7 mm at the edge
        assert b.mean == pytest.approx(7 + b.distance_mm, abs=0.45)
    inside = sum(b.voxels for b in bins if b.distance_mm < 0)
    assert inside == at.lesion.sum()


def test_contrast_by_hand_and_without_neighbours():
    """Inside 0.05, around −0.02 ± a known spread; a neighbour and what lies off the mask count nowhere."""
    first, second = ball(GRID, (-5, 0, 0), 4), ball(GRID, (4, 0, 0), 3)
    values = np.where(np.indices(SIZE).sum(0) % 2, -0.01, -0.03)  # a chessboard
    values[first], values[second] = 0.05, 9.0
    mask = torch.ones(SIZE, dtype=torch.bool)
    mask[:, :, 20:] = False
    values[:, :, 20:] = -7.0  # cuts the balls, whose layers go on around them
    windows = Layers().windows(labels_of(first, second), chi_of(values, mask=mask))
    found = Layers().contrast(torch.as_tensor(values), windows[0])
    assert (found.inside_mean, found.inside_median) == pytest.approx((0.05, 0.05))
    assert found.around_mean == pytest.approx(-0.02, abs=1e-3)
    assert found.around_sd == pytest.approx(0.01, rel=0.02)
    assert found.difference == pytest.approx(0.07, abs=1e-3)
    assert found.intensity == pytest.approx(7, rel=0.05)


@pytest.mark.parametrize("blur", [0.0, 0.8])
def test_standard_error_is_that_of_repeated_scans(blur):
    """Over 60 maps of noise the difference spreads as its standard error says, within a third."""
    rng, at = np.random.default_rng(3), one_window(ball(GRID, radius=4), GRID)
    found = [
        Layers().contrast(torch.as_tensor(ndimage.gaussian_filter(rng.standard_normal(SIZE), blur)), at)
        for _ in range(60)
    ]
    spread = np.std([f.difference for f in found])
    assert np.mean([f.difference_se for f in found]) == pytest.approx(spread, rel=0.34)


def test_small_lesions_have_no_rim():
    """Without a core there is no rim; the contrast is there all the same."""
    at = one_window(block(SIZE, ((10, 10, 10), (2, 2, 2))).numpy() > 0, GRID)
    assert isnan(Layers().rim(torch.rand(SIZE), at).score)
    assert not isnan(Layers().contrast(torch.rand(SIZE), at).difference)


# central vein


def scene(seed, radius=4.5, vein=True, off=0.0, noise=0.02, voxel=(0.8, 0.8, 0.8), bright=False):
    """A ball with a vein of 1 mm through it, voxels averaged over 27 points; and the vein's direction."""
    rng, sub, n = np.random.default_rng(seed), 3, 26
    axes = [(np.arange(n * sub) + 0.5) / sub * v - n * v / 2 for v in voxel]
    p = np.stack(np.meshgrid(*axes, indexing="ij"), -1) - rng.uniform(-0.4, 0.4, 3)
    way = rng.standard_normal(3)
    way /= np.linalg.norm(way)
    side = np.cross(way, [0, 0, 1.0])
    q = p - off * side / np.linalg.norm(side)
    across = np.linalg.norm(q - (q @ way)[..., None] * way, axis=-1)
    lesion = np.linalg.norm(p, axis=-1) < radius
    image = np.where(lesion, 1.0, 0.8)
    if vein:
        image = np.where(across < 0.5, image * (1.6 if bright else 0.4), image)
    image, share = (a.astype(float).reshape(n, sub, n, sub, n, sub).mean((1, 3, 5)) for a in (image, lesion))
    grid = Grid.of((n, n, n), voxel)
    image = image + noise * rng.standard_normal(image.shape)
    return torch.as_tensor(image), one_window(share >= 0.5, grid), way


def test_veins_through_the_middle_score_above_all_others():
    """Twelve lesions each: the lowest with a vein is above the highest without, or with one elsewhere."""
    best = [CentralVein()(*scene(s)[:2], True) for s in range(12)]
    none = [CentralVein()(*scene(s, vein=False)[:2], True) for s in range(12)]
    off = [CentralVein()(*scene(s, off=3.2)[:2], True) for s in range(12)]
    assert min(v.score for v in best) > 1.5 * max(v.score for v in (*none, *off))
    assert np.median([v.score for v in best]) > 4 * np.median([v.score for v in none])
    assert max(v.distance_mm for v in best) < 1.2
    assert all(0 <= v.score <= 1 for v in (*best, *none, *off))


@pytest.mark.parametrize("voxel", [(0.8, 0.8, 0.8), (0.7, 0.7, 1.2)])
def test_the_chord_follows_the_vein(voxel):
    """The best chord runs along the vein within 20°, over the length of the lesion."""
    for seed in range(4):
        image, at, way = scene(seed, radius=5, voxel=voxel)
        found = CentralVein()(image, at, True)
        assert abs(np.dot(found.direction, way)) > np.cos(np.deg2rad(20))
        assert found.length_mm == pytest.approx(10, abs=1.5)
        assert found.elsewhere < 0.3 * found.score


def test_dark_and_bright_veins():
    """A bright vein is one only where bright ones are looked for."""
    for seed in range(3):
        image, at, _ = scene(seed, bright=True)
        right, wrong = (CentralVein()(image, at, dark) for dark in (False, True))
        assert right.score > 3 * wrong.score
        assert CentralVein()(-image, at, True).score == pytest.approx(right.score)


def test_vesselness_of_tube_sheet_and_ball():
    """In the middle of each, on voxels that are twice as long along one axis: high, low and low."""
    voxel = (0.5, 1.0, 1.0)
    grid = Grid.of((41, 25, 25), voxel)
    p = where(grid) ** 2 / 2
    known, middle = np.ones(grid.shape, dtype=bool), (20, 12, 12)
    noise = 1e-3 * np.random.default_rng(0).standard_normal(grid.shape)
    for axis in range(3):
        one, two = (i for i in range(3) if i != axis)
        tube = np.exp(-p[..., one] - p[..., two])
        sheet, round_one = np.exp(-p[..., axis]), np.exp(-p.sum(-1))
        at = [
            CentralVein(widths_mm=(1.0,)).vesselness(v + noise, known, voxel)[middle]
            for v in (tube, sheet, round_one)
        ]
        assert at[0] > 0.9
        assert max(at[1:]) < 0.2


def test_what_lies_outside_the_lesion_is_not_looked_at():
    """Beside a ventricle or beside air, the score is the same."""
    image, at, _ = scene(5)
    other = torch.where(torch.as_tensor(at.lesion), image[at.box], 7.0)
    changed = image.clone()
    changed[at.box] = other
    assert CentralVein()(changed, at, True) == CentralVein()(image, at, True)


def test_vein_score_has_no_unit():
    image, at, _ = scene(0)
    a, b = CentralVein()(image, at, True), CentralVein()(500 * image + 40, at, True)
    assert b.score == pytest.approx(a.score, rel=1e-6)


# all together


@pytest.fixture(scope="module")
def head():
    """A digital head with 18 MS lesions at 1 mm, and its lesion mask with the veins filled in."""
    shape = (110, 120, 66)
    truth = DigitalHead(seed=1, ms_lesions=18)(Grid.of(shape).window((0, -4, 16), shape))
    own = [LABEL_OF[k] for k in ("lesion hyperintense", "lesion isointense", "lesion rim", "lesion core")]
    lesion = np.isin(truth.labels.numpy(), own)
    vein = truth.labels.numpy() == LABEL_OF["deep vein"]
    mask = torch.from_numpy(ndimage.binary_closing(lesion, iterations=2) & (lesion | vein))
    return truth, mask


def kind_of(lesion, truth):
    apart = [np.linalg.norm(np.subtract(x.centre_mm, lesion.shape.centre_mm)) for x in truth.lesions]
    return truth.lesions[int(np.argmin(apart))].kind


@pytest.mark.parametrize(("blur_mm", "noise_ppm"), [(0.0, 0.0), (0.5, 0.010), (0.5, 0.015)])
def test_lesions_of_the_digital_head(head, blur_mm, noise_ppm):
    """Lesions with a rim score above all others; hyper- and isointense ones are told apart."""
    truth, mask = head
    g = torch.Generator().manual_seed(0)
    chi = torch.from_numpy(ndimage.gaussian_filter(truth.chi_ppm.numpy(), blur_mm))
    chi = chi + noise_ppm * torch.randn(chi.shape, generator=g)
    found = LesionList()(
        Components()(mask, truth.grid), truth.grid, Chi(chi * truth.brain, truth.brain, truth.grid)
    )
    deep = [x for x in found.lesions if x.rim.core_voxels >= 30 and x.shape.voxels >= 150]
    rims = [x.rim.score for x in deep if kind_of(x, truth) == "lesion rim"]
    others = [x.rim.score for x in deep if kind_of(x, truth) != "lesion rim"]
    assert min(len(rims), len(others)) >= 3
    assert min(rims) > max(others) + 0.05
    inside = {
        k: [x.chi.inside_mean for x in deep if kind_of(x, truth) == k]
        for k in {kind_of(x, truth) for x in deep}
    }
    assert np.mean(inside["lesion hyperintense"]) == pytest.approx(0.045, abs=0.012)  # the tissue's own χ
    assert np.mean(inside["lesion isointense"]) == pytest.approx(-0.024, abs=0.012)


def test_every_lesion_is_kept_with_its_reason():
    """Small, near, outside the mask, cut by it, vanished: each is listed, the same every time."""
    labels = block(
        SIZE,
        ((4, 4, 4), (7, 7, 7)),
        ((20, 4, 4), (2, 6, 6)),
        ((4, 20, 20), (6, 6, 6)),
        ((20, 20, 20), (6, 6, 6)),
        ((30, 30, 5), (1, 1, 1)),
    )
    mask = torch.ones(SIZE, dtype=torch.bool)
    mask[:14, 18:, 18:] = False
    mask[20:22, 18:28, 18:28] = False
    chi = chi_of(torch.rand(SIZE, generator=torch.Generator().manual_seed(0)) * 0.1, mask=mask)
    study = replace(LesionList(), native=ToNative(share=0.9))
    a = np.asarray(GRID.affine).copy()
    a[0, 3] += 0.3
    found = study(labels, Grid(SIZE, as_affine(a)), chi)
    why = {x.shape.label: " | ".join(x.excluded) for x in found.lesions}
    assert why[1] == ""
    assert why[2].startswith("small: 2 mm along x")
    assert why[3] == "outside the mask"
    assert why[4].startswith("cut by the mask")
    assert "vanished" in why[5]
    assert kept(found) == [1]
    assert reasons(found) == {
        "cut by the mask": 1, "outside the mask": 1, "small": 2, "vanished on χ's grid": 1
    }  # fmt: skip
    again = study(labels, Grid(SIZE, as_affine(a)), chi)
    assert repr(again.lesions) == repr(found.lesions)


def test_ppb_is_refused():
    values = 50 * torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="ppb"):
        LesionList()(labels_of(ball(GRID)), GRID, chi_of(values))
