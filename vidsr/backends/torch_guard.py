"""The guard (`vidsr.graph.guard`) in torch, written apart from the nodes so that each checks the other."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from vidsr.graph.guard import BEGIN, REACH, WILD

__all__ = ["Guarded"]


class Guarded(nn.Module):
    """A network whose wild results are blended to bilinear interpolation.

    network: RGB float32 [N, 3, H, W] to [N, 3, scale*H, scale*W]; so is this.
    """

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network, self._scale = network, scale

    def forward(self, x: Tensor) -> Tensor:
        base = functional.interpolate(x, scale_factor=self._scale, mode="bilinear", align_corners=False)
        off = self.network(x) - base
        # False for NaN. What is not sane is gone before anything is computed with it.
        sane = off.abs() < WILD
        off = off.where(sane, 0.0)
        distance = off.abs().where(sane, WILD).amax(dim=1, keepdim=True)
        worst = functional.max_pool2d(distance, self._scale)
        worst = functional.max_pool2d(worst, 2 * REACH + 1, stride=1, padding=REACH)
        share = (worst - BEGIN).clamp_min(0) / (WILD - BEGIN)
        share = functional.interpolate(share, scale_factor=self._scale, mode="nearest")
        kept: Tensor = base + off * (1 - share)
        return kept
