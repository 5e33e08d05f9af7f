"""JSON beside images: what it says of echo times and field strength, and where it contradicts itself."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from k2chi import units


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ValueError that names file and line."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno} is not JSON ({error.msg}); repair the file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); check the file and its permissions") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds a {type(data).__name__}, not an object {{…}}; repair the file")
    return data


def beside(path: Path) -> Path:
    """The JSON file that belongs to an image by name."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def sidecar(path: Path) -> dict[str, Any]:
    """The JSON beside an image, or nothing."""
    return read_json(beside(path)) if beside(path).exists() else {}


def stated(files: Sequence[Path]) -> tuple[list[float], float | None, bool]:
    """Echo times, B0 and bipolar read-out that the JSON files beside images state.

    Raises ValueError where two of them contradict each other.
    """
    jsons = [(f, sidecar(f)) for f in files]
    return facts([(f, j) for f, j in jsons if j])


def facts(jsons: Sequence[tuple[Path, dict[str, Any]]]) -> tuple[list[float], float | None, bool]:
    """As `stated`, from JSON contents in the order of echoes."""
    times: list[float] = []
    b0: tuple[float, Path] | None = None
    for path, data in jsons:
        te = data.get("EchoTime", data.get("EchoTimes"))
        for t in te if isinstance(te, list) else [te] if te is not None else []:
            if not isinstance(t, int | float) or isinstance(t, bool):
                raise ValueError(f"{path}: EchoTime {t!r} is not a number; give seconds")
            times.append(float(t))
        strength = data.get("MagneticFieldStrength")
        if strength is None and isinstance(data.get("ImagingFrequency"), int | float):
            strength = data["ImagingFrequency"] / units.GAMMA_BAR_MHZ_PER_T
        if strength is not None:
            if not isinstance(strength, int | float) or isinstance(strength, bool):
                raise ValueError(f"{path}: MagneticFieldStrength {strength!r} is not a number; give tesla")
            if b0 and abs(b0[0] - strength) > 0.02 * b0[0]:
                raise ValueError(
                    f"{path}: {strength:g} T, but {b0[1].name} says {b0[0]:g} T; correct one of them"
                )
            b0 = b0 or (float(strength), path)
    bipolar = any(d.get("BipolarReadout") is True for _, d in jsons)
    return times, b0[0] if b0 else None, bipolar


def agree(first: Sequence[float], second: Sequence[float], a: str, b: str) -> list[float]:
    """One list of echo times from two sources; either may be empty. ValueError if they contradict."""
    if not first or not second:
        return list(first or second)
    if len(first) != len(second) or any(
        abs(x - y) > 0.01 * max(x, y) for x, y in zip(first, second, strict=True)
    ):
        raise ValueError(
            f"echo times contradict each other: {a} {list(first)} s, {b} {list(second)} s; correct one"
        )
    return list(first)
