"""What fills a voxel: one pass over the grid that lays the large tissues over one another.

A voxel's centre is carried into the atlas, the distances to all surfaces are read there, and tissues cover
each other from the outside in, each with the share that a ramp as wide as the voxel gives it. Compiled,
because a head at 0.7 mm has twenty million voxels.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import njit

from k2chi.phantom.skull import SURFACES
from k2chi.phantom.warp import Volume
from k2chi.progress import track

LAYERS = (
    "air",
    "skin",
    "fat",
    "muscle",
    "bone",
    "marrow",
    "fat",
    "mucosa",
    "air sinus",
    "dura",
    "csf",
    "cortex",
    "white matter",
    "brainstem",
)
"""From the outside in; a later one covers the earlier ones. The second fat is that of the orbits."""

_SKIN, _SOFT, _BONE, _MARROW, _INNER, _AIR, _ORBIT, _HULL, _CORD = range(9)
_LATERAL, _THIRD, _FOURTH, _CEREBELLUM, _STEM, _DEEP, _TRACT = range(9, 16)
assert SURFACES.index("cord") == _CORD
assert SURFACES.index("tract") == _TRACT


@njit(cache=True, nogil=True)
def _read(volume, origin, step, x, y, z, out):  # type: ignore[no-untyped-def]
    """Linear interpolation of all channels of `volume` (x, y, z, channel); the edge's value beyond it."""
    nx, ny, nz, nc = volume.shape
    u = min(max((x - origin[0]) / step, 0.0), nx - 1.001)
    v = min(max((y - origin[1]) / step, 0.0), ny - 1.001)
    w = min(max((z - origin[2]) / step, 0.0), nz - 1.001)
    i, j, k = int(u), int(v), int(w)
    u, v, w = u - i, v - j, w - k
    c00, c01 = (1 - u) * (1 - v), (1 - u) * v
    c10, c11 = u * (1 - v), u * v
    for c in range(nc):
        low = (
            c00 * volume[i, j, k, c]
            + c01 * volume[i, j + 1, k, c]
            + c10 * volume[i + 1, j, k, c]
            + c11 * volume[i + 1, j + 1, k, c]
        )
        high = (
            c00 * volume[i, j, k + 1, c]
            + c01 * volume[i, j + 1, k + 1, c]
            + c10 * volume[i + 1, j, k + 1, c]
            + c11 * volume[i + 1, j + 1, k + 1, c]
        )
        out[c] = (1 - w) * low + w * high


@njit(cache=True, nogil=True)
def _ramp(distance, edge):  # type: ignore[no-untyped-def]
    return min(max(0.5 + distance / edge, 0.0), 1.0)


@njit(cache=True, nogil=True)
def _outside(d, rough, x, y, z, e, share):  # type: ignore[no-untyped-def]
    """Shares of what lies outside the brain's space."""
    air = d[_AIR]
    ax = abs(x)
    mastoid = ax > 47 and y < -28
    ethmoid = ax < 16 and y > 28 and -50 < z < -26
    if mastoid or ethmoid:  # walls between the cells
        air = min(air, 2.6 - 1.6 * abs(np.cos(0.72 * x) + np.cos(0.72 * y) + np.cos(0.72 * z)))
    if not (y > 84 and z < -40) and not ax > 74:  # only nostrils and ear canals open to the outside
        air = min(air, d[_SKIN] - 6.0)
    share[1] = _ramp(d[_SKIN], e)
    share[2] = _ramp(d[_SKIN] - 1.8, e)
    share[3] = _ramp(d[_SOFT] + 0.6 * rough, e) * (0.65 if rough > 1.2 else 1.0)
    share[4] = _ramp(d[_BONE], e)
    share[5] = 0.9 * _ramp(d[_MARROW] + 0.5 * rough, e)
    share[6] = _ramp(d[_ORBIT], e)
    share[7] = _ramp(air + 1.2, e) * _ramp(d[_SOFT], 2.0)
    share[8] = _ramp(air, e)
    share[9] = _ramp(d[_INNER] + 0.4, e)


@njit(cache=True, nogil=True)
def _inside(d, grey, white, z, e, share):  # type: ignore[no-untyped-def]
    """Shares of CSF, cortex, white matter and brainstem."""
    fluid = max(1 - grey - white, 0.0)
    g, w, f = grey**4, white**4, fluid**4  # crisp edges from the template's blurred shares
    total = max(g + w + f, 1e-9)
    g, w = g / total, w / total
    deep = 0.85 * _ramp(d[_DEEP], 4.0)  # what no nucleus claims there is white matter
    g, w = g * (1 - deep), w + g * deep
    stem = _ramp(d[_STEM], 2.0)
    both = (g + w) * stem
    if z < -62:
        both = max(both, _ramp(d[_CORD], e))
    g, w = g * (1 - stem), w * (1 - stem)
    room = _ramp(d[_INNER] - 0.8, e)
    share[10] = _ramp(d[_INNER] - 0.4, e)
    share[11] = min(g / max(1 - w - both, 1e-6), 1.0) * room
    share[12] = min(w / max(1 - both, 1e-6), 1.0) * room
    share[13] = both * room


@njit(cache=True, nogil=True)
def _fill(start, stop, place, atlas, tissues, by, out):  # type: ignore[no-untyped-def]
    """Fill the planes `start` to `stop`; the tuples are those of `fill`."""
    affine, matrix, centre = place
    (shift, outer, tissue, fine, coarse, nuclei), origins, steps = atlas
    rows, numbers, special = tissues
    maps, labels, most, brain = out
    count, kinds = 14, nuclei.shape[3]
    e = 0.0
    for a in range(3):
        e += np.sqrt(affine[0, a] ** 2 + affine[1, a] ** 2 + affine[2, a] ** 2) / 3
    e = max(e, 0.3)
    u, d, gw, noise, rough = np.zeros(3), np.zeros(outer.shape[3]), np.zeros(2), np.zeros(2), np.zeros(1)
    near, share, prop = np.zeros(kinds), np.zeros(count), np.zeros(6)
    for i in range(start, stop):
        for j in range(maps.shape[2]):
            for k in range(maps.shape[3]):
                px = affine[0, 0] * i + affine[0, 1] * j + affine[0, 2] * k + affine[0, 3] - centre[0]
                py = affine[1, 0] * i + affine[1, 1] * j + affine[1, 2] * k + affine[1, 3] - centre[1]
                pz = affine[2, 0] * i + affine[2, 1] * j + affine[2, 2] * k + affine[2, 3] - centre[2]
                x = matrix[0, 0] * px + matrix[0, 1] * py + matrix[0, 2] * pz
                y = matrix[1, 0] * px + matrix[1, 1] * py + matrix[1, 2] * pz
                z = matrix[2, 0] * px + matrix[2, 1] * py + matrix[2, 2] * pz
                _read(shift, origins[0], steps[0], x, y, z, u)
                x, y, z = x + u[0], y + u[1], z + u[2]
                _read(outer, origins[1], steps[1], x, y, z, d)
                for c in range(6):
                    prop[c] = rows[0, c]
                label, top = numbers[0], 1.0
                if d[_SKIN] > -e:
                    _read(fine, origins[3], steps[3], x, y, z, noise)
                    first = 10
                    if d[_INNER] <= 2 + e:
                        first = 1
                        _read(coarse, origins[4], steps[4], x, y, z, rough)
                        _outside(d, by * rough[0], x, y, z, e, share)
                    if d[_INNER] > -2 - e:
                        _read(tissue, origins[2], steps[2], x, y, z, gw)
                        _inside(d, gw[0], gw[1], z, e, share)
                    else:
                        for n in range(10, count):
                            share[n] = 0.0
                    for n in range(first, count):
                        alpha = share[n]
                        if alpha > 0:
                            for c in range(6):
                                prop[c] += alpha * (rows[n, c] - prop[c])
                            if n == 12:  # white matter differs by tract
                                prop[0] += alpha * d[_TRACT]
                                prop[1] *= 1 - 4 * alpha * d[_TRACT]
                            top *= 1 - alpha
                            if alpha > top:
                                label, top = numbers[n], alpha
                    if label == numbers[10]:
                        for c in range(3):
                            if d[_LATERAL + c] > 0:
                                label = special[c]
                    elif label == numbers[11] and d[_CEREBELLUM] > 0:
                        label = special[3]
                    inside = d[_HULL] > -1.0 and d[_INNER] > 0 and z > -64
                    brain[i, j, k] = inside
                    if inside and abs(x) < 41 and -71 < y < 41 and -47 < z < 33:
                        _read(nuclei, origins[5], steps[5], abs(x), y, z, near)
                        for n in range(kinds):
                            alpha = _ramp(near[n], e)
                            if alpha > 0:
                                row = count + 2 * n + (1 if x > 0 else 0)
                                for c in range(6):
                                    prop[c] += alpha * (rows[row, c] - prop[c])
                                top *= 1 - alpha
                                if alpha > top:
                                    label, top = numbers[row], alpha
                    # texture
                    fast, slow = by * noise[0], by * noise[1]
                    prop[0] += prop[5] * (0.6 * fast + 0.8 * slow)
                    if prop[5] > 0:
                        prop[1] *= 1 + 0.03 * fast + 0.04 * slow
                        prop[2] *= 1 + 0.02 * fast - 0.02 * slow
                        prop[3] *= 1 - 0.01 * slow - 0.005 * fast
                for c in range(5):
                    maps[c, i, j, k] = prop[c]
                labels[i, j, k], most[i, j, k] = label, top


@lru_cache(maxsize=16)
def _packed(volume: Volume) -> tuple[np.ndarray, np.ndarray, float]:
    """Channels last, so that one voxel's values lie together."""
    data = np.ascontiguousarray(volume.data.permute(1, 2, 3, 0).numpy(), dtype=np.float32)
    return data, np.asarray(volume.origin_mm, dtype=float), float(volume.step_mm)


def fill(
    place: tuple[np.ndarray, np.ndarray, np.ndarray],
    volumes: tuple[Volume, Volume, Volume, Volume, Volume, Volume],
    rows: np.ndarray,
    numbers: np.ndarray,
    special: np.ndarray,
    texture: float,
    out: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Write property maps, labels, the label's share, and the brain's envelope into `out`.

    `place`: voxel to scanner, scanner to atlas, and the atlas origin. `volumes`: displacement, surfaces, grey
    and white matter, fine and coarse texture, right nuclei. `rows`: six properties for each of `LAYERS`, then
    for each nucleus left and right; `numbers`: their labels; `special`: labels of the three ventricles and of
    cerebellar cortex. `texture` scales the smooth variation.
    """
    packed = [_packed(v) for v in volumes]
    data = tuple(p[0] for p in packed)
    origins, steps = np.stack([p[1] for p in packed]), np.array([p[2] for p in packed])
    planes = out[1].shape[0]
    step = max(planes // 32, 1)

    def run(start: int) -> None:
        stop = min(start + step, planes)
        _fill(start, stop, place, (data, origins, steps), (rows, numbers, special), texture, out)

    work: Callable[..., Any] = run
    starts = range(0, planes, step)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        done = pool.map(work, starts)
        for _ in track(len(starts), "drawing the head"):
            next(done)
