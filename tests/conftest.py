"""Set up before any test module is imported: one thread a worker, so that workers do not fight."""

import ast
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from jaxtyping import _import_hook

# Shapes are checked while tests run by wrapping every function; a compiled one cannot be wrapped, so
# whatever numba decorates is let alone, as `typing.no_type_check` would have it.
_as_it_was = _import_hook._is_no_type_check


def _let_alone(decorator: ast.AST) -> bool:
    text = ast.unparse(decorator)
    return text.startswith(("numba.", "njit", "prange", "vectorize")) or _as_it_was(decorator)


_import_hook._is_no_type_check = _let_alone

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_sessionstart() -> None:
    """k2chi is imported only here, once compiled functions are let alone."""
    from k2chi.ops.fourier import keep_memory

    keep_memory()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `cuda` run where there is a CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
