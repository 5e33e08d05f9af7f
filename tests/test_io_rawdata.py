"""Raw data by what a file holds; plain arrays with a header; everything else refused in words."""

import gzip
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from raw_cases import Plan, picture, raw_of, smooth_maps
from test_io_twix import case, written

from k2chi.io import arrays, ismrmrd
from k2chi.io.rawdata import is_raw, open_raw
from k2chi.ops.fourier import centred_fft, ifft
from k2chi.recon.assemble import Assemble

DATA = Path(__file__).parents[2] / "shared" / "data" / "cartesian-brain-kspace" / "cartesian_ksp.npy"
SHAPE = (16, 12, 8)
IMAGES = torch.stack([picture(SHAPE), 1j * picture(SHAPE)])[:, None] * smooth_maps(3, SHAPE)
NEEDED = {"te_s": [0.004, 0.012], "b0_tesla": 3.0, "voxel_mm": [0.8, 0.8, 2.0]}


def put(path, data, **changes):
    """An array and its header."""
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file[changes.get("data", "kspace")] = data
    else:
        np.save(path, data)
    settings = {k: v for k, v in (NEEDED | changes).items() if v is not None}
    words = {True: "true", False: "false"}
    lines = [f"{k} = {words[v] if isinstance(v, bool) else _toml(v)}" for k, v in settings.items()]
    path.with_suffix(".toml").write_text("\n".join(lines) + "\n")
    return path


def _toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    return repr(list(value)) if isinstance(value, list | tuple) else repr(value)


def kspace():
    return centred_fft(IMAGES).to(torch.complex64).numpy()


def images_of(raw):
    return torch.stack([ifft(Assemble()(raw, e).data[0]) for e in range(len(raw.scan.te_s))])


def assert_images(found, truth=IMAGES, atol=1e-5):
    """The coil images of all echoes are those of `truth`."""
    torch.testing.assert_close(found, truth.to(torch.complex64), rtol=0, atol=atol)


@pytest.mark.parametrize("ending", [".npy", ".h5"])
def test_array_with_a_header(tmp_path, ending):
    """The image that was transformed comes back, at its place, with its protocol."""
    facts = {"RepetitionTime": 0.03, "Manufacturer": "somebody"}
    raw = open_raw(put(tmp_path / f"a{ending}", kspace(), facts=facts))
    assert_images(images_of(raw))
    assert raw.grid.voxel_mm == (0.8, 0.8, 2.0)
    assert raw.scan.te_s == (0.004, 0.012)
    assert raw.facts == facts
    assert raw.noise is None
    assert open_raw(tmp_path / "a.toml").grid == raw.grid


def test_axes_in_any_order_blocks_of_any_size(tmp_path, monkeypatch):
    data = np.moveaxis(kspace(), [0, 1, 2, 3, 4], [4, 3, 1, 0, 2])
    path = put(tmp_path / "a.npy", data, axes=["y", "x", "z", "coil", "echo"])
    assert_images(images_of(open_raw(path)))
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 8 * 3 * 16 * 8 * 2)
    assert len(list(open_raw(path).lines(0))) == 6
    assert_images(images_of(open_raw(path)))


def test_conjugate_oversampled_partial_and_averages(tmp_path):
    assert_images(images_of(open_raw(put(tmp_path / "a.npy", kspace().conj(), conjugate=True))))
    wide = torch.zeros(2, 3, 32, 12, 8, dtype=torch.complex128)
    wide[:, :, 8:24] = IMAGES
    path = put(tmp_path / "b.npy", centred_fft(wide).numpy(), oversampling=2.0)
    assert_images(images_of(open_raw(path)))
    part = kspace()[:, :, :, 2:, 1:]
    raw = open_raw(put(tmp_path / "c.npy", part, voxels=list(SHAPE), centre=[8, 4, 3]))
    k = centred_fft(IMAGES)
    k[..., :2, :] = 0
    k[..., :1] = 0
    assert_images(
        images_of(raw), torch.fft.fftshift(ifft(torch.fft.ifftshift(k, (-3, -2, -1))), (-3, -2, -1))
    )
    two = np.stack([0.5 * kspace(), 1.5 * kspace()])
    path = put(tmp_path / "d.npy", two, axes=["average", "echo", "coil", "x", "y", "z"])
    assert_images(images_of(open_raw(path)))


def test_one_slice_one_echo_without_axes_of_length_one(tmp_path):
    flat = torch.fft.fftshift(
        torch.fft.fft2(torch.fft.ifftshift(IMAGES[0, :, :, :, 3], (-2, -1)), norm="ortho"), (-2, -1)
    )
    path = put(tmp_path / "a.npy", flat.numpy(), axes=["coil", "x", "y"], te_s=[0.01], slices=True)
    assert_images(images_of(open_raw(path))[0, ..., 0], IMAGES[0, :, :, :, 3])


def test_zeros_were_not_measured(tmp_path):
    data = kspace()
    data[..., 1::2, :] = 0
    sampled = Assemble()(open_raw(put(tmp_path / "a.npy", data)), 0).sampled
    assert sampled.float().mean() == 0.5


def test_noise_and_reference(tmp_path):
    rng = np.random.default_rng(0)
    noise = (rng.normal(size=(3, 100)) + 1j * rng.normal(size=(3, 100))).astype(np.complex64)
    np.save(tmp_path / "n.npy", noise)
    np.save(tmp_path / "r.npy", kspace()[0][:, :, 3:9, 2:6])
    raw = open_raw(put(tmp_path / "a.npy", kspace(), noise="n.npy", reference="r.npy"))
    np.testing.assert_array_equal(raw.noise.numpy(), noise)
    assert not raw.warnings
    k = Assemble()(raw, 0)
    assert tuple(k.reference.shape) == (3, 16, 6, 4)
    whole = torch.fft.fftshift(k.data[0], (-3, -2, -1))[:, :, 3:9, 2:6]
    assert float((k.reference.abs() - whole.abs()).abs().max()) < 1e-5


BAD = {
    "no header": (None, "needs a header of this name"),
    "te": ({"te_s": None, "te": 3.0}, "te_s is missing"),
    "unknown": ({"voxels_mm": [1, 1, 1]}, r"voxels_mm.*did you mean voxel"),
    "size": ({"voxel_mm": [1.0, 1.0]}, "voxel_mm"),
    "word": ({"b0_tesla": "3"}, "b0_tesla = '3' does not fit: give"),
    "ms": ({"te_s": [4.0, 12.0]}, "look like ms"),
    "echoes": ({"te_s": [0.004]}, "2 echoes but 1 times"),
    "axes": ({"axes": ["echo", "coil", "x", "y", "phase"]}, "must be among"),
    "fewer axes": ({"axes": ["coil", "x", "y", "z"]}, "correct axes in the header"),
    "centre": ({"centre": [8, 30, 4]}, "lies outside"),
    "voxels": ({"voxels": [16, 10, 8]}, "do not fit"),
    "noise": ({"noise": "none.npy"}, "there is no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_headers_refused_in_words(name, tmp_path):
    changes, words = BAD[name]
    path = put(tmp_path / "a.npy", kspace(), **(changes or {}))
    if changes is None:
        path.with_suffix(".toml").unlink()
    with pytest.raises(ValueError, match=words):
        open_raw(path)


def test_arrays_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match="holds float64"):
        open_raw(put(tmp_path / "a.npy", np.ones((2, 3, *SHAPE))))
    bad = kspace()
    bad[0, 0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        list(open_raw(put(tmp_path / "b.npy", bad)).lines(0))
    path = put(tmp_path / "c.npy", kspace())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short or damaged"):
        open_raw(path)
    path = put(tmp_path / "d.h5", kspace())
    path.with_suffix(".toml").write_text("data = 'x'\n" + path.with_suffix(".toml").read_text())
    with pytest.raises(ValueError, match="has no data set 'x' but"):
        open_raw(path)


def test_told_apart_by_content(tmp_path):
    """Names may lie."""
    raw = raw_of(IMAGES[:, 0], smooth_maps(2, SHAPE), Plan(), (0.004, 0.012))
    twix = written(tmp_path / "a.dat", case())
    rd = ismrmrd.write(raw, tmp_path / "b.h5")
    for path in (twix, rd):
        other = shutil.copy(path, tmp_path / f"{path.stem}.raw")
        assert open_raw(other).grid == open_raw(path).grid
        assert is_raw(other)
    assert open_raw(twix).facts["Manufacturer"] == "Siemens"
    assert not is_raw(tmp_path)


FOREIGN = {
    "empty": (b"", "the file is empty"),
    "text": (b"hello " * 100, "no raw data that is known; supported are Siemens"),
    "dicom": (bytes(128) + b"DICM" + bytes(200), "DICOM"),
    "zip": (b"PK\x03\x04" + bytes(99), "zip archive"),
    "nifti": (gzip.compress(bytes(400)), "unpack it first"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "cut short or damaged"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_no_raw_data(name, tmp_path):
    data, words = FOREIGN[name]
    path = tmp_path / "a.dat"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words):
        open_raw(path)


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        open_raw(tmp_path / "a.dat")
    with pytest.raises(ValueError, match="is a folder"):
        open_raw(tmp_path)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match=r"without a\.toml"):
        open_raw(tmp_path / "a.h5")


@pytest.mark.shared
@pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data")
def test_real_undersampled_brain(tmp_path):
    """Eight coils, an eighth of k-space: the centre is there, the density is as told, an object appears."""
    shutil.copy(DATA, tmp_path / "a.npy")
    header = "te_s = [0.01]\nb0_tesla = 3.0\nvoxel_mm = [1.0, 1.0, 5.0]\n"
    header += 'axes = ["coil", "x", "y"]\nslices = true\n'
    (tmp_path / "a.toml").write_text(header)
    raw = open_raw(tmp_path / "a.npy")
    assert raw.coils == 8
    assert raw.grid.shape == (230, 180, 1)
    image = ifft(Assemble()(raw, 0).data[0])[..., 0].abs().square().sum(0).sqrt()
    assert image[60:170, 50:130].mean() > 2 * image[:20, :20].mean()
