"""One inversion for each value of a setting, and what every rule looks at: misfit and roughness."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from k2chi.data import Chi, Field
from k2chi.invert.problem import problem
from k2chi.ops.finite import gradient
from k2chi.progress import track

Method = Callable[[Field], Chi]


@dataclass(frozen=True, eq=False)
class Choice:
    """What a rule saw and chose."""

    rule: str
    setting: str
    """Name of the setting, with dots for a method inside a method."""
    values: tuple[float, ...]
    """The values tried, rising."""
    misfit: tuple[float, ...]
    """‖w(Dχ − f)‖ over ‖w f‖ for each value [no unit]."""
    roughness: tuple[float, ...]
    """Mean length of the gradient in the mask for each value [ppm/mm]."""
    score: tuple[float, ...]
    """What the rule compares; `score_says` says how."""
    score_says: str
    """What the score means, and whether small, large or one crossing is wanted."""
    best: int
    """Index of the chosen value."""
    method: Any
    """The method with the chosen value."""
    chi: Chi
    """Its map."""
    warnings: tuple[str, ...] = ()
    """Why not to trust the choice, in words."""

    @property
    def chosen(self) -> float:
        """The chosen value; one of `values`."""
        return self.values[self.best]


@dataclass(frozen=True, eq=False)
class Trial:
    """Maps for every value, from the least to the most regularised."""

    setting: str
    values: tuple[float, ...]
    maps: tuple[Chi, ...]
    methods: tuple[Any, ...]
    misfit: tuple[float, ...]
    roughness: tuple[float, ...]
    local: Field

    @property
    def steady(self) -> int:
        """First value from which the misfit rises with regularisation.

        Below it the misfit of a masked map rises again, for noise has spread beyond the mask, or a solver has
        not got far enough: the curves mean nothing there.
        """
        first = len(self.values) - 1
        while first > 0 and self.misfit[first - 1] < self.misfit[first]:
            first -= 1
        return first

    def left_out(self) -> list[str]:
        """Says which values the curves do not use."""
        if self.steady == 0:
            return []
        shown = ", ".join(f"{v:g}" for v in self.values[: self.steady])
        return [f"not used, as the misfit does not fall any more: {self.setting} = {shown}"]

    def choice(
        self, rule: str, score: Sequence[float], says: str, best: int, warnings: Sequence[str] = ()
    ) -> Choice:
        """The value at `best`, told in rising order of the values."""
        said = list(warnings)
        n = len(self.values)
        if best in (0, n - 1):
            end, way = (
                ("smallest", "smaller") if self.values[best] == min(self.values) else ("largest", "larger")
            )
            said.append(
                f"the chosen {self.setting} = {self.values[best]:g} is the {end} value tried: add {way} ones"
            )
        open_ends = [v for v, m in zip(self.values, self.maps, strict=True) if m.converged is False]
        if open_ends:
            shown = ", ".join(f"{v:.3g}" for v in sorted(open_ends))
            where = "any value" if len(open_ends) == n else f"{self.setting} = {shown}"
            said.append(f"not converged at {where}: misfit and roughness there are not final")
        order = sorted(range(n), key=lambda i: self.values[i])
        return Choice(
            rule,
            self.setting,
            tuple(self.values[i] for i in order),
            tuple(self.misfit[i] for i in order),
            tuple(self.roughness[i] for i in order),
            tuple(float(score[i]) for i in order),
            says,
            order.index(best),
            self.methods[best],
            self.maps[best],
            tuple(said),
        )


def with_setting(method: Any, setting: str, value: float) -> Any:
    """`method` with one setting changed; dots lead into a method inside it. Whole numbers stay whole."""
    name, _, rest = setting.partition(".")
    names = [f.name for f in dataclasses.fields(method)] if dataclasses.is_dataclass(method) else []
    if name not in names:
        kind = type(method).__name__
        raise ValueError(f"{kind} has no setting {name!r}; it has {', '.join(names) or 'no settings'}")
    before = getattr(method, name)
    if rest:
        return dataclasses.replace(method, **{name: with_setting(before, rest, value)})
    if isinstance(before, bool) or not isinstance(before, int | float):
        raise ValueError(f"{setting} of {type(method).__name__} is no number, so no grid can be tried for it")
    if isinstance(before, int):
        if value != round(value):
            raise ValueError(f"{setting} of {type(method).__name__} is a whole number: {value:g} is not one")
        value = round(value)
    return dataclasses.replace(method, **{name: value})


def grid_of(method: Any, setting: str, values: Sequence[float], least: int) -> tuple[list[float], list[Any]]:
    """The values, rising, and the method for each; refused before any work if one of them does not fit."""
    rising = sorted({float(v) for v in values})
    if len(rising) < least:
        raise ValueError(
            f"{len(rising)} different values of {setting} are too few: this rule needs {least} or more, "
            "best evenly spaced on a logarithmic scale"
        )
    if rising[0] <= 0:
        raise ValueError(f"{setting} = {rising[0]:g} cannot be tried: values must be positive")
    return rising, [with_setting(method, setting, v) for v in rising]


def try_all(method: Any, setting: str, values: Sequence[float], local: Field, least: int = 3) -> Trial:
    """Run every value. The misfit is the method's own where it tells it, else that of its masked map."""
    rising, methods = grid_of(method, setting, values, least)
    p, maps, misfit, roughness = problem(local), [], [], []
    d, nabla = p.d, gradient(p.grid, local.ppm.device)
    for i in track(len(rising), f"values of {setting}"):
        chi = methods[i](local)
        x = p.box.take(chi.ppm)
        maps.append(chi)
        misfit.append(chi.misfits[-1] if chi.misfits else p.misfit(d(x)))
        inside = p.support
        roughness.append(float(nabla(x).norm(dim=0)[inside].mean()))
    order = list(range(len(rising)))
    if misfit[0] > misfit[-1]:  # such as iterations: more of them regularise less
        order.reverse()
    if not all(m > 0 and r > 0 for m, r in zip(misfit, roughness, strict=True)):
        raise ValueError("the field is zero, or a map fits it without error: there is nothing to balance")
    return Trial(
        setting,
        tuple(rising[i] for i in order),
        tuple(maps[i] for i in order),
        tuple(methods[i] for i in order),
        tuple(misfit[i] for i in order),
        tuple(roughness[i] for i in order),
        local,
    )


def crossing(x: torch.Tensor, y: torch.Tensor) -> list[float]:
    """Where the line through (x, y) changes sign, from the left."""
    found = []
    for i in range(len(x) - 1):
        if y[i] * y[i + 1] < 0 or y[i] == 0:
            share = float(y[i] / (y[i] - y[i + 1])) if y[i] != 0 else 0.0
            found.append(float(x[i] + share * (x[i + 1] - x[i])))
    return found
