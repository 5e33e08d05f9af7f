"""U-Nets that map field to χ directly: DeepQSM and QSMnet+."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv3d

from k2chi.nets.given import Answer, Given
from k2chi.nets.running import Run, at_once
from k2chi.ops.fourier import crop_to, pad_to


@dataclass(frozen=True)
class UNetConfig:
    """Contract and expand: two convolutions a level, channels doubled at each, skips that concatenate."""

    refine: ClassVar[int] = 8
    """Steps on the data that its maps want."""
    most_voxels: ClassVar[int] = 30_000_000
    """Larger volumes go through its layers in slabs; some 0.6 kB each."""

    width: int = 16
    """Channels of the first level."""
    levels: int = 5
    """Resolutions, the finest included."""
    kernel: int = 3
    """Edge of each convolution [voxels]."""
    normalise: bool = False
    """Batch normalisation behind every convolution."""
    unit_ppm: float = 1.0
    """The field is divided by this and χ multiplied by it [ppm]: what size the layers see."""

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0 or self.levels < 2 or self.width < 1 or self.unit_ppm <= 0:
            raise ValueError("a U-Net needs an odd kernel, two levels, a width and a positive unit")

    def build(self) -> "UNet":
        """The network with fresh weights."""
        return UNet(self)


DEEPQSM = UNetConfig(unit_ppm=0.03)
"""DeepQSM, Bollmann et al. 2019, NeuroImage 195:373, doi:10.1016/j.neuroimage.2019.03.060: cubic kernels of 3
and no normalisation. The paper's widths are not known to us; these are ours."""
QSMNET = UNetConfig(width=32, kernel=5, normalise=True, unit_ppm=0.03)
"""QSMnet, Yoon et al. 2018, NeuroImage 179:199, doi:10.1016/j.neuroimage.2018.06.030: kernels of 5, 32 to
512 channels, 99.4 million parameters. QSMnet+ (Jung et al. 2020, NeuroImage 211:116619,
doi:10.1016/j.neuroimage.2020.116619) is the same network taught on scaled copies as well."""


class Convolution(nn.Conv3d):
    """A convolution that keeps the size; in small volumes, without the weights that meet only zeros."""

    def __init__(self, inside: int, out: int, kernel: int, bias: bool) -> None:
        super().__init__(inside, out, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Float[Tensor, "n c x y z"]) -> Float[Tensor, "n d x y z"]:
        room = self.kernel_size[0] // 2
        used = min(room, max(x.shape[-3:]) - 1)
        near = slice(room - used, room + used + 1)
        return conv3d(x, self.weight[:, :, near, near, near], self.bias, padding=used)


class UNet(nn.Module):
    """Field alone to χ, zero outside the support."""

    axial = True

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.factor = 2 ** (config.levels - 1)
        self.reach = 4 * self.factor
        widths = [config.width * 2**i for i in range(config.levels)]
        self.down = nn.ModuleList()
        inside = 1
        for w in widths:
            self.down.append(self._pair(inside, w))
            inside = w
        self.pool = nn.MaxPool3d(2)
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        for w in reversed(widths[:-1]):
            self.up.append(nn.ConvTranspose3d(2 * w, w, 2, stride=2))
            self.merge.append(self._pair(2 * w, w))
        self.last = nn.Conv3d(config.width, 1, 1)

    def _pair(self, inside: int, out: int) -> nn.Sequential:
        k = self.config.kernel
        layers: list[nn.Module] = []
        for a in (inside, out):
            layers.append(Convolution(a, out, k, bias=not self.config.normalise))
            if self.config.normalise:
                layers.append(nn.BatchNorm3d(out))
            layers.append(nn.LeakyReLU(0.1))
        return nn.Sequential(*layers)

    def forward(
        self, field: Float[Tensor, "n x y z"], support: Float[Tensor, "n x y z"]
    ) -> Float[Tensor, "n x y z"]:
        """χ of fields whose size divides by 2 to the power of levels − 1; the support is not looked at."""
        factor = self.factor
        if any(n % factor for n in field.shape[-3:]):
            raise ValueError(f"this U-Net needs sizes that divide by {factor}, not {tuple(field.shape[-3:])}")
        x, across = field[:, None] / self.config.unit_ppm, []
        for i, level in enumerate(self.down):
            x = self._through(level, self.pool(x) if i else x)
            across.append(x)
        across.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = self._through(merge, torch.cat([up(x), across.pop()], 1))
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.last(x.float())[:, 0] * self.config.unit_ppm
        return out

    def _through(self, level: nn.Module, x: Float[Tensor, "n c x y z"]) -> Float[Tensor, "n d x y z"]:
        """The level; in single precision where a CPU's half-precision gradients are wrong: torch 2.13 leaves
        them unset, often infinite, for kernels wider than the volume. So does the last level of a network
        that is used, not taught: half precision would show in χ."""
        wrong = x.is_cpu and min(x.shape[-3:]) < self.config.kernel
        if wrong or (level is self.merge[-1] and not torch.is_grad_enabled()):
            with torch.autocast(x.device.type, enabled=False):
                out: Tensor = level(x.float())
        else:
            out = level(x)
        return out

    def invert(self, given: Given, run: Run = at_once) -> Answer:
        """Pad to a size that divides, apply, crop."""
        x, y, z = given.field.shape[-3:]
        a, b, c = (-(-n // self.factor) * self.factor for n in (x, y, z))
        chi = run(self, pad_to(given.field, (a, b, c)), pad_to(given.support, (a, b, c)))
        return Answer(crop_to(chi, (x, y, z)) * given.support)
