"""Data of an independent simulator come back right in sign, scale and orientation."""

import contextlib
import io
import json
import warnings

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from k2chi.app.cli import app

TES = (0.004, 0.010, 0.016)
VALUES = (0.1, 0.2, 0.4)


@pytest.fixture(scope="module")
def forward():
    """The simulator, whose libraries warn on import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("qsm_forward", reason="the qsm-forward package is not installed")


def simulated(forward, root, b0_dir):
    """Three cylinders of known χ in a larger one, at 7 T, with the head turned in the scanner."""
    chi = forward.generate_susceptibility_phantom([56, 60, 64], 0, 0.005, [4, 4, 5], list(VALUES))
    recon = forward.ReconParams(
        subject="1", TEs=np.array(TES), B0=7, B0_dir=np.array(b0_dir), peak_snr=200, random_seed=1,
        generate_phase_offset=False, generate_shim_field=False,
    )  # fmt: skip
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        forward.generate_bids(forward.TissueParams(chi=chi), recon, str(root))
    return root


def call(*args):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def contrasts(found, truth):
    """Median χ of each cylinder over that of the large one; their slope on the true values."""
    a, t = found.get_fdata(), np.round(truth.get_fdata(), 6)
    medians = [float(np.median(a[np.isclose(t, v)])) for v in (0.005, *VALUES)]
    contrast, true = np.array(medians[1:]) - medians[0], np.array(VALUES) - 0.005
    return contrast, contrast @ true / (true @ true)


@pytest.mark.parametrize("b0_dir", [(0.0, 0.0, 1.0), (0.3, -0.4, 0.866)])
def test_cylinders_come_back(forward, tmp_path, b0_dir):
    """Through `bids`: sign, place, and the contrast of each cylinder as it was put in.

    A wrong sign gives a slope of −1, a wrong B0 direction or unit one far from 1. Measured: 0.996 straight,
    0.948 oblique.
    """
    raw, out = simulated(forward, tmp_path / "raw", b0_dir), tmp_path / "out"
    (outcome,) = call("bids", raw, out, "participant", "--json")
    assert "grows with the field" in outcome["words"]
    maps = out / "sub-1"
    found = nib.load(maps / "anat" / "sub-1_Chimap.nii.gz")
    truth = nib.load(raw / "derivatives" / "qsm-forward" / "sub-1" / "anat" / "sub-1_Chimap.nii")
    np.testing.assert_allclose(found.affine, truth.affine, atol=1e-4)
    contrast, slope = contrasts(found, truth)
    assert 0.88 < slope < 1.08
    assert np.corrcoef(contrast, VALUES)[0, 1] > 0.99
