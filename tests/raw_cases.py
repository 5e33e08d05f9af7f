"""Simulated readouts of a known image: Cartesian and EPI, with errors whose size is known."""

from dataclasses import dataclass, replace

import torch

from k2chi.data import Encoding, Grid, Lines, Raw, Scan

SHAPE = (24, 20, 10)


def picture(shape=SHAPE, dtype=torch.complex128, wide=0.55):
    """An ellipsoid off the middle with a bright part and a smooth phase, zero at the border.

    `wide` is its share of the field of view along y: above a half, it overlaps with its Nyquist ghost.
    """
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape], indexing="ij")
    inside = (x / 0.7) ** 2 + ((y - 0.05) / wide) ** 2 + (z / 0.7) ** 2 < 1
    bright = (x - 0.2) ** 2 + (y + 0.1) ** 2 + z**2 < 0.1
    phase = 0.8 * x - 0.5 * y + 0.7 * x * y + 0.4 * z
    return (inside * (1 + 0.7 * bright) * torch.exp(1j * phase)).to(dtype)


def smooth_maps(coils, shape=SHAPE, dtype=torch.complex128):
    """Maps of `coils` receivers around the object: hills with slowly turning phase."""
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape], indexing="ij")
    maps = []
    for c in range(coils):
        a = torch.tensor(2 * torch.pi * c / coils, dtype=torch.float64)
        u, v = x - 1.2 * torch.cos(a), y - 1.2 * torch.sin(a)
        maps.append(torch.exp(-(u**2 + v**2 + 0.3 * (z - 0.5 * (c % 3 - 1)) ** 2) / 3 + 1j * (u - v + c)))
    return torch.stack(maps).to(dtype)


@dataclass(frozen=True)
class Plan:
    """How a scan is taken, and what goes wrong in it."""

    oversampling: float = 2.0
    skip: tuple = (0, 0, 0)
    """Points left out before the centre of k-space: samples of the readout, first, second encoding."""
    position: tuple = ()
    """Places of the samples, for ramp sampling."""
    slices: bool = False
    keep: object = None
    """Which places of the grid of k-space (ky, kz), scanner order, are read; None: all."""
    shots: int = 0
    """Interleaved EPI shots for each kz; 0: one readout after each excitation, never reversed."""
    averages: int = 1
    alternate: bool = False
    """Every other average starts with the other readout polarity."""
    ghost: tuple = (0.0, 0.0)
    """Phase of reversed against forward readouts: offset [rad], slope [rad/voxel]."""
    shot_rad: float = 0.0
    """Standard deviation of a phase of each shot."""
    drift_hz: float = 0.0
    """Field drift over the whole scan."""
    off_hz: float = 0.0
    """Field offset: phase that grows through an EPI train; none at the centre of k-space."""
    noise: float = 0.0
    navigators: bool = True
    reference: tuple = (0, 0)
    """Size of a reference scan (ky, kz) of its own; zeros: none."""
    tr_s: float = 0.05
    spacing_s: float = 0.001
    block: int = 37
    seed: int = 0


def raw_of(images, maps, plan=Plan(), te_s=(0.02,), grid=None):
    """The `Raw` of images (echo, x, y, z) seen by coils of `maps` (coil, x, y, z), by `plan`."""
    scan = _Scan(images, maps, plan, te_s)
    return Raw(
        grid or Grid.of(tuple(maps.shape[1:])),
        Scan(tuple(te_s), 3.0),
        scan.encoding,
        len(maps),
        scan.lines,
        scan.navigators if plan.shots and plan.navigators else None,
        scan.reference if plan.reference[0] else None,
        scan.noise,
    )


class _Scan:
    """The readouts of a plan, worked out when they are asked for."""

    def __init__(self, images, maps, plan, te_s):
        self.images, self.maps, self.plan, self.te_s = images, maps, plan, te_s
        nx, ny, nz = maps.shape[1:]
        self.wide = wide = round(nx * plan.oversampling)
        sx, sy, sz = plan.skip
        matrix = (nx if not sx else -(-(wide - sx) * nx // wide), ny - sy, nz if plan.slices else nz - sz)
        centre = (matrix[0] - (nx - nx // 2), ny // 2 - sy, nz // 2 if plan.slices else nz // 2 - sz)
        self.encoding = Encoding(
            matrix,
            centre,
            len(plan.position) or wide - sx,
            wide // 2 - sx,
            plan.oversampling,
            tuple(plan.position),
            plan.slices,
            train=matrix[1] // plan.shots if plan.shots else 1,
            spacing_s=plan.spacing_s if plan.shots else 0.0,
        )
        self.order = _order(plan, matrix, centre)
        generator = torch.Generator().manual_seed(plan.seed)
        self.errors = torch.randn(10**5, generator=generator, dtype=torch.float64) * plan.shot_rad
        hiss = torch.randn(len(maps), 4096, generator=generator, dtype=torch.complex128) * plan.noise
        self.noise = hiss.to(torch.complex64) if plan.noise else None

    def lines(self, echo):
        """All readouts, in blocks."""
        _, cy, cz = self.encoding.centre
        for start in range(0, len(self.order.ky), self.plan.block):
            part = self.order[start : start + self.plan.block]
            fz = part.kz if self.plan.slices else part.kz - cz
            yield replace(part, data=self._taken(echo, part, part.ky - cy, fz))

    def navigators(self, echo):
        """Three readouts (+ − +) before the first readout of every shot."""
        order, plan = self.order, self.plan
        first = torch.tensor([i for i in range(len(order.shot)) if _new(order, i)])
        part = order[first.repeat_interleave(3)]
        turn = torch.arange(3).repeat(len(first))
        begin = torch.floor(part.time_s / plan.tr_s) * plan.tr_s
        part = replace(
            part,
            ky=torch.full_like(part.ky, self.encoding.centre[1]),
            reverse=turn % 2 == 1,
            time_s=begin + plan.spacing_s * (turn + 1),
        )
        fz = part.kz if plan.slices else torch.zeros_like(part.kz)
        return replace(part, data=self._taken(echo, part, torch.zeros_like(part.ky), fz))

    def reference(self):
        """A small scan without errors, one readout an excitation."""
        ry, rz = self.plan.reference
        fy, fz = torch.meshgrid(torch.arange(ry) - ry // 2, torch.arange(rz) - rz // 2, indexing="ij")
        fy, fz, (_, cy, cz) = fy.flatten(), fz.flatten(), self.encoding.centre
        none = torch.zeros(len(fy), dtype=torch.int64)
        data = _transformed(self.images[0] * self.maps, fy, fz, False) @ self._readout().mT
        yield Lines(data.to(torch.complex64), fy + cy, fz + cz, none, none, none > 0, none.double())

    def _taken(self, echo, labels, fy, fz):
        """Samples at frequencies fy, fz (fz: index of the slice), with every error."""
        plan = self.plan
        k = _transformed(self.images[echo] * self.maps, fy, fz, plan.slices)
        x = torch.arange(k.shape[2], dtype=torch.float64) - k.shape[2] // 2
        sign = torch.where(labels.reverse, 0.5, -0.5).double()[:, None]
        k = k * torch.exp(1j * sign * (plan.ghost[0] + plan.ghost[1] * x))[:, None]
        since = labels.time_s - plan.tr_s * torch.floor(labels.time_s / plan.tr_s) - self.te_s[echo]
        length = max(float(self.order.time_s.max()), 1e-9)
        drift = plan.drift_hz * labels.time_s / length * self.te_s[echo]
        rad = self.errors[labels.shot + 1000 * labels.average]
        k = k * torch.exp(1j * (rad + 2 * torch.pi * (drift + plan.off_hz * since)))[:, None, None]
        s = k @ self._readout().mT
        s = torch.where(labels.reverse[:, None, None], s.flip(-1), s)
        hiss = torch.randn(s.shape, generator=torch.Generator().manual_seed(plan.seed + 1), dtype=s.dtype)
        return (s + plan.noise * hiss).to(torch.complex64)

    def _readout(self):
        """From the image along x to the samples of a forward readout."""
        n, wide = self.maps.shape[1], self.wide
        places = self.plan.position or range(-(wide // 2) + self.plan.skip[0], wide - wide // 2)
        x = torch.arange(n, dtype=torch.float64) - n // 2
        k = torch.tensor(places, dtype=torch.float64)
        return torch.exp(-2j * torch.pi * k[:, None] * x / wide) / wide**0.5


def _transformed(image, fy, fz, slices):
    """(line, coil, x): the image transformed along y and z at given frequencies, origins at n//2."""
    _, _, ny, nz = image.shape
    y, z = torch.arange(ny, dtype=torch.float64) - ny // 2, torch.arange(nz, dtype=torch.float64) - nz // 2
    ey = torch.exp(-2j * torch.pi * fy.double()[:, None] * y / ny) / ny**0.5
    if slices:
        return torch.einsum("lcxy,ly->lcx", image[..., fz].permute(3, 0, 1, 2), ey)
    ez = torch.exp(-2j * torch.pi * fz.double()[:, None] * z / nz) / nz**0.5
    return torch.einsum("cxyz,ly,lz->lcx", image, ey, ez)


def _order(plan, matrix, centre):
    """Labels of all readouts in the order in which they are taken."""
    rows = []
    _, my, mz = matrix
    shots, clock = plan.shots or my, 0
    assert my % shots == 0, "the shots must share the readouts evenly"
    train = my // shots
    for average in range(plan.averages):
        for kz in range(mz):
            for shot in range(shots):
                for turn in range(train):
                    ky = shot + turn * shots
                    if plan.keep is not None and not plan.keep[ky, kz]:
                        continue
                    reverse = bool(plan.shots) and (turn + (plan.alternate and average % 2)) % 2 == 1
                    after = 0.02 + plan.spacing_s * ((ky - centre[1]) / shots if plan.shots else 0)
                    rows.append((ky, kz, average, kz * shots + shot, reverse, clock * plan.tr_s + after))
                clock += 1
    ky, kz, average, shot, reverse, time = (torch.tensor(column) for column in zip(*rows, strict=True))
    none = torch.zeros(len(rows), 0, 0, dtype=torch.complex64)
    return Lines(none, ky, kz, average, shot, reverse, time.double())


def _new(order, i):
    return i == 0 or order.shot[i] != order.shot[i - 1] or order.average[i] != order.average[i - 1]


def trapezoid(samples, points, ramp=160.0, flat=240.0, delay=32.0, length=496.0):
    """Places of samples under a trapezoid [1/field of view of `points` pixels]; times in any unit."""
    t = delay + length * (torch.arange(samples, dtype=torch.float64) + 0.5) / samples
    fall = (t - ramp - flat).clamp(min=0)
    area = torch.where(t < ramp, t**2 / (2 * ramp), t - ramp / 2) - fall**2 / (2 * ramp)
    middle, step = (area[0] + area[-1]) / 2, (area[-1] - area[0]) / (samples - 1)
    return tuple(((area - middle) / step * points / samples).tolist())
