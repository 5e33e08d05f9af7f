"""A small 3D network that corrects a map: two or more resolutions, told of the geometry by shifts."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from k2chi.ops.fourier import crop_to, pad_to


def even(x: Float[Tensor, "n c x y z"]) -> Float[Tensor, "n c x y z"]:
    """Channels over their root mean square in each voxel.

    Without it a residual network's activations grow while it learns, until the last rectifier is zero
    everywhere and what it says is a constant.
    """
    out: Tensor = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-4)
    return out


class Block(nn.Module):
    """x + conv(act(conv(even(x)) + shift)), the shift linear in what the block is told."""

    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels, channels, 3, padding=1)
        self.second = nn.Conv3d(channels, channels, 3, padding=1)
        self.shift = nn.Linear(told, channels)
        self.act = nn.SiLU()

    def forward(self, x: Float[Tensor, "n c x y z"], told: Float[Tensor, " t"]) -> Float[Tensor, "n c x y z"]:
        out: Tensor = x + self.second(self.act(self.first(even(x)) + self.shift(told)[:, None, None, None]))
        return out


class Level(nn.ModuleList):
    """Blocks in a row."""

    def __init__(self, channels: int, depth: int, told: int) -> None:
        super().__init__(Block(channels, told) for _ in range(depth))

    def forward(self, x: Float[Tensor, "n c x y z"], told: Float[Tensor, " t"]) -> Float[Tensor, "n c x y z"]:
        for block in self:
            x = block(x, told)
        return x


class Regulariser(nn.Module):
    """Down and up again with skips that add. Its last layer starts at zero: at first it changes nothing."""

    def __init__(self, inside: int, out: int, widths: tuple[int, ...], depth: int, told: int) -> None:
        super().__init__()
        w = list(widths)
        self.factor = 2 ** (len(w) - 1)
        between = sum(2**i * 2 for i in range(1, len(w) - 1)) + sum(
            2**i * 2 * depth for i in range(1, len(w))
        )
        self.reach = (-(-(3 + between) // self.factor) + 1) * self.factor
        self.first = nn.Conv3d(inside, w[0], 3, padding=1)
        self.tell = nn.Linear(told, w[0])
        self.down = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in itertools.pairwise(w))
        self.blocks = nn.ModuleList(Level(b, depth, told) for b in w[1:])
        self.up = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, stride=2) for a, b in itertools.pairwise(w))
        self.after = nn.ModuleList(Block(a, told) for a in w[1:-1])
        self.join = nn.Conv3d(w[0], w[0], 3, padding=1)
        self.last = nn.Conv3d(w[0], out, 3, padding=1)
        self.act = nn.SiLU()
        for p in self.last.parameters():
            nn.init.zeros_(p)

    def forward(self, x: Float[Tensor, "n c x y z"], told: Float[Tensor, " t"]) -> Float[Tensor, "n d x y z"]:
        a, b, c = (int(n) for n in x.shape[-3:])  # numbers also while OpenVINO traces
        u, v, w = (-(-n // self.factor) * self.factor for n in (a, b, c))
        x = pad_to(x, (u, v, w))
        x = self.act(self.first(x) + self.tell(told)[:, None, None, None])
        skips = [x]
        for down, level in zip(self.down, self.blocks, strict=True):
            x = level(down(x), told)
            skips.append(x)
        skips.pop()
        after = [nn.Identity(), *self.after]
        for i in reversed(range(len(self.up))):
            x = self.up[i](x) + skips[i]
            if i:
                x = after[i](x, told)
        out: Tensor = self.last(self.act(self.join(even(x))))
        return crop_to(out, (a, b, c))
