"""A grey picture as a file, without a plotting library."""

import struct
import zlib
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor


def save_png(path: Path, image: Float[Tensor, "rows columns"], low: float, high: float) -> None:
    """`low` is black, `high` white."""
    grey = ((image.detach().cpu().float() - low) / (high - low)).clamp(0, 1).mul(255).round().to(torch.uint8)
    rows, columns = grey.shape
    raw = torch.cat([torch.zeros(rows, 1, dtype=torch.uint8), grey], 1).numpy().tobytes()
    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", *(_chunk(k, d) for k, d in _chunks(head, raw))]
    path.write_bytes(b"".join(parts))


def _chunks(head: bytes, raw: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
