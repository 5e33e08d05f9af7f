"""Folders of atlases, with files named or found; fetching without a network."""

import json

import nibabel as nib
import numpy as np
import pytest
from images import save

from k2chi.io import atlas
from k2chi.io.nifti import read
from k2chi.measure.roi import nuclei


def folder(tmp_path, **said):
    for name in ("a_T1w.nii.gz", "a_dseg.nii.gz"):
        save(tmp_path / name, np.ones((4, 4, 4)))
    (tmp_path / "a_dseg.tsv").write_text("index\tname\n1\tL Putamen\n", encoding="utf-8")
    if said:
        (tmp_path / "atlas.json").write_text(json.dumps(said), encoding="utf-8")
    return tmp_path


def test_a_folder_is_an_atlas_by_its_names_or_by_its_json(tmp_path):
    found = atlas.find(str(folder(tmp_path)))
    assert (found.template.name, found.labels.name, found.contrast) == ("a_T1w.nii.gz", "a_dseg.nii.gz", "T1")
    assert found.names == {1: "L Putamen"}
    said = atlas.find(str(folder(tmp_path, licence="mine", contrast="magnitude", chi="a_T1w.nii.gz")))
    assert (said.licence, said.contrast, said.chi) == ("mine", "magnitude", tmp_path / "a_T1w.nii.gz")


def test_a_folder_that_is_not_clear_is_refused(tmp_path):
    folder(tmp_path)
    save(tmp_path / "b_dseg.nii.gz", np.ones((4, 4, 4)))
    with pytest.raises(ValueError, match=r"a_dseg\.nii\.gz, b_dseg\.nii\.gz could be the labels"):
        atlas.from_folder(tmp_path)
    with pytest.raises(ValueError, match=r"names 'c\.nii'"):
        atlas.from_folder(folder(tmp_path, labels="c.nii"))
    (tmp_path / "atlas.json").unlink()
    (tmp_path / "b_dseg.nii.gz").unlink()
    (tmp_path / "a_dseg.tsv").unlink()
    with pytest.raises(ValueError, match="no table with the names"):
        atlas.from_folder(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        atlas.find(str(tmp_path / "none"))


def test_fetching_splits_sides_and_keeps_the_licence(tmp_path):
    """Labels without sides become two at x = 0; the fetcher is a stand-in, no network is touched."""
    affine = np.diag([-2.0, 2, 2, 1])
    affine[:3, 3] = (9, -8, -8)
    number = np.zeros((10, 8, 8), np.int16)
    number[:, 2:4], number[:, 5:7] = 1, 2

    def stand_in(out):
        return save(out / "det.nii.gz", number, affine), ["background", "Pu", "SNc"]

    got = atlas.fetch("cit168", tmp_path / "x", stand_in)
    labels = np.asarray(nib.load(got.labels).dataobj)
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4}
    assert (labels[:5, 2] == 2).all()  # x above 0: right
    assert (labels[5:, 2] == 1).all()
    assert nuclei(got.names) == {1: "Pu left", 2: "Pu right", 3: "SNc left", 4: "SNc right"}
    assert "CC BY 4.0" in got.licence
    assert read(got.template).grid.shape == read(got.mask).grid.shape

    def broken(out):
        raise OSError("no route to host")

    with pytest.raises(ValueError, match="no route to host"):
        atlas.fetch("cit168", tmp_path / "y", broken)
