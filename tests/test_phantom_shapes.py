"""Closed-form fields against hand-worked numbers, and the dipole operator against them."""

from dataclasses import replace
from math import cos, radians, sin

import pytest
import torch

from k2chi.data import Grid, Vector
from k2chi.ops import dipole
from k2chi.ops.dipole import dipole_kernel
from k2chi.ops.fourier import convolution
from k2chi.phantom.shapes import Cylinder, Sphere


def test_sphere_by_hand() -> None:
    """On the axis at twice the radius: (1/3)/8·2 = 1/12; on the equator half of that, and negative."""
    grid = Grid.of((65, 65, 65))
    field = Sphere(8.0).field(grid)
    assert field[32, 32, 48] == pytest.approx(1 / 12, rel=1e-6)
    assert field[48, 32, 32] == pytest.approx(-1 / 24, rel=1e-6)
    assert field[32, 35, 32] == 0


def test_sphere_follows_b0_and_place() -> None:
    """Turning B0 from z to x swaps the axes; moving the centre moves the field."""
    grid = Grid.of((33, 33, 33))
    upright = Sphere(4.0).field(grid)
    lying = Sphere(4.0).field(replace(grid, b0_world=(1.0, 0.0, 0.0)))
    torch.testing.assert_close(lying, upright.transpose(0, 2))
    moved = Sphere(4.0, centre_mm=(3.0, 0.0, -2.0)).field(grid)
    torch.testing.assert_close(moved[6:, :, :-4][:, :, 2:], upright[3:-3, :, 4:-2], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("angle", "inside"), [(0, 1 / 3), (30, 0.208333), (54.7356, 0.0), (90, -1 / 6)])
def test_cylinder_by_hand(angle: float, inside: float) -> None:
    """The four known inner values; outside, at twice the radius along B0's projection, (1/8) sin²θ."""
    t = radians(angle)
    grid = replace(Grid.of((33, 33, 5)), b0_world=(sin(t), 0.0, cos(t)))
    field = Cylinder(4.0, axis=(0, 0, 1)).field(grid)
    assert field[16, 16, 2] == pytest.approx(inside, abs=1e-5)
    assert field[24, 16, 2] == pytest.approx(sin(t) ** 2 / 8, abs=1e-6)
    assert field[16, 24, 2] == pytest.approx(-(sin(t) ** 2) / 8, abs=1e-6)


def test_sources_hold_their_volume() -> None:
    """Partial volume sums to the body's volume, on uneven tilted voxels too."""
    affine = (
        (0.8, 0.0, 0.0, -20.0),
        (0.0, 0.96, -0.84, -8.0),
        (0.0, 0.28, 2.88, -30.0),
        (0.0, 0.0, 0.0, 1.0),
    )
    grid = Grid((50, 50, 21), affine)
    sphere = Sphere(7.0, 2.0, (0.5, 1.5, 3.0)).source(grid)
    assert float(sphere.sum()) * grid.voxel_volume_mm3 == pytest.approx(2 * 4 / 3 * torch.pi * 343, rel=2e-3)
    assert float(sphere.min()) >= 0
    assert float(sphere.max()) == 2
    rod = Cylinder(5.0).source(Grid.of((4, 32, 32)), 8)
    assert float(rod[1].sum()) == pytest.approx(torch.pi * 25, rel=3e-3)


TILTED: Vector = (0.3, 0.2, 0.93)


@pytest.mark.parametrize(
    ("kind", "b0", "limit"),
    [("continuous", (0, 0, 1.0), 0.006), ("green", (0, 0, 1.0), 0.003), ("green", TILTED, 0.003)],
)
def test_dipole_meets_sphere(kind: str, b0: Vector, limit: float) -> None:
    """Outside the sphere and 1.5 voxels off its surface, within the figures measured elsewhere (at N 128)."""
    grid, radius = Grid.of((96, 96, 96), b0_dir=b0), 12.0
    sphere = Sphere(radius)
    found = dipole(grid, kind=kind, pad=2.0)(sphere.source(grid))  # type: ignore[arg-type]
    truth = sphere.field(grid)
    near = Sphere(radius + 1.5).source(grid, 1) > 0
    inside = Sphere(radius - 1.5).source(grid, 1) > 0
    error = (found - truth)[~near].norm() / truth[~near].norm()
    assert error < limit
    assert abs(float(found[inside].mean())) < 1e-3


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0])
def test_dipole_meets_cylinder(angle: float) -> None:
    """An endless rod along the third axis, padded across it alone."""
    t, radius = radians(angle), 6.0
    grid = Grid.of((96, 96, 4), b0_dir=(sin(t), 0.0, cos(t)))
    rod = Cylinder(radius, axis=(0, 0, 1))
    outer = (480, 480, 4)
    found = convolution(dipole_kernel(grid, outer, "continuous"), grid.shape, outer)(rod.source(grid))
    truth = rod.field(grid)
    off = (Cylinder(radius + 1.5, axis=(0, 0, 1)).source(grid, 1) == 0) | (
        Cylinder(radius - 1.5, axis=(0, 0, 1)).source(grid, 1) > 0
    )
    # D(0) = 0 takes away the mean of the padded plane: the rod's share of it times D's mean over directions
    found = found + float(rod.source(grid)[..., 0].sum()) / 480**2 * (1 / 3 - sin(t) ** 2 / 2)
    error = (found - truth)[off].norm() / truth[off].norm()
    assert error < 0.015


def test_bad_shapes_are_refused() -> None:
    """The message names what is wrong."""
    with pytest.raises(ValueError, match="positive radius"):
        Sphere(0.0)
    with pytest.raises(ValueError, match="give a direction"):
        Cylinder(1.0, axis=(0, 0, 0))
