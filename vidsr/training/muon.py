"""Muon (Jordan et al., 2024): momentum whose matrices are made nearly orthogonal before they are applied.

For convolutions a matrix is one row an output channel. Measured here from scratch against Adam: docs/models.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonalised"]

# An odd polynomial whose repeated application takes singular values in 0..1 to about 1 (0.7 to 1.2) in five rounds.
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


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


class Muon(torch.optim.Optimizer):
    """For weights of two or more dimensions. rate: sized so that rates good for Adam suit it, and larger ones too."""

    def __init__(self, weights: Iterable[nn.Parameter], rate: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step, Nesterov's way."""
        for group in self.param_groups:
            keep = group["momentum"]
            for weight in group["params"]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - keep)
                update = orthogonalised(weight.grad.lerp(average, keep).flatten(1))
                # An orthogonal m x n matrix has a mean square of 1 / max(m, n); Adam's updates have one near 0.2^2.
                size = 0.2 * math.sqrt(max(update.shape))
                weight.add_(update.view_as(weight), alpha=-group["lr"] * size)
