"""Weights that come with the package, or in a file: read, checked, and told apart from what they are not."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from k2chi.data import Vector
from k2chi.nets.adaptivetv import AdaptiveTVConfig
from k2chi.nets.record import from_record, to_record
from k2chi.nets.siqsm import SIQSMConfig
from k2chi.nets.unet import UNetConfig
from k2chi.nets.unrolled import UnrolledConfig

CONFIGS = (AdaptiveTVConfig, SIQSMConfig, UNetConfig, UnrolledConfig)
PART_BYTES = 15 * 2**20
"""Largest weights file; larger ones are cut."""
Storage = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class Card:
    """What one should know of trained weights."""

    name: str
    network: AdaptiveTVConfig | SIQSMConfig | UNetConfig | UnrolledConfig
    takes: Literal["local", "total"]
    """The field it turns into χ."""
    voxel_mm: tuple[float, float]
    """Range of voxel edges that it learned from [mm]."""
    anisotropy: float
    """Largest ratio of a voxel's edges that it learned from."""
    data: str
    """What it learned from."""
    steps: int
    """Updates of its weights."""
    hours: float
    """How long it learned [h]."""
    device: str
    """What it learned on."""
    errors: str
    """Errors that were measured, and on what."""
    limits: str
    """Where it should not be used."""
    spread_scale: float = 1.0
    """Factor that makes stated spreads standard deviations: 1.645 of them held 90 % of errors."""
    noise_gain: float = 0.0
    """How many ppm of the map one ppm of noise in the field becomes, which stated spreads do not count."""

    def sd(
        self, spread: Float[Tensor, "*n x y z"], noise_ppm: Float[Tensor, "*n x y z"] | None
    ) -> Float[Tensor, "*n x y z"]:
        """Standard deviation of the error [ppm], from a network's spread and the field's noise if known."""
        out = self.spread_scale * spread
        if noise_ppm is None:
            return out
        return torch.hypot(out, self.noise_gain * noise_ppm.nan_to_num(0.0, 0.0, 0.0))

    def markdown(self) -> str:
        """The card as a page."""
        low, high = self.voxel_mm
        rows = {
            "takes": f"{self.takes} field",
            "voxel edges": f"{low:g} to {high:g} mm, ratio up to {self.anisotropy:g}",
            "network": str(self.network),
            "data": self.data,
            "training": f"{self.steps} steps, {self.hours:.2f} h on {self.device}",
            "errors": self.errors,
            "limits": self.limits,
        }
        return f"# {self.name}\n\n" + "\n".join(f"- **{k}**: {v}" for k, v in rows.items()) + "\n"

    def warning(self, voxel_mm: Vector) -> str | None:
        """What to say of voxels that the network never saw; None if it knows such."""
        low, high = self.voxel_mm
        ratio = max(voxel_mm) / min(voxel_mm)
        far = min(voxel_mm) < 0.9 * low or max(voxel_mm) > 1.1 * high
        if not far and ratio <= 1.1 * self.anisotropy:
            return None
        size = " × ".join(f"{v:.3g}" for v in voxel_mm)
        return (
            f"voxels of {size} mm lie outside what the network {self.name} learned from, which is {low:g} to "
            f"{high:g} mm with edges in a ratio of up to {self.anisotropy:g}: compare with another method"
        )


@dataclass(frozen=True, eq=False)
class Trained:
    """A network with its weights, ready to use."""

    card: Card
    network: nn.Module


def _folder() -> Path:
    return Path(str(files("k2chi.nets"))) / "shipped"


def shipped() -> dict[str, tuple[str, ...]]:
    """Names of the weights in the package, with the sha256 of each of their files."""
    index = _folder() / "index.json"
    if not index.is_file():
        return {}
    table = json.loads(index.read_text(encoding="utf-8"))
    return {name: tuple(shas) for name, shas in table.items()}


def parts(path: Path) -> list[Path]:
    """The files of weights that may have been cut: NAME.safetensors, NAME-2.safetensors, …"""
    found, n = [path], 2
    while (more := path.with_name(f"{path.stem}-{n}{path.suffix}")).is_file():
        found.append(more)
        n += 1
    return found


@lru_cache(maxsize=2)
def trained(weights: str, device: torch.device | str = "cpu") -> Trained:
    """The network named `weights`, or of that file. ValueError if it is not there or not whole."""
    known = shipped()
    if weights in known:
        path = _folder() / f"{weights}.safetensors"
        _check(path, known[weights])
    else:
        path = Path(weights)
        if not path.is_file():
            names = ", ".join(known) or "none"
            raise ValueError(
                f"no weights {weights!r}: the package has {names}; or give a .safetensors file, which "
                "`k2chi train NAME` makes"
            )
    return read(path, device)


def _check(path: Path, expected: Iterable[str]) -> None:
    for part, sha in zip(parts(path), expected, strict=True):
        if not part.is_file():
            raise ValueError(f"the package's weights {part.name} are missing: install k2chi again")
        if hashlib.sha256(part.read_bytes()).hexdigest() != sha:
            raise ValueError(f"{part} is not what was shipped (sha256 differs): install k2chi again")


def read(path: Path, device: torch.device | str = "cpu") -> Trained:
    """Weights of a file, and of its further parts."""
    told: dict[str, str] = {}
    stored: dict[str, Tensor] = {}
    try:
        for part in parts(path):
            with safe_open(part, framework="pt") as file:
                told |= file.metadata() or {}
                stored |= {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as weights ({error})") from error
    if "card" not in told:
        raise ValueError(f"{path} tells no model card, so it is not known what network it is for")
    card = _card(json.loads(told["card"]))
    network = card.network.build()
    try:
        network.load_state_dict(_unpacked(stored))
    except RuntimeError as error:
        short = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not fit the network its card names ({short})") from error
    network.to(device, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
    return Trained(card, network.requires_grad_(False))


def _card(table: dict[str, Any]) -> Card:
    unknown = set(table) - {f.name for f in fields(Card)}
    if unknown:
        raise ValueError(f"the model card has unknown entries {', '.join(sorted(unknown))}")
    low, high = table["voxel_mm"]
    network = from_record(table["network"], CONFIGS)
    return Card(**{**table, "network": network, "voxel_mm": (low, high)})


def write(card: Card, weights: Mapping[str, Tensor], path: Path, storage: Storage = "float32") -> list[Path]:
    """Store weights with their card, cut into files of at most 15 MiB."""
    packed = _packed(weights, storage)
    groups: list[dict[str, Tensor]] = [{}]
    for name, t in packed.items():
        size = sum(x.numel() * x.element_size() for x in groups[-1].values())
        if groups[-1] and size + t.numel() * t.element_size() > PART_BYTES:
            groups.append({})
        groups[-1][name] = t
    told = {"card": json.dumps({**asdict(card), "network": to_record(card.network)}, ensure_ascii=False)}
    made = []
    for i, group in enumerate(groups):
        part = path if i == 0 else path.with_name(f"{path.stem}-{i + 1}{path.suffix}")
        save_file(group, part, metadata=told)
        made.append(part)
    return made


def rounded(weights: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """The weights as they are after having been stored."""
    return _unpacked(_packed(weights, storage))


def _packed(weights: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Weights as stored: rounded to halves, or to 255 steps for each output channel of large ones."""
    out: dict[str, Tensor] = {}
    for name, t in weights.items():
        t = t.detach().cpu().contiguous()
        if storage == "int8" and t.ndim >= 2 and t.numel() > 1000:
            scale = t.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
            shape = [-1] + [1] * (t.ndim - 1)
            out[name] = (t / scale.reshape(shape)).round().to(torch.int8)
            out[f"{name}|scale"] = scale.contiguous()
        elif storage == "float16" and t.is_floating_point():
            out[name] = t.half()
        else:
            out[name] = t
    return out


def _unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for name, t in stored.items():
        if name.endswith("|scale"):
            continue
        scale = stored.get(f"{name}|scale")
        if scale is not None:
            t = t.float() * scale.reshape([-1] + [1] * (t.ndim - 1))
        out[name] = t.float() if t.is_floating_point() else t
    return out
