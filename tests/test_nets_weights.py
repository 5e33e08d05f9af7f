"""Weights: stored and read back, checked, and refused where they do not belong."""

import re
from dataclasses import replace

import pytest
import torch

from k2chi.nets import SIQSMConfig, UnrolledConfig, weights
from k2chi.nets.running import ByOpenVINO, InSlabs, at_once
from k2chi.nets.weights import Card, parts, read, trained, write

CONFIG = UnrolledConfig(2, (4, 6, 8), 1)
CARD = Card("mine", CONFIG, "local", (0.4, 2.5), 4.0, "cubes", 10, 0.1, "cpu", "none", "none", 1.3)


def noisy(config):
    torch.manual_seed(0)
    network = config.build()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return network


@pytest.mark.parametrize(("storage", "atol"), [("float32", 0.0), ("float16", 1e-3), ("int8", 3e-3)])
def test_what_is_written_is_read(tmp_path, storage, atol):
    network = noisy(CONFIG)
    write(CARD, network.state_dict(), tmp_path / "a.safetensors", storage)
    got = read(tmp_path / "a.safetensors")
    assert got.card == CARD
    for key, value in network.state_dict().items():
        torch.testing.assert_close(got.network.state_dict()[key], value, rtol=0, atol=atol)


def test_large_weights_are_cut_and_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PART_BYTES", 3000)
    network = noisy(CONFIG)
    made = write(CARD, network.state_dict(), tmp_path / "a.safetensors")
    assert len(made) > 2
    assert parts(tmp_path / "a.safetensors") == made
    got = read(tmp_path / "a.safetensors").network.state_dict()
    assert all(torch.equal(got[k], v) for k, v in network.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path):
    write(CARD, SIQSMConfig(4).build().state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="does not fit the network"):
        read(tmp_path / "a.safetensors")
    wide = replace(CARD, network=UnrolledConfig(2, (8, 6, 8), 1))  # channels differ
    write(wide, noisy(CONFIG).state_dict(), tmp_path / "b.safetensors")
    words = (
        "b.safetensors does not fit the network its card names (Error(s) in loading state_dict for Unrolled: "
        "size mismatch"
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        read(tmp_path / "b.safetensors")


def test_missing_damaged_and_strange_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no weights 'nothing'"):
        trained("nothing")
    (tmp_path / "c.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        read(tmp_path / "c.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="no model card"):
        read(tmp_path / "d.safetensors")
    write(CARD, noisy(CONFIG).state_dict(), tmp_path / "mine.safetensors")
    monkeypatch.setattr(weights, "_folder", lambda: tmp_path)
    monkeypatch.setattr(weights, "shipped", lambda: {"mine": ("0" * 64,), "gone": ("0" * 64,)})
    weights.trained.cache_clear()
    mine = tmp_path / "mine.safetensors"
    words = f"{mine} is not what was shipped (sha256 differs): install k2chi again"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        trained("mine")
    words = "the package's weights gone.safetensors are missing: install k2chi again"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        trained("gone")


def test_voxels_outside_the_training_range_are_named():
    assert CARD.warning((1.0, 1.0, 2.0)) is None
    assert "0.4 to 2.5 mm" in CARD.warning((1.0, 1.0, 5.0))
    assert "ratio of up to 4" in CARD.warning((0.5, 0.5, 2.4))
    assert "takes" in CARD.markdown()


def test_slabs_give_the_same_numbers():
    """The reach a regulariser states is the true one; a smaller one would show."""
    layers = noisy(CONFIG).regularisers[0].eval()
    x, told = torch.randn(1, 4, 120, 6, 5), torch.randn(11)
    with torch.no_grad():
        whole = at_once(layers, x, told)
        slabs = InSlabs(2500)(layers, x, told)
        torch.testing.assert_close(slabs, whole, atol=1e-5, rtol=1e-4)
        layers.reach = 4
        assert float((InSlabs(1000)(layers, x, told) - whole).abs().max()) > 1e-4


def test_openvino_gives_the_same_numbers():
    pytest.importorskip("openvino")
    layers = noisy(CONFIG).regularisers[0].eval()
    x, told = torch.randn(1, 4, 12, 10, 9), torch.randn(11)
    with torch.no_grad():
        torch.testing.assert_close(ByOpenVINO()(layers, x, told), layers(x, told), atol=1e-5, rtol=1e-4)


def test_every_shipped_weight_can_be_read():
    """And all of them together are small."""
    size = 0
    for name in weights.shipped():
        got = trained(name)
        assert got.card.name == name
        path = weights._folder() / f"{name}.safetensors"
        assert (path.with_suffix(".md")).read_text() == got.card.markdown()
        size += sum(p.stat().st_size for p in parts(path))
    assert size < 40e6
