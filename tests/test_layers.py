"""Imports point one way, and file formats stay at the door."""

import ast
from pathlib import Path

import pytest

import k2chi

ROOT = Path(k2chi.__file__).parent
ORDER = (
    *("units", "progress", "data", "ops", "solve", "nets", "recon", "field", "background", "invert", "joint"),
    *(
        "orient",
        "separate",
        "choose",
        "phantom",
        "measure",
        "learn",
        "about",
        "pipeline",
        "recipes",
        "config",
        "io",
        "cohort",
        "reading",
        "app",
    ),
)
DOORS = {"io", "cohort", "reading", "app"}
FORMATS = {
    *("nibabel", "nilearn", "pydicom", "h5py", "ismrmrd", "twixtools", "pandas", "matplotlib", "PIL"),
    *("jinja2", "typer", "rich", "starlette", "uvicorn", "sqlite3", "sqlalchemy", "dask", "distributed"),
}
EXCEPTIONS = {
    ("phantom", "nibabel"),
    ("phantom", "nilearn"),
}  # the tissue maps that the nilearn wheel carries
FILES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Every module that the file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= {module} if module != "k2chi" else {f"k2chi.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    """A room imports itself and the rooms before it; a new room is named in ORDER first."""
    here = room(path)
    if here == "__init__":
        assert not imported(path), (
            "the package itself imports nothing, so that importing a part costs that part"
        )
        return
    for name in imported(path):
        if name.startswith("k2chi.") and (there := name.split(".")[1]) != "__version__":
            assert ORDER.index(there) <= ORDER.index(here), f"{here} imports {there}, which comes after it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_formats_stay_at_the_door(path):
    """Only io, cohort, reading and app may know of files, pages, databases and clusters."""
    here = room(path)
    libraries = {name.split(".")[0] for name in imported(path)} & FORMATS
    if here not in DOORS:
        assert not {(here, library) for library in libraries} - EXCEPTIONS
