"""Phase and slice oversampling: voxels that only keep wraps away, and the grid that is left without them."""

from k2chi.data import Echoes, Field, Grid, Raw
from k2chi.ops.box import Box


def inner(raw: Raw) -> Box:
    """The voxels of the encoded grid that images keep."""
    (nx, ny, nz), (sy, sz) = raw.grid.shape, raw.encoding.surplus
    return Box((0, sy // 2, sz // 2), (nx, ny - sy, nz - sz))


def image_grid(raw: Raw) -> Grid:
    """Where the voxels of images lie as they were acquired."""
    return inner(raw).grid(raw.grid)


def without_surplus(echoes: Echoes, raw: Raw) -> Echoes:
    """Images of the encoded grid without the voxels that oversampling added at both ends."""
    if not any(raw.encoding.surplus):
        return echoes
    return Echoes(inner(raw).take(echoes.signal), image_grid(raw), echoes.scan)


def with_surplus(field: Field, raw: Raw) -> Field:
    """A field on the grid of images laid back into the encoded one, its mask as it was."""
    if not any(raw.encoding.surplus):
        return field
    box, shape = inner(raw), raw.grid.shape
    ppm, mask = box.put(field.ppm, shape), box.put(field.mask, shape)
    return Field(ppm, mask, raw.grid, field.scan)
