"""Muon (Jordan et al., 2024): momentum whose matrices are made nearly orthogonal before they are applied.

For convolutions a matrix is one row an output channel. Measured here from scratch against Adam: docs/design.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonalised"]

# An odd polynomial whose repeated application takes singular values in 0..1 to about 1 (0.7 to 1.2) in five rounds.
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_TINY = 1e-12
_LEAST = 1e-4
"""Lets weights that are zero begin to move."""


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix of equal singular values, about 1, by Newton-Schulz rounds: float [m, n] -> the same."""
    a, b, c = _POLYNOMIAL
    tall = matrix.shape[0] > matrix.shape[1]
    value = matrix.T if tall else matrix
    value = value / (value.norm() + 1e-7)
    for _ in range(_ROUNDS):
        gram = value @ value.T
        value = a * value + (b * gram + c * gram @ gram) @ value
    result: Tensor = value.T if tall else value
    return result


@contextmanager
def _one_thread() -> Iterator[None]:
    """Hundreds of small products: two threads would meet after each, and wait where another program has a core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Muon(torch.optim.Optimizer):
    """For weights of two or more dimensions.

    rate: how far a step moves a weight's values, as a share of their root mean square. So it does not matter how large
    features are inside a network, and no convolution needs a rate of its own.
    """

    def __init__(self, weights: Iterable[nn.Parameter], rate: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step, Nesterov's way."""
        with _one_thread():
            self._step()

    def _step(self) -> None:
        for group in self.param_groups:
            keep = group["momentum"]
            for weight in group["params"]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                # Each step's gradient counts the same: one batch that leads far off must not rule those after it.
                gradient = weight.grad / (weight.grad.norm() + _TINY)
                average.lerp_(gradient, 1 - keep)
                update = orthogonalised(gradient.lerp(average, keep).flatten(1))
                # An orthogonal m x n matrix has a mean square of 1 / max(m, n).
                size = math.sqrt(max(update.shape)) * (weight.square().mean().sqrt().item() + _LEAST)
                weight.add_(update.view_as(weight), alpha=-group["lr"] * size)
