"""Training for INT8: convolutions whose weights and inputs are rounded as the INT8 form of the model will round them.

Rounding passes gradients through as if it were not there (straight-through). The range of each input is learned: its
gradient is that of the rounding error inside and of what is cut off outside (LSQ, Esser et al., arXiv 1902.08153, and
LSQ+, Bhalgat et al., arXiv 2004.09576). What the ranges mean is in `vidsr.quantise`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidsr.quantise import CODES, WEIGHT_CODES, Ranges

__all__ = ["FULL", "RoundedConv", "calibrate", "ranges_of", "round_convolutions"]

FULL = ("conv_1.eval_conv", "conv_cat", "upsampler.0")
"""Stay in full precision. The picture comes in and goes out through the first and the last; conv_cat joins features of
unlike size, and costs next to nothing."""
_SAMPLES = 1 << 14
_CUTS = 16


class RoundedConv(nn.Conv2d):
    """A convolution in INT8, simulated: inputs become one of 256 codes, weights one of 127, by output channel.

    reach: float [2], logarithms of how far below and above zero the input's range reaches; learned.
    """

    rounding = True
    """Off while ranges are sought."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 1)
        self.weight, self.bias, self.padding = conv.weight, conv.bias, conv.padding
        self.reach = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        if not self.rounding:
            return functional.conv2d(x, self.weight, self.bias, padding=self.padding)
        below, above = self.reach.float().exp()
        step = (below + above) / CODES
        # Codes are whole numbers, which BF16 holds exactly; the size of a step goes to the weights.
        codes: Tensor = _Codes.apply(x, step, _rounded(below / step))  # type: ignore[no-untyped-call]
        return functional.conv2d(codes, self.rounded_weight() * step, self.bias, padding=self.padding)

    def rounded_weight(self) -> Tensor:
        step = self.weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12) / WEIGHT_CODES
        return _rounded(self.weight / step) * step


class _Codes(torch.autograd.Function):
    """round(x / step), held to [-zero, 255 - zero], with x's type: codes without their zero point."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: Tensor) -> Tensor:
        exact = x / step
        ctx.save_for_backward(exact, step, zero)
        return exact.round().clamp_(-zero.item(), CODES - zero.item())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        exact, step, zero = ctx.saved_tensors
        # Its backward pass is the gradient where a value lies within two limits, in one go.
        inside = torch.ops.aten.hardtanh_backward(grads[0], exact, -zero.item(), CODES - zero.item())
        total = [part.sum(dtype=torch.float32) for part in (inside * exact, inside, grads[0])]
        return inside / step, -total[0] / step, total[1] - total[2]


def _rounded(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def round_convolutions(network: nn.Module, full: Iterable[str] = FULL) -> None:
    """Puts a `RoundedConv` in the place of each convolution that is not in `full`."""
    found = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d) and name not in full]
    for name in found:
        network.set_submodule(name, RoundedConv(network.get_submodule(name)))  # type: ignore[arg-type]


def calibrate(network: nn.Module, pictures: Iterable[Tensor]) -> None:
    """Sets the ranges to those with the least squared error for what flows through the unrounded network.

    pictures: float [N, 3, h, w], what the network takes.
    """
    convolutions = [module for module in network.modules() if isinstance(module, RoundedConv)]
    seen: dict[nn.Module, list[Tensor]] = {module: [] for module in convolutions}
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: seen[module].append(_sample(inputs[0])))
        for module in convolutions
    ]
    for module in convolutions:
        module.rounding = False
    with torch.no_grad():
        for picture in pictures:
            network(picture)
        for hook, module in zip(hooks, convolutions, strict=True):
            hook.remove()
            module.rounding = True
            module.reach.copy_(_best_range(torch.cat(seen[module])).log())


def _sample(x: Tensor) -> Tensor:
    values = x.detach().flatten().float()
    # Odd, or every sample could be of the same columns.
    return values[:: max(1, len(values) // _SAMPLES) | 1]


def _best_range(values: Tensor) -> Tensor:
    """(below, above) with the least squared error of rounding: each end may cut off something of the values."""
    least, most = (limit.clamp(min=1e-3) for limit in (-values.min(), values.max()))
    best, error = torch.stack([least, most]), torch.tensor(torch.inf)
    for below in torch.linspace(1.0, 0.4, 3):
        for above in torch.linspace(1.0, 0.2, _CUTS):
            step = (least * below + most * above) / CODES
            zero = (least * below / step).round()
            codes = (values / step).round().clamp(-zero, CODES - zero)
            found = (codes * step - values).square().mean()
            if found < error:
                best, error = torch.stack([least * below, most * above]), found
    return best


def ranges_of(network: nn.Module) -> Ranges:
    """The range of each rounded convolution's input, by the convolution's name."""
    return {
        name: (-below, above)
        for name, module in network.named_modules()
        if isinstance(module, RoundedConv)
        for below, above in [module.reach.detach().double().exp().tolist()]
    }
