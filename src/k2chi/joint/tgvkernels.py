"""Compiled halves of a primal-dual TGV step: one pass over memory each, parallel over slabs of x."""

import numba
import numpy as np


@numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)
def dual_cpu(
    bar: np.ndarray,
    eta: np.ndarray,
    y: np.ndarray,
    tissue: np.ndarray,
    known: np.ndarray,
    curvature: np.ndarray,
    lines: np.ndarray,
    per_edge: np.ndarray,
    wave: np.ndarray,
    steps: np.ndarray,
    oblique: bool,
) -> None:
    """η (or its residual), p and q in place; see `tgvsteps.dual_step`."""
    psi, chi, wx, wy, wz = bar[0], bar[1], bar[2], bar[3], bar[4]
    ix, iy, iz = per_edge
    lx, ly, lz = ix * ix, iy * iy, iz * iz
    lc = np.float32(-2) * (lx + ly + lz)
    cx, cy, cz, cc = wave[0], wave[1], wave[2], wave[3]
    s_eta, s_p, s_q, alpha1, alpha0 = steps
    one, half, two, tiny = np.float32(1), np.float32(0.5), np.float32(2), np.float32(1e-30)
    for i in numba.prange(1, tissue.shape[0] - 1):
        for j in range(1, tissue.shape[1] - 1):
            low, high = lines[i, j]
            if oblique:
                for k in range(low, high):
                    eta[i, j, k] -= (s_eta * known[i, j, k]) * (
                        wave[4] * (chi[i, j + 1, k - 1] + chi[i, j - 1, k + 1])
                        + wave[5] * (chi[i, j + 1, k + 1] + chi[i, j - 1, k - 1])
                        + wave[6] * (chi[i + 1, j, k - 1] + chi[i - 1, j, k + 1])
                        + wave[7] * (chi[i + 1, j, k + 1] + chi[i - 1, j, k - 1])
                        + wave[8] * (chi[i + 1, j - 1, k] + chi[i - 1, j + 1, k])
                        + wave[9] * (chi[i + 1, j + 1, k] + chi[i - 1, j - 1, k])
                        + wave[10] * (chi[i + 1, j - 1, k - 1] + chi[i - 1, j + 1, k + 1])
                        + wave[11] * (chi[i + 1, j - 1, k + 1] + chi[i - 1, j + 1, k - 1])
                        + wave[12] * (chi[i + 1, j + 1, k - 1] + chi[i - 1, j - 1, k + 1])
                        + wave[13] * (chi[i + 1, j + 1, k + 1] + chi[i - 1, j - 1, k - 1])
                    )
            for k in range(low, high):
                c, m = chi[i, j, k], tissue[i, j, k]
                eta[i, j, k] += (s_eta * known[i, j, k]) * (
                    lx * (psi[i + 1, j, k] + psi[i - 1, j, k])
                    + ly * (psi[i, j + 1, k] + psi[i, j - 1, k])
                    + lz * (psi[i, j, k + 1] + psi[i, j, k - 1])
                    + lc * psi[i, j, k]
                    - cx * (chi[i + 1, j, k] + chi[i - 1, j, k])
                    - cy * (chi[i, j + 1, k] + chi[i, j - 1, k])
                    - cz * (chi[i, j, k + 1] + chi[i, j, k - 1])
                    - cc * c
                    + curvature[i, j, k]
                )
                px = y[1, i, j, k] + s_p * m * tissue[i + 1, j, k] * (
                    (chi[i + 1, j, k] - c) * ix - wx[i, j, k]
                )
                py = y[2, i, j, k] + s_p * m * tissue[i, j + 1, k] * (
                    (chi[i, j + 1, k] - c) * iy - wy[i, j, k]
                )
                pz = y[3, i, j, k] + s_p * m * tissue[i, j, k + 1] * (
                    (chi[i, j, k + 1] - c) * iz - wz[i, j, k]
                )
                cut = min(one, alpha1 / np.sqrt(px * px + py * py + pz * pz + tiny))
                y[1, i, j, k] = cut * px
                y[2, i, j, k] = cut * py
                y[3, i, j, k] = cut * pz
                s = s_q * m * tissue[i - 1, j, k] * tissue[i, j - 1, k] * tissue[i, j, k - 1]
                xx = y[4, i, j, k] + s * (wx[i, j, k] - wx[i - 1, j, k]) * ix
                yy = y[5, i, j, k] + s * (wy[i, j, k] - wy[i, j - 1, k]) * iy
                zz = y[6, i, j, k] + s * (wz[i, j, k] - wz[i, j, k - 1]) * iz
                xy = y[7, i, j, k] + half * s * (
                    (wx[i, j, k] - wx[i, j - 1, k]) * iy + (wy[i, j, k] - wy[i - 1, j, k]) * ix
                )
                xz = y[8, i, j, k] + half * s * (
                    (wx[i, j, k] - wx[i, j, k - 1]) * iz + (wz[i, j, k] - wz[i - 1, j, k]) * ix
                )
                yz = y[9, i, j, k] + half * s * (
                    (wy[i, j, k] - wy[i, j, k - 1]) * iz + (wz[i, j, k] - wz[i, j - 1, k]) * iy
                )
                size = xx * xx + yy * yy + zz * zz + two * (xy * xy + xz * xz + yz * yz)
                cut = min(one, alpha0 / np.sqrt(size + tiny))
                y[4, i, j, k] = cut * xx
                y[5, i, j, k] = cut * yy
                y[6, i, j, k] = cut * zz
                y[7, i, j, k] = cut * xy
                y[8, i, j, k] = cut * xz
                y[9, i, j, k] = cut * yz


@numba.njit(parallel=True, fastmath=True, cache=True, nogil=True)
def primal_cpu(
    u: np.ndarray,
    bar: np.ndarray,
    y: np.ndarray,
    tissue: np.ndarray,
    w2: np.ndarray,
    lines: np.ndarray,
    per_edge: np.ndarray,
    wave: np.ndarray,
    steps: np.ndarray,
    oblique: bool,
) -> None:
    """u and its over-relaxed copy in place; see `tgvsteps.primal_step`."""
    eta, px, py, pz = y[0], y[1], y[2], y[3]
    xx, yy, zz, xy, xz, yz = y[4], y[5], y[6], y[7], y[8], y[9]
    ix, iy, iz = per_edge
    lx, ly, lz = ix * ix, iy * iy, iz * iz
    lc = np.float32(-2) * (lx + ly + lz)
    cx, cy, cz, cc = wave[0], wave[1], wave[2], wave[3]
    t_psi, t_chi, t_w = steps
    one, two = np.float32(1), np.float32(2)
    for i in numba.prange(1, tissue.shape[0] - 1):
        for j in range(1, tissue.shape[1] - 1):
            low, high = lines[i, j]
            for k in range(low, high):
                m = tissue[i, j, k]
                e = eta[i, j, k]
                ax = eta[i + 1, j, k] + eta[i - 1, j, k]
                ay = eta[i, j + 1, k] + eta[i, j - 1, k]
                az = eta[i, j, k + 1] + eta[i, j, k - 1]
                old = u[0, i, j, k]
                new = (old - t_psi * (lx * ax + ly * ay + lz * az + lc * e)) / (one + t_psi * w2[i, j, k])
                u[0, i, j, k] = m * new
                bar[0, i, j, k] = m * (two * new - old)
                old = u[1, i, j, k]
                new = old + t_chi * m * (
                    cx * ax
                    + cy * ay
                    + cz * az
                    + cc * e
                    + (px[i, j, k] - px[i - 1, j, k]) * ix
                    + (py[i, j, k] - py[i, j - 1, k]) * iy
                    + (pz[i, j, k] - pz[i, j, k - 1]) * iz
                )
                u[1, i, j, k] = new
                bar[1, i, j, k] = two * new - old
                old = u[2, i, j, k]
                new = old + t_w * m * (
                    px[i, j, k]
                    + (xx[i + 1, j, k] - xx[i, j, k]) * ix
                    + (xy[i, j + 1, k] - xy[i, j, k]) * iy
                    + (xz[i, j, k + 1] - xz[i, j, k]) * iz
                )
                u[2, i, j, k] = new
                bar[2, i, j, k] = two * new - old
                old = u[3, i, j, k]
                new = old + t_w * m * (
                    py[i, j, k]
                    + (xy[i + 1, j, k] - xy[i, j, k]) * ix
                    + (yy[i, j + 1, k] - yy[i, j, k]) * iy
                    + (yz[i, j, k + 1] - yz[i, j, k]) * iz
                )
                u[3, i, j, k] = new
                bar[3, i, j, k] = two * new - old
                old = u[4, i, j, k]
                new = old + t_w * m * (
                    pz[i, j, k]
                    + (xz[i + 1, j, k] - xz[i, j, k]) * ix
                    + (yz[i, j + 1, k] - yz[i, j, k]) * iy
                    + (zz[i, j, k + 1] - zz[i, j, k]) * iz
                )
                u[4, i, j, k] = new
                bar[4, i, j, k] = two * new - old
            if oblique:
                for k in range(low, high):
                    more = (t_chi * tissue[i, j, k]) * (
                        wave[4] * (eta[i, j + 1, k - 1] + eta[i, j - 1, k + 1])
                        + wave[5] * (eta[i, j + 1, k + 1] + eta[i, j - 1, k - 1])
                        + wave[6] * (eta[i + 1, j, k - 1] + eta[i - 1, j, k + 1])
                        + wave[7] * (eta[i + 1, j, k + 1] + eta[i - 1, j, k - 1])
                        + wave[8] * (eta[i + 1, j - 1, k] + eta[i - 1, j + 1, k])
                        + wave[9] * (eta[i + 1, j + 1, k] + eta[i - 1, j - 1, k])
                        + wave[10] * (eta[i + 1, j - 1, k - 1] + eta[i - 1, j + 1, k + 1])
                        + wave[11] * (eta[i + 1, j - 1, k + 1] + eta[i - 1, j + 1, k - 1])
                        + wave[12] * (eta[i + 1, j + 1, k - 1] + eta[i - 1, j - 1, k + 1])
                        + wave[13] * (eta[i + 1, j + 1, k + 1] + eta[i - 1, j - 1, k - 1])
                    )
                    u[1, i, j, k] += more
                    bar[1, i, j, k] += two * more
