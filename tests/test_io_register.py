"""ANTs as a process: known motions found, files that ITK reads too, and bad input in words."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from heads import motion, seen, straight, turned_grid

from k2chi.data import as_affine
from k2chi.io import register as module
from k2chi.io.nifti import write
from k2chi.io.register import Rigid, Scene, SyN, register
from k2chi.io.transforms import read_matrix, read_transform, write_matrix
from k2chi.measure.alignment import dice
from k2chi.measure.space import Transform, Warp, brought, carried, centres
from k2chi.progress import listening

ants = pytest.importorskip("ants")
GRID, OTHER, MOVE = straight((28, 32, 26), 2.6), turned_grid((24, 32, 26), (3.0, 2.5, 2.7)), motion()


def scenes(move=None, bend=None):
    """The made-up head on a turned grid of other voxels, the same head misplaced, and the labels of both."""
    image, mask, labels = seen(OTHER)
    fixed, fixed_mask, truth = seen(GRID, move, bend)
    return Scene(image, OTHER, mask), Scene(fixed, GRID, fixed_mask), labels, truth


@pytest.fixture(scope="module")
def rigid(tmp_path_factory):
    """The head laid on itself after a known motion; registering costs 3 s, so all tests share it."""
    moving, fixed, *_ = scenes(MOVE)
    told = []
    with listening(lambda what, done, of: told.append((what, done, of))):
        found = register(Rigid(threads=1), moving, fixed, tmp_path_factory.mktemp("rigid") / "a")
    return found, told, fixed.mask


def test_a_known_motion_is_found(rigid):
    found, told, mask = rigid
    at = centres(GRID)[mask.numpy()]
    apart = np.linalg.norm(found.transform(at) - Transform((as_affine(MOVE),))(at), axis=-1)
    assert apart.mean() < 0.3
    assert found.warnings == ()
    assert found.quality.mask_dice > 0.97
    assert found.quality.lncc > found.quality.lncc_before + 0.2
    assert found.quality.worst_mm < 0.7
    steps = [done for _, done, _ in told]
    assert steps == sorted(steps)
    assert len(set(steps)) > 5
    record = json.loads(found.files[-1].read_text(encoding="utf-8"))
    assert record["Seed"] == 1
    assert record["Threads"] == 1
    assert record["Quality"]["lncc"] == pytest.approx(found.quality.lncc, abs=1e-4)


def test_itk_reads_the_matrix_as_we_do(rigid, tmp_path):
    """Points through ITK's own code, from its .mat and from our text form of it."""
    found, *_ = rigid
    at = np.array([[3.0, -20, 11], [0, 0, 0], [15, 15, -15]])
    ours = found.transform(at)
    text = write_matrix(tmp_path / "x.txt", found.transform.matrix)
    for path in (found.files[0], text):
        itk = ants.read_transform(str(path))
        theirs = np.array([itk.apply_to_point(tuple(p * [-1, -1, 1])) for p in at]) * [-1, -1, 1]
        assert theirs == pytest.approx(ours, abs=1e-3), path
        assert np.asarray(read_matrix(path)) == pytest.approx(np.asarray(found.transform.matrix), abs=1e-6)


def bend(at):
    """A smooth warp of up to 4 mm."""
    x, y, z = np.moveaxis(at, -1, 0)
    return 4 * np.stack([np.sin(y / 14) * np.cos(z / 18), np.cos(x / 15), np.sin(x / 16 + z / 20)], -1)


@pytest.fixture(scope="module")
def warped(tmp_path_factory):
    moving, fixed, labels, truth = scenes(bend=bend)
    how = SyN(iterations=(20, 15, 0, 0), threads=1)
    return register(how, moving, fixed, tmp_path_factory.mktemp("syn") / "b"), labels, truth


def test_a_warp_brings_labels_where_they_belong(warped):
    found, labels, truth = warped
    flat = Transform(tuple(s for s in found.transform.steps if not isinstance(s, Warp)))
    better = carried(labels, OTHER, GRID, found.transform).labels
    before = carried(labels, OTHER, GRID, flat).labels
    scores = [[dice(n == k, truth == k) for k in range(1, 7)] for n in (better, before)]
    assert min(scores[0]) > 0.8
    assert np.mean(scores[0]) > np.mean(scores[1]) + 0.02
    assert found.quality.folded == 0
    assert 0.3 < found.quality.jacobian_low < 1 < found.quality.jacobian_high < 3


def test_itk_applies_the_chain_as_we_do(warped, tmp_path):
    """Warp, then matrix, on grids that are turned against each other: antsApplyTransforms is the oracle."""
    found, *_ = warped
    image, _, _ = seen(OTHER)
    files = [found.files[0].with_name(n) for n in found.record["Transforms"]]
    assert "Warp" in files[0].name
    a, b = (
        write(tmp_path / f"{k}.nii", t, g) for k, (t, g) in enumerate([(image, OTHER), (seen(GRID)[0], GRID)])
    )
    theirs = ants.apply_transforms(
        ants.image_read(str(b)), ants.image_read(str(a)), [str(f) for f in files], interpolator="linear"
    ).numpy()
    ours = brought(image, OTHER, GRID, read_transform(*files))
    core = (slice(3, -3),) * 3
    assert np.abs(ours.numpy() - theirs)[core].max() < 5e-3


def test_the_seed_and_one_thread_give_the_same_numbers(rigid, tmp_path):
    moving, fixed, *_ = scenes(MOVE)
    again = register(Rigid(threads=1), moving, fixed, tmp_path / "a")
    assert again.files[0].read_bytes() == rigid[0].files[0].read_bytes()


@pytest.mark.parametrize(("how", "driven"), [(SyN(), 2), (SyN("information"), 2), (Rigid(), 0)])
def test_a_second_contrast_drives_the_warp_where_both_have_one(how, driven, tmp_path, monkeypatch):
    """ANTs is told of one metric for each contrast in the stage of the warp, each with files of its own."""
    image, mask, labels = seen(GRID)
    both, alone = Scene(image, GRID, mask, labels.float()), Scene(image, GRID, mask)
    told = []

    def started(words, **more):
        told.append((words, [float(nib.load(f).get_fdata().max()) for f in sorted(more_files(words))]))
        raise InterruptedError

    def more_files(words):
        return {
            f.rstrip("]") for w in words if "[" in w for f in w[w.index("[") + 1 :].split(",") if ".nii" in f
        }

    monkeypatch.setattr(module.subprocess, "Popen", started)
    for pair in ((both, both), (both, alone)):
        with pytest.raises(InterruptedError):
            register(how, *pair, tmp_path / "x")
    (words, maxima), (fewer, _) = told
    stages = " ".join(words).split("--transform")
    assert stages[-1].count("--metric") == max(driven, 1)
    if driven:
        assert maxima == pytest.approx([float(image.max()), 6] * 2)  # fixed0, fixed1, moving0, moving1
        first, second = [w.split("[")[1].split(",")[:2] for w in stages[-1].split("--metric")[1:]]
        assert [Path(f).name for f in (*first, *second)] == [
            "fixed0.nii",
            "moving0.nii",
            "fixed1.nii",
            "moving1.nii",
        ]
    assert " ".join(fewer).split("--transform")[-1].count("--metric") == 1


def test_what_cannot_be_registered_is_said(tmp_path, monkeypatch):
    image, mask, _ = seen(GRID)
    flat = Scene(torch.zeros(GRID.shape), GRID)
    with pytest.raises(ValueError, match="moving image is constant"):
        register(Rigid(), flat, Scene(image, GRID), tmp_path / "x")
    with pytest.raises(ValueError, match="fixed image is constant"):
        register(Rigid(), Scene(image, GRID), Scene(image, GRID, mask & False), tmp_path / "x")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'k2chi\[register\]'"):
        register(Rigid(), Scene(image, GRID), Scene(image, GRID), tmp_path / "x")
    for make, words in (
        (lambda: Rigid(samples=0), "share above 0"),
        (lambda: SyN(iterations=(1, 2)), "four numbers"),
        (lambda: SyN(step=0.9), "step above 0"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


def test_files_that_are_no_transform_are_refused(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("1 0 0\n0 1 0\n", encoding="utf-8")
    with pytest.raises(ValueError, match="four rows of four"):
        read_matrix(text)
    text.write_text("hello\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no text file of numbers"):
        read_matrix(text)
    (tmp_path / "a.mat").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.mat"):
        read_matrix(tmp_path / "a.mat")
    with pytest.raises(ValueError, match="no such file"):
        read_matrix(tmp_path / "b.mat")
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), np.eye(4)), tmp_path / "w.nii.gz")
    with pytest.raises(ValueError, match="no warp"):
        read_transform(tmp_path / "w.nii.gz")
