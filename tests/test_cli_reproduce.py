"""`k2chi reproduce`: the phantom's way through sizes, the error it reports, and what it writes."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from k2chi.app import scaletest
from k2chi.app.cli import app
from k2chi.data import Field, Grid, Scan
from k2chi.invert import TKD
from k2chi.ops import dipole


@pytest.fixture
def folder(tmp_path):
    """A small stand-in: a block of 0.1 ppm in a larger one of 0."""
    chi, mask = np.zeros((60, 60, 40), np.float32), np.zeros((60, 60, 40), np.uint8)
    mask[10:50, 10:50, 8:32] = 1
    chi[24:36, 24:36, 14:26] = 0.1
    for name, volume in (("Chimap", chi), ("mask", mask)):
        nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / f"{name}.nii.gz")
    return tmp_path


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(scaletest, "networks", lambda extra=(): {"ours": TKD(0.2)})
    monkeypatch.setattr(scaletest, "classical", lambda: {"TKD": TKD()})


def test_the_phantom_keeps_its_mass_and_middle(folder):
    chi, mask = scaletest.phantom(folder)
    assert chi.shape == (256, 256, 256)
    assert float(chi.sum()) == pytest.approx(0.1 * 12**3, rel=1e-5)
    at = torch.argwhere(chi > 0).float().mean(0)
    torch.testing.assert_close(at, torch.full((3,), 127.5))
    assert int(mask.sum()) == 40 * 40 * 24


@pytest.mark.parametrize("size", [32, 48])
def test_a_scene_is_its_own_field_with_noise_of_the_snr(folder, size):
    local, truth = scaletest.scene(*scaletest.phantom(folder), size)
    assert local.grid.voxel_mm == pytest.approx((256 / size,) * 3)
    clean = dipole(local.grid, kind="green", pad=2)(truth)
    noise = (local.ppm - clean)[local.mask] * local.scan.rad_per_ppm
    assert float(noise.std()) == pytest.approx(0.01, rel=0.2)
    assert float(truth.sum()) * (256 / size) ** 3 == pytest.approx(0.1 * 12**3, rel=0.01)


def test_rmse_counts_the_whole_cube():
    mask = torch.zeros(4, 4, 4, dtype=torch.bool)
    mask[:2] = True
    truth = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(0))
    wrong = truth + 3.0  # a constant is no error
    wrong[0, 0, 0] += 0.8
    error = 0.8 * ((1 - 1 / 32) / 64) ** 0.5
    assert scaletest.rmse(wrong, truth, mask) == pytest.approx(error, rel=1e-4)


def test_scale_writes_table_and_figure(folder, fast, tmp_path):
    there = ["--phantom", str(folder), "--size", "32", "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(app, ["reproduce", "si-qsm", "--part", "scale", *there])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "o" / "si-qsm-scale.md").read_text()
    assert "| 32³ | ours |" in text
    assert "| 64³ | SI-QSM, published | 0.00242 |" in text
    assert (tmp_path / "o" / "si-qsm-scale.png").stat().st_size > 1000


def test_refusals(tmp_path, fast):
    def said(*args):
        result = CliRunner().invoke(
            app, ["reproduce", "si-qsm", "--part", "scale", *args], env={"K2CHI_PHANTOM": ""}
        )
        assert result.exit_code == 2
        return " ".join(result.output.split())

    assert "K2CHI_PHANTOM" in said()
    assert "Chimap.nii.gz is not there" in said("--phantom", str(tmp_path))
    assert "16 to 256" in said("--phantom", str(tmp_path), "--size", "300")


class Scanner:
    """In place of the digital head: a block in a box."""

    def __init__(self, snr):
        pass

    def __call__(self, head, grid):
        n = 16
        grid = Grid.of((n, n, n))
        chi, brain = torch.zeros(n, n, n), torch.zeros(n, n, n, dtype=torch.bool)
        chi[6:10, 6:10, 6:10], brain[3:13, 3:13, 3:13] = 0.1, True
        scan = Scan((0.02,), 7.0)
        local = Field(dipole(grid)(chi) * brain, brain, grid, scan, local=True)
        labels = torch.full((n, n, n), 9, dtype=torch.int16)
        truth = SimpleNamespace(
            grid=grid, scan=scan, local=lambda: local, chi_ppm=chi, brain=brain, group=labels
        )
        return SimpleNamespace(truth=truth)


def test_metrics_has_two_contrasts_and_two_noise_levels(monkeypatch):
    monkeypatch.setattr(scaletest, "GRE", Scanner)
    lines, slices = scaletest.metrics(6.0, {"TKD": TKD()}, lambda words: None)
    assert [x.scene for x in lines] == ["Sim1 SNR1", "Sim1 SNR2", "Sim2 SNR1", "Sim2 SNR2"]
    assert set(slices) == {"truth", "TKD"}
    assert lines[0].values["nrmse"] > lines[1].values["nrmse"]
