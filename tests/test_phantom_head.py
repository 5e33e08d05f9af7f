"""The digital head: geometry, symmetry, seeds, tissue and lesions."""

from dataclasses import replace
from math import exp

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion, label

from k2chi.data import Grid, as_affine
from k2chi.phantom.head import DigitalHead, Head
from k2chi.phantom.lesions import KINDS
from k2chi.phantom.tissue import CHALLENGE_GROUP, LABEL_OF, LABELS, SIDED, TISSUES, tissue_of, tissues
from k2chi.phantom.warp import person, rotation

WHOLE = Grid.of((83, 103, 103), (2.0, 2.0, 2.0))

# Volume of one side in mm³: wide enough for a person, narrow enough to catch a wrong shape.
VOLUMES = {
    "caudate": (2500, 5500),
    "putamen": (3500, 7000),
    "pallidum externum": (550, 1600),
    "pallidum internum": (250, 800),
    "red nucleus": (150, 450),
    "nigra compacta": (80, 350),
    "nigra reticulata": (180, 550),
    "subthalamic": (70, 250),
    "dentate": (300, 1200),
    "thalamus": (3800, 8500),
}


def deep_box(voxel_mm: float) -> Grid:
    """The middle of the head, where the nuclei lie."""
    n = round(100 / voxel_mm)
    return Grid.of((n, n, n), (voxel_mm,) * 3)


@pytest.fixture(scope="module")
def atlas() -> Head:
    """The symmetric head on a 2 mm grid."""
    return DigitalHead(variation=0)(WHOLE)


@pytest.fixture(scope="module")
def someone() -> Head:
    """One person on a 2 mm grid."""
    return DigitalHead(seed=3)(WHOLE)


def test_label_table_is_complete() -> None:
    """Each label has a name of its own, a tissue and a group, and all 16 groups are used."""
    assert len(set(LABELS.values())) == len(LABELS)
    assert all(tissue_of(n) in TISSUES for n in LABELS)
    assert set(CHALLENGE_GROUP.values()) == set(range(1, 17))
    assert {CHALLENGE_GROUP[LABEL_OF[f"{n} left"]] for n in SIDED} == set(range(1, 8))


def test_every_part_is_there(someone: Head) -> None:
    """A plain head holds all labels but those of disease."""
    present = set(someone.labels.unique().tolist())
    disease = {"calcification", "microbleed", "lesion core", *KINDS}
    assert present == {n for n, name in LABELS.items() if name not in disease}


@pytest.mark.parametrize("voxel_mm", [1.0, 2.0])
def test_nuclei_have_human_volumes(voxel_mm: float) -> None:
    """On each side, and much the same whatever the voxel size."""
    grid = deep_box(voxel_mm)
    head = DigitalHead(seed=5)(grid)
    for name, (low, high) in VOLUMES.items():
        for side in ("left", "right"):
            mm3 = float((head.labels == LABEL_OF[f"{name} {side}"]).sum()) * grid.voxel_volume_mm3
            assert low < mm3 < high, f"{name} {side}: {mm3:.0f} mm³"


def test_symmetric_without_variation(atlas: Head) -> None:
    """Mirrored, the head is itself with left and right exchanged."""
    swap = torch.arange(max(LABELS) + 1, dtype=torch.int16)
    for name in SIDED:
        a, b = LABEL_OF[f"{name} left"], LABEL_OF[f"{name} right"]
        swap[a], swap[b] = b, a
    mirrored = swap[atlas.labels.flip(0).long()]
    # the frontal sinuses are drawn unequal, as in life, and a vessel's edge may round differently
    assert float((mirrored != atlas.labels).float().mean()) < 3e-3
    inner = atlas.brain & atlas.brain.flip(0)
    assert float((mirrored != atlas.labels)[inner].float().mean()) < 1e-3
    assert int((atlas.labels == LABEL_OF["caudate left"]).nonzero()[:, 0].max()) < 41


def test_seed_decides() -> None:
    """The same settings give the same bytes; another seed another head."""
    grid = deep_box(4.0)
    a, b, c = DigitalHead(seed=1)(grid), DigitalHead(seed=1)(grid), DigitalHead(seed=2)(grid)
    assert torch.equal(a.chi_ppm, b.chi_ppm)
    assert torch.equal(a.labels, b.labels)
    assert float((a.labels != c.labels).float().mean()) > 0.05


def test_a_part_equals_the_whole(someone: Head) -> None:
    """A small grid inside a large one shows the same anatomy."""
    part = WHOLE.window((30, 40, 50), (20, 24, 18))
    head = DigitalHead(seed=3)(part)
    at = (slice(30, 50), slice(40, 64), slice(50, 68))
    assert torch.equal(head.labels, someone.labels[at])
    torch.testing.assert_close(head.chi_ppm, someone.chi_ppm[at], rtol=0, atol=1e-5)


def test_turning_head_and_slab_together_changes_nothing() -> None:
    """A head turned in the scanner, on a slab turned with it, gives the same arrays."""
    angles = (12.0, -7.0, 20.0)
    grid = Grid.of((30, 34, 28), (3.0, 3.0, 3.0))
    still = DigitalHead(seed=4, centre_mm=(0, 0, 0))(grid)
    turned = np.asarray(grid.affine).copy()
    turned[:3] = rotation(*angles) @ turned[:3]
    head = DigitalHead(seed=4, centre_mm=(0, 0, 0), angles_deg=angles)(
        replace(grid, affine=as_affine(turned))
    )
    assert float((head.labels != still.labels).float().mean()) < 1e-3
    torch.testing.assert_close(head.chi_ppm, still.chi_ppm, rtol=0, atol=2e-2)


def test_nod_is_about_the_left_right_axis() -> None:
    """A pitch of 90° carries the crown (up) to where the back was: R·z = −y."""
    np.testing.assert_allclose(rotation(90, 0, 0) @ [0, 0, 1], [0, -1, 0], atol=1e-12)
    warp = person(0, 0.0, (90.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    found = warp(torch.tensor([0.0, -9.1, 0.0]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 10.0]), atol=1e-4, rtol=0)


def test_warp_is_undone() -> None:
    """There and back again, and never folded: volume stays positive everywhere."""
    warp = person(7, 1.0)
    p = torch.randn(500, 3) * 40
    torch.testing.assert_close(warp(warp.back(p)), p, atol=5e-3, rtol=0)
    steps = torch.eye(3) * 0.5
    jacobian = torch.stack([warp(p + s) - warp(p - s) for s in steps], -1)
    assert float(torch.linalg.det(jacobian).min()) > 0.1


def test_nuclei_have_the_tables_chi() -> None:
    """Without variation, the inside of a nucleus is what the table says."""
    head = DigitalHead(variation=0)(deep_box(1.0))
    for name in ("caudate", "putamen", "pallidum externum", "red nucleus", "thalamus"):
        inside = binary_erosion((head.labels == LABEL_OF[f"{name} left"]).numpy(), iterations=1)
        found = float(head.chi_ppm.numpy()[inside].mean())
        assert found == pytest.approx(TISSUES[name].chi_ppm, rel=0.04, abs=2e-3)


def test_people_differ_as_stated() -> None:
    """Over many people the pallidum scatters by about 12 % about its mean, inside the limits."""
    chi = np.array([tissues(40.0, seed)["pallidum externum"].chi_ppm for seed in range(200)])
    mean = TISSUES["pallidum externum"].chi_ppm
    assert chi.mean() == pytest.approx(mean, rel=0.04)
    assert chi.std() / mean == pytest.approx(0.12, rel=0.25)
    assert chi.min() >= 0.6 * mean
    assert chi.max() <= 1.5 * mean


def test_iron_grows_with_age() -> None:
    """Putamen between 40 and 80 years, worked by hand from its growth curve; white matter does not change."""
    young, old = tissues(40.0, 0, 0.0), tissues(80.0, 0, 0.0)
    gain = 0.0089 * 14.62 * (exp(-0.04 * 40) - exp(-0.04 * 80))
    assert old["putamen"].chi_ppm - young["putamen"].chi_ppm == pytest.approx(gain, rel=1e-6)
    assert old["putamen"].r2star_per_s(3.0) > young["putamen"].r2star_per_s(3.0)
    assert old["white matter"] == young["white matter"]
    with pytest.raises(ValueError, match="0 to 120"):
        tissues(-1.0)


def test_field_strength() -> None:
    """R2* meets the table at 3 T and 7 T and lies between them at 5 T; T1 lengthens with B0."""
    t = TISSUES["putamen"]
    assert (t.r2star_per_s(3.0), t.r2star_per_s(7.0)) == (28, 58)
    assert t.r2star_per_s(5.0) == pytest.approx(43)
    assert 1 / t.r1_per_s(7.0) == pytest.approx(1.6)
    assert 1 / t.r1_per_s(3.0) == pytest.approx(1.6 * 0.65)


@pytest.mark.parametrize("which", ["atlas", "someone"])
def test_brain_mask(which: str, request: pytest.FixtureRequest) -> None:
    """In one piece, of human size, holding all nuclei, and free of bone, air, fat and skin."""
    head: Head = request.getfixturevalue(which)
    litres = float(head.brain.sum()) * WHOLE.voxel_volume_mm3 * 1e-6
    assert 1.1 < litres < 1.8
    assert label(head.brain.numpy())[1] == 1
    nuclei = (head.labels >= 1) & (head.labels <= 20)
    assert bool(head.brain[nuclei].all())
    assert float(head.chi_ppm[head.brain].min()) > -0.3
    assert float(head.chi_ppm[head.brain].max()) < 0.5
    groups = set(head.group()[head.brain].unique().tolist())
    assert not groups & {12, 13, 14, 15}


def test_skull_lies_around_the_brain(someone: Head) -> None:
    """Air never touches the mask; bone lies within 8 mm of nearly all of its surface; corners are air."""
    air = ((someone.labels == 0) | (someone.labels == LABEL_OF["air sinus"])).numpy()
    brain = someone.brain.numpy()
    assert not (binary_dilation(brain) & air).any()
    bone = ((someone.labels == LABEL_OF["bone"]) | (someone.labels == LABEL_OF["marrow"])).numpy()
    surface = brain & ~binary_erosion(brain)
    assert binary_dilation(bone, iterations=4)[surface].mean() > 0.97
    assert float(someone.chi_ppm[0, 0, -1]) == pytest.approx(9.4)
    assert float(someone.m0[0, 0, -1]) == 0


def test_great_veins_touch_the_mask(someone: Head) -> None:
    """The sagittal sinus lies at the mask's edge, as in life, and partly inside it."""
    sinus = (someone.labels == LABEL_OF["dural sinus"]) & (torch.arange(103) > 52)
    share = float((sinus & someone.brain).sum() / sinus.sum())
    assert 0.2 < share < 1.0


def test_lesions() -> None:
    """As many as asked for, in turn of the three kinds, in the brain, apart; each MS lesion has its vein."""
    who = DigitalHead(seed=2, ms_lesions=6, microbleeds=3, calcifications=1)
    head = who(Grid.of((140, 170, 130), (1.0, 1.0, 1.0)))
    kinds = [lesion.kind for lesion in head.lesions]
    assert kinds == [*KINDS, *KINDS, "microbleed", "microbleed", "microbleed", "calcification"]
    inverse = np.linalg.inv(np.asarray(head.grid.affine))
    veins = (head.labels == LABEL_OF["deep vein"]).numpy()
    for lesion in head.lesions:
        i, j, k = np.rint(inverse[:3, :3] @ lesion.centre_mm + inverse[:3, 3]).astype(int)
        assert head.brain[i, j, k]
        box = (slice(i - 3, i + 4), slice(j - 3, j + 4), slice(k - 3, k + 4))
        if lesion.kind in KINDS:
            assert float(head.chi_ppm[box].max()) > 0.03 or veins[box].any()
        found = set(head.labels[box].flatten().tolist())
        assert LABEL_OF[lesion.kind] in found or LABEL_OF["lesion core"] in found
        for other in head.lesions:
            apart = np.linalg.norm(np.subtract(lesion.centre_mm, other.centre_mm))
            assert other is lesion or apart > max(lesion.semi_mm) + max(other.semi_mm)
    assert float(head.chi_ppm[head.labels == LABEL_OF["calcification"]].mean()) < -1
    with pytest.raises(ValueError, match="ask for fewer"):
        DigitalHead(seed=2, ms_lesions=5000)(deep_box(8.0))
