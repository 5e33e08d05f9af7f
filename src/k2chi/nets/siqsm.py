"""SI-QSM: two branches for field and mask, residual blocks that keep their input, dilated kernels."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from k2chi.nets.given import Answer, Given
from k2chi.nets.running import Run, at_once
from k2chi.ops.fourier import crop_to, pad_to

SLOPE = 0.3
DIVISOR = 16


@dataclass(frozen=True)
class SIQSMConfig:
    """The scale-invariant network as released: 23.35 million parameters at `width` 32."""

    refine: ClassVar[int] = 8
    """Steps on the data that its maps want."""
    most_voxels: ClassVar[int] = 12_000_000
    """Larger volumes go through its layers in slabs; some 1.7 kB each."""

    width: int = 32
    """Features of the first level; the others are 2, 4, 8 and 16 times as wide."""

    def build(self) -> "SIQSM":
        """The network with fresh weights."""
        return SIQSM(self)


class Affine(nn.Module):
    """Scale and shift for each channel: what the released batch normalisation does, whose statistics
    were never updated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "n c x y z"]) -> Float[Tensor, "n c x y z"]:
        scale, shift = (p[:, None, None, None] for p in (self.scale, self.shift))
        return torch.addcmul(shift, x, scale)  # in one step: at full size a copy of all channels is gigabytes


def _same(inside: int, out: int, dilation: int = 1) -> nn.Conv3d:
    return nn.Conv3d(inside, out, 3, padding=dilation, dilation=dilation)


def _half(inside: int, out: int) -> nn.Conv3d:
    return nn.Conv3d(inside, out, 3, stride=2, padding=1)


def _point(inside: int, out: int) -> nn.Conv3d:
    return nn.Conv3d(inside, out, 1)


class Residual(nn.Module):
    """Adds `f`/2 channels to those that come in."""

    def __init__(self, inside: int, f: int) -> None:
        super().__init__()
        self.path = nn.Sequential(_same(inside, f), nn.LeakyReLU(SLOPE, inplace=True), _point(f, f // 2))
        self.affine = Affine(inside + f // 2)

    def forward(self, x: Float[Tensor, "n c x y z"]) -> Float[Tensor, "n d x y z"]:
        out: Tensor = self.affine(torch.cat([self.path(x), x], 1))
        return out


class Down(nn.Module):
    """Halves the size along two paths, one of which looks wider before; 3/4 of `f` channels come out."""

    def __init__(self, inside: int, f: int) -> None:
        super().__init__()
        self.near = _chain(_half(inside, f), _point(f, f // 2))
        self.wide = _chain(
            _same(inside, f // 2, dilation=2), _point(f // 2, f // 4), _half(f // 4, f // 2),
            _point(f // 2, f // 4),
        )  # fmt: skip
        self.affine = Affine(f // 2 + f // 4)

    def forward(self, x: Float[Tensor, "n c x y z"]) -> Float[Tensor, "n d u v w"]:
        out: Tensor = self.affine(torch.cat([self.near(x), self.wide(x)], 1))
        return out


def _chain(*layers: nn.Module) -> nn.Sequential:
    """Layers, each with a leaky rectifier behind it."""
    return nn.Sequential(*(m for layer in layers for m in (layer, nn.LeakyReLU(SLOPE, inplace=True))))


class SIQSM(nn.Module):
    """Field [ppm] and mask to χ [ppm]. Nothing is normalised: the field's own scale is what it was taught."""

    axial = True
    factor, reach = DIVISOR, 4 * DIVISOR

    def __init__(self, config: SIQSMConfig) -> None:
        super().__init__()
        w = config.width
        self.phase, self.mask = (nn.Sequential(Residual(1, w), Residual(1 + w // 2, w)) for _ in range(2))
        levels = [2 * w, 4 * w, 8 * w]
        channels = [1 + w]  # what the phase branch hands across at the top
        inside = 2 * (1 + w)
        self.down, self.deepen = nn.ModuleList(), nn.ModuleList()
        for f in levels:
            self.down.append(Down(inside, f))
            inside = f // 2 + f // 4 + f // 2
            self.deepen.append(Residual(f // 2 + f // 4, f))
            channels.append(inside)
        self.bottom = Down(inside, 16 * w)
        inside = 12 * w
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        for f, skip in zip([8 * w, 4 * w, 2 * w, w], reversed(channels), strict=True):
            self.up.append(nn.ConvTranspose3d(inside, f, 3, stride=2, padding=1, output_padding=1))
            self.merge.append(Residual(f + skip, f))
            inside = f + skip + f // 2
        self.head = nn.Sequential(
            _same(inside, w // 2), _point(w // 2, w // 4), _same(w // 4, w // 4), Affine(w // 4),
            _point(w // 4, 1),
        )  # fmt: skip

    def forward(
        self, field: Float[Tensor, "n x y z"], mask: Float[Tensor, "n x y z"]
    ) -> Float[Tensor, "n x y z"]:
        """χ of fields whose size is a multiple of 16."""
        if any(n % DIVISOR for n in field.shape[-3:]):
            raise ValueError(f"SI-QSM needs sizes that divide by {DIVISOR}, not {tuple(field.shape[-3:])}")
        across = [self.phase(field[:, None])]  # the only one to hold it, so that it is freed when used up
        x = torch.cat([across[0], self.mask(mask[:, None])], 1)
        for down, deepen in zip(self.down, self.deepen, strict=True):
            x = deepen(down(x))
            across.append(x)
        x = self.bottom(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), across.pop()], 1))
        out: Tensor = self.head(x)[:, 0]
        return out

    def invert(self, given: Given, run: Run = at_once) -> Answer:
        """Pad to a multiple of 16, apply, crop."""
        x, y, z = given.field.shape[-3:]
        size = tuple(-(-n // DIVISOR) * DIVISOR for n in (x, y, z))
        wide = (size[0], size[1], size[2])
        chi = run(self, pad_to(given.field, wide), pad_to(given.support, wide))
        return Answer(crop_to(chi, (x, y, z)) * given.support)
