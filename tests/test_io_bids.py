"""BIDS: what the scanner finds, what JSON inherits, and what derivatives look like."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from images import AFFINE, TES, save, scan

from k2chi.data import Chi, Field, Grid, Maps, Scan, as_affine
from k2chi.io import bids
from k2chi.io.derivatives import Layout, room, staged, write_maps
from k2chi.io.sidecar import agree, facts

MAG, PHASE, INSIDE = scan((12, 13, 10))


def image(path, data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(path, MAG[..., 0] if data is None else data)


def told(path, **data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def megre(root, name="sub-01", folder="sub-01/anat"):
    """Three echoes, magnitude and phase, echo times beside the phase only."""
    for e, te in enumerate(TES):
        stem = f"{name}_echo-{e + 1}_part-"
        image(root / folder / f"{stem}mag_MEGRE.nii.gz", MAG[..., e])
        image(root / folder / f"{stem}phase_MEGRE.nii.gz", PHASE[..., e])
        told(root / folder / f"{stem}phase_MEGRE.json", EchoTime=te)
    told(root / "dataset_description.json", Name="x", BIDSVersion="1.10.0")
    told(root / "MEGRE.json", MagneticFieldStrength=7.0)


def test_finds_echoes_in_order_with_inherited_field_strength(tmp_path):
    megre(tmp_path)
    (series,) = bids.find(tmp_path)
    echoes, source = bids.load(series)
    assert (series.name, str(series.folder)) == ("sub-01", "sub-01")
    assert echoes.scan == Scan(TES, 7.0)
    expected = torch.from_numpy(np.moveaxis(MAG, -1, 0)).float()
    torch.testing.assert_close(echoes.signal.abs(), expected)
    assert len(source.files) == 6


def test_sessions_runs_and_filters(tmp_path):
    for sub in ("01", "02"):
        for ses in ("a", "b"):
            for run in ("1", "2"):
                stem = f"sub-{sub}_ses-{ses}_run-{run}"
                folder = tmp_path / f"sub-{sub}" / f"ses-{ses}" / "anat"
                image(folder / f"{stem}_part-mag_T2starw.nii.gz")
                image(folder / f"{stem}_part-phase_T2starw.nii.gz", PHASE[..., 0])
    assert len(bids.find(tmp_path)) == 8
    some = bids.find(tmp_path, ["sub-02"], ["b"])
    assert [s.name for s in some] == ["sub-02_ses-b_run-1", "sub-02_ses-b_run-2"]
    assert str(some[0].folder) == "sub-02/ses-b"
    assert len(bids.find(tmp_path / "sub-01" / "ses-a")) == 2
    with pytest.raises(ValueError, match="no images of sub-07"):
        bids.find(tmp_path, ["02", "07"])


def test_nearer_json_wins(tmp_path):
    """The inheritance principle: a file's own sidecar over its folder's, over the data set's."""
    folder = tmp_path / "sub-01" / "anat"
    file = image(folder / "sub-01_acq-x_part-phase_T2starw.nii.gz")
    told(tmp_path / "T2starw.json", EchoTime=1, A=1, B=1, C=1)
    told(tmp_path / "sub-01" / "sub-01_T2starw.json", B=2, C=2)
    told(folder / "sub-01_acq-x_part-phase_T2starw.json", C=3)
    told(folder / "sub-01_acq-y_T2starw.json", C=4)
    told(tmp_path / "MEGRE.json", A=5)
    bids._jsons.cache_clear()
    assert bids.metadata(file, tmp_path) == {"EchoTime": 1, "A": 1, "B": 2, "C": 3}


def test_magnitude_alone_is_no_scan(tmp_path):
    image(tmp_path / "sub-01" / "anat" / "sub-01_T2starw.nii.gz")
    with pytest.raises(ValueError, match="no scan with phase found"):
        bids.find(tmp_path)


def test_scans_of_one_name_are_told_apart(tmp_path):
    """MEGRE and T2starw of one session must not write the same files."""
    megre(tmp_path)
    image(tmp_path / "sub-01" / "anat" / "sub-01_part-mag_T2starw.nii.gz")
    image(tmp_path / "sub-01" / "anat" / "sub-01_part-phase_T2starw.nii.gz", PHASE[..., 0])
    assert sorted(s.name for s in bids.find(tmp_path)) == ["sub-01_acq-MEGRE", "sub-01_acq-T2starw"]


def test_masks_among_derivatives(tmp_path):
    """A brain mask in scan space is used; template space, lesions, other grids and our own are not."""
    megre(tmp_path)
    there = tmp_path / "derivatives"
    image(there / "fs" / "sub-01" / "anat" / "sub-01_space-MNI_desc-brain_mask.nii.gz", INSIDE * 1.0)
    image(there / "fs" / "sub-01" / "anat" / "sub-01_label-WMH_mask.nii.gz", INSIDE * 1.0)
    image(there / "fs" / "sub-02" / "anat" / "sub-02_desc-brain_mask.nii.gz", INSIDE * 1.0)
    image(there / "other" / "sub-01_desc-brain_mask.nii.gz", INSIDE[1:] * 1.0)
    told(there / "ours" / "dataset_description.json", GeneratedBy=[{"Name": "k2chi"}])
    image(there / "ours" / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz", INSIDE * 1.0)
    assert bids.find(tmp_path)[0].mask is None
    good = image(there / "bet" / "sub-01_desc-brain_mask.nii.gz", INSIDE * 1.0)
    (series,) = bids.find(tmp_path)
    assert series.mask == good
    echoes, source = bids.load(series)
    assert torch.equal(echoes.mask, torch.from_numpy(INSIDE))
    assert "derivatives/bet" in source.says[-1]
    assert bids.load(series, find_mask=False)[0].mask is None


def test_converter_folder_without_bids_names(tmp_path):
    """dcm2niix leaves ImageType and EchoTime beside each file; names do not matter."""
    for e, te in enumerate(TES):
        for letter, data in (("M", MAG), ("P", PHASE)):
            stem = f"gre_{3 - e}_{letter}"
            image(tmp_path / f"{stem}.nii.gz", data[..., e])
            kind = ["ORIGINAL", "PRIMARY", letter, "ND"]
            told(tmp_path / f"{stem}.json", EchoTime=te, ImageType=kind, MagneticFieldStrength=3)
    echoes, _ = bids.load(bids.find(tmp_path)[0])
    assert echoes.scan == Scan(TES, 3.0)
    torch.testing.assert_close(echoes.signal[0].abs(), torch.from_numpy(MAG[..., 0]).float())


def test_contradictions_are_refused(tmp_path):
    megre(tmp_path)
    (series,) = bids.find(tmp_path)
    with pytest.raises(ValueError, match="says 7 T, but 3 T was given"):
        bids.load(series, b0_tesla=3.0)
    with pytest.raises(ValueError, match="echo times contradict each other"):
        bids.load(series, te_s=(0.004, 0.010, 0.020))
    path = tmp_path / "sub-01" / "anat" / "sub-01_echo-2_part-mag_MEGRE.json"
    told(path, EchoTime=0.5)
    for e in (1, 3):
        told(path.with_name(path.name.replace("echo-2", f"echo-{e}")), EchoTime=TES[e - 1])
    with pytest.raises(ValueError, match="echo times contradict each other"):
        bids.load(bids.find(tmp_path)[0])
    told(path, EchoTime="slow")
    with pytest.raises(ValueError, match="EchoTime 'slow' is not a number"):
        bids.load(bids.find(tmp_path)[0])
    path.write_text('{"EchoTime": 0.01')
    with pytest.raises(ValueError, match=r"echo-2_part-mag_MEGRE\.json: line 1 is not JSON"):
        bids.load(bids.find(tmp_path)[0])


def test_facts_and_agreement(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    assert facts([(a, {"EchoTime": [0.01, 0.02], "ImagingFrequency": 123.25})])[:2] == (
        [0.01, 0.02],
        pytest.approx(2.8947, rel=1e-4),
    )
    with pytest.raises(ValueError, match="b: 7 T, but a says 3 T"):
        facts([(a, {"MagneticFieldStrength": 3}), (b, {"MagneticFieldStrength": 7})])
    assert agree((), (0.1,), "a", "b") == [0.1]


def maps_of(grid):
    full = torch.ones(grid.shape)
    mask = full > 0
    scan = Scan((0.01, 0.02), 3.0)
    field = Field(full * 0.1, mask, grid, scan)
    return Maps(
        grid, scan, mask, magnitude=full, total=field, local=field,
        chi=Chi(full * 0.05, mask, grid, "mask mean", 0.01), r2star_per_s=full * 20,
    )  # fmt: skip


def test_derivatives_have_standard_names_and_units(tmp_path):
    """0.1 ppm at 3 T is 12.77 Hz; R2* of 20 /s is a T2* of 50 ms; the affine is the input's."""
    grid = Grid((4, 5, 6), as_affine(AFFINE))
    layout = Layout(tmp_path, "sub-01_ses-2", bids.Path("sub-01/ses-2"))
    written = write_maps(maps_of(grid), layout, ["bids:raw:x"], {}, (1, 0))
    assert {str(p) for p in written} == {
        "sub-01/ses-2/anat/sub-01_ses-2_desc-brain_mask.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_Chimap.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_R2starmap.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_T2starmap.nii.gz",
        "sub-01/ses-2/fmap/sub-01_ses-2_desc-total_fieldmap.nii.gz",
        "sub-01/ses-2/fmap/sub-01_ses-2_desc-total_magnitude.nii.gz",
        "sub-01/ses-2/fmap/sub-01_ses-2_desc-local_fieldmap.nii.gz",
        "sub-01/ses-2/fmap/sub-01_ses-2_desc-local_magnitude.nii.gz",
    }
    values = {p.name.split("_")[-1] + p.name.split("_")[-2]: nib.load(tmp_path / p) for p in written}
    assert values["fieldmap.nii.gzdesc-local"].get_fdata().max() == pytest.approx(12.7732434)
    assert values["T2starmap.nii.gzses-2"].get_fdata().max() == pytest.approx(0.05)
    chi = values["Chimap.nii.gzses-2"]
    assert chi.get_fdata().max() == pytest.approx(0.05)
    np.testing.assert_allclose(chi.affine, AFFINE, atol=1e-6)
    for path in written:
        side = json.loads((tmp_path / str(path).replace(".nii.gz", ".json")).read_text())
        assert side["SkullStripped"] in (True, False)
        assert side["Sources"] == ["bids:raw:x"]


def test_what_a_method_says_of_its_error_is_written_beside_the_map(tmp_path):
    maps = maps_of(Grid((4, 5, 6), as_affine(AFFINE)))
    assert maps.chi is not None
    maps = replace(maps, chi=replace(maps.chi, sd_ppm=torch.full((4, 5, 6), 0.02)))
    written = write_maps(maps, Layout(tmp_path), [], {}, (1, 0))
    assert bids.Path("desc-uncertainty_Chimap.nii.gz") in written
    assert nib.load(tmp_path / "desc-uncertainty_Chimap.nii.gz").get_fdata().max() == pytest.approx(0.02)
    side = json.loads((tmp_path / "desc-uncertainty_Chimap.json").read_text())
    assert side["Units"] == "ppm"
    assert "Standard deviation" in side["Description"]


def test_staging_is_all_or_nothing(tmp_path):
    """A failure leaves neither files nor the folders that were made for them."""

    def half():
        with staged(tmp_path / "new" / "deep") as stage:
            (stage / "a.txt").write_text("a")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        half()
    assert list(tmp_path.iterdir()) == []
    with staged(tmp_path / "out") as stage:
        (stage / "sub").mkdir()
        (stage / "sub" / "a.txt").write_text("a")
        assert not (tmp_path / "out" / "sub").exists()
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == [
        "out",
        "out/sub",
        "out/sub/a.txt",
    ]


def test_room_is_checked_before_work(tmp_path):
    with pytest.raises(OSError, match="make room"):
        room(tmp_path / "out", 10**15)
