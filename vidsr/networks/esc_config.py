"""ESC's hyper-parameters, deduced from its weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from vidsr.errors import ModelError
from vidsr.networks import State

__all__ = ["DYNAMIC", "EPSILON", "EscConfig", "deduced"]

EPSILON = 1e-6
"""Of all normalisations."""
DYNAMIC = 3
"""Side of the kernels that layers make for themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EscConfig:
    """Everything that the weights decide.

    layers: of each block, behind its attention. far: channels that see far. kernel: side of the large kernel.
    wide, hidden: channels inside a block's first feed-forward part, and inside those of its layers.
    squeeze: channels between a layer's mean and its kernel.
    rank: of the two factors that hold the attention's bias (FlashBias); 0 where a table does.
    normed: layers normalise. convolutions: places in ESC-Real's upsampler, else none.
    """

    form: Literal["esc", "esc-fp", "esc-real"]
    channels: int
    scale: int
    blocks: int
    layers: int
    heads: int
    window: int
    far: int
    kernel: int
    wide: int
    hidden: int
    squeeze: int
    rank: int = 0
    normed: bool = False
    convolutions: tuple[int, ...] = ()

    @property
    def radius(self) -> None:
        """A pixel depends on the whole picture, through the layers' means."""
        return None


def deduced(state: State) -> EscConfig:
    """Raises KeyError for a missing weight, ModelError for weights that are of no form known here."""
    separable = "lk_spatial" in state
    heads, window, rank = _attention(state)
    channels, inputs = state["proj.weight"].shape[:2]
    dynamic = "plk.proj" if separable else "plk.dwc_proj"
    squeeze, far = state[f"blocks.0.pconvs.0.{dynamic}.1.weight"].shape[:2]
    made = len(state[f"blocks.0.pconvs.0.{dynamic}.3.bias"])
    kernel = state["lk_spatial" if separable else "plk_filter"].shape[-1]
    if inputs != 3 or channels % heads or made != far * DYNAMIC**2 or kernel % 2 == 0:
        raise ModelError(
            f"not an ESC this project knows: {inputs} colours, {channels} channels for {heads} heads, "
            f"{made} values for 3x3 kernels of {far} channels, a large kernel of {kernel}x{kernel}"
        )
    convolutions = _numbers(state, r"to_img\.(\d+)\.weight")
    return EscConfig(
        form="esc-real" if convolutions else "esc-fp" if separable else "esc",
        channels=channels,
        scale=_scale(state, convolutions),
        blocks=len(_numbers(state, r"blocks\.(\d+)\.conv_out\.weight")),
        layers=len(_numbers(state, r"blocks\.0\.pconvs\.(\d+)\.aggr\.weight")),
        heads=heads,
        window=window,
        far=far,
        kernel=kernel,
        wide=len(state["blocks.0.proj.proj.weight"]),
        hidden=len(state["blocks.0.convffns.0.proj.weight"]),
        squeeze=squeeze,
        rank=rank,
        normed="blocks.0.lns.0.weight" in state,
        convolutions=convolutions,
    )


def _numbers(state: State, pattern: str) -> tuple[int, ...]:
    return tuple(sorted({int(match[1]) for key in state if (match := re.fullmatch(pattern, key))}))


def _attention(state: State) -> tuple[int, int, int]:
    """(heads, window, rank of the bias) of the first block's attention."""
    if "blocks.0.attn.flashbias_q" in state:
        heads, count, rank = state["blocks.0.attn.flashbias_q"].shape
        window = math.isqrt(count)
        if window**2 == count:
            return heads, window, rank
        raise ModelError(f"not an ESC this project knows: a bias for {count} pixels, which are no square")
    heads, count = state["blocks.0.attn.relative_position_bias"].shape
    window = (math.isqrt(count) + 1) // 2
    if (2 * window - 1) ** 2 != count:
        raise ModelError(f"not an ESC this project knows: {count} position biases are not (2 x window - 1) squared")
    return heads, window, 0


def _scale(state: State, convolutions: tuple[int, ...]) -> int:
    if convolutions:
        if convolutions not in ((1, 4, 6), (1, 4, 6, 8)):
            raise ModelError(f"not an ESC-Real this project knows: its upsampler's convolutions are {convolutions}")
        return 4
    outputs = len(state["to_img.weight"])
    scale = math.isqrt(outputs // 3)
    if outputs != 3 * scale**2 or not scale:
        raise ModelError(f"not an RGB ESC: {outputs} output channels are not 3 x scale x scale")
    return scale
