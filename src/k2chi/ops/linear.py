"""A linear operator is two functions that belong together."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Linear:
    """The map `apply` with its adjoint: <A x, y> = <x, A.H y>."""

    apply: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.apply(x)

    @property
    def H(self) -> "Linear":
        """The adjoint, itself an operator."""
        return Linear(self.adjoint, self.apply)

    def __matmul__(self, first: "Linear") -> "Linear":
        return Linear(lambda x: self(first(x)), lambda y: first.H(self.H(y)))
