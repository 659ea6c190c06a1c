"""SPAN: Swift Parameter-free Attention Network (Wan et al., NTIRE 2024; arXiv 2311.12770). Needs torch.

Written from the paper and the published checkpoints' keys. Two forms of each convolution exist: the training form
(`sk` beside `conv.0..2`) and the plain 3x3 (`eval_conv`) it is linear-algebraically equal to. Models hold the latter.

A network for speed works at a fraction of the size: squares of `unshuffle` x `unshuffle` pixels become channels in
front, and the pixel shuffle at the end is larger by as much.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vidsr.errors import ModelError
from vidsr.graph import Builder
from vidsr.networks import State
from vidsr.networks.filling import fill

__all__ = ["NAME", "Span", "SpanConfig", "build", "deduce", "export", "fuse", "notes", "recognise"]

NAME = "span"
BLOCKS = 6
OFFICIAL_MEAN = (0.4488, 0.4371, 0.4040)
OFFICIAL_RANGE = 255.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanConfig:
    """Everything that the weights leave open or decide.

    unshuffle: side of the squares of pixels that become channels; 1 for the published networks.
    base: what is added to the pixel-shuffled output: nothing, or the input repeated `scale` times.
    rgb_mean, img_range: the input is normalised to `(x - rgb_mean) * img_range`.
    """

    channels: int
    scale: int
    blocks: int = BLOCKS
    unshuffle: int = 1
    base: Literal["none", "nearest"] = "none"
    img_range: float = OFFICIAL_RANGE
    rgb_mean: tuple[float, float, float] = OFFICIAL_MEAN

    @property
    def shuffle(self) -> int:
        """Factor of the pixel shuffle at the end."""
        return self.scale * self.unshuffle

    @property
    def radius(self) -> int:
        """Receptive-field radius in input pixels: one square for every 3x3 convolution in a row, and a pixel's own."""
        return (3 + 3 * self.blocks) * self.unshuffle + self.unshuffle - 1


def recognise(keys: frozenset[str]) -> bool:
    """Whether a checkpoint's keys are those of SPAN (SPAN-F, for one, has no `conv_1`)."""
    stems = {re.sub(r"\.(eval_conv|sk|conv\.\d+)\.(weight|bias)$", "", key) for key in keys}
    wanted = {"conv_1", "conv_2", "block_1.c1_r", "block_1.c2_r", "block_1.c3_r"}
    return wanted <= stems and {"conv_cat.weight", "upsampler.0.weight"} <= keys


def deduce(state: State, metadata: Mapping[str, str]) -> SpanConfig:
    """The hyper-parameters of fused weights; base and normalisation from `metadata` where stated.

    A `no_norm` key (community training frameworks write it) means that the input is taken as it is.
    Raises ModelError where the shapes contradict each other.
    """
    if "conv_1.eval_conv.weight" not in state:
        raise ModelError("the checkpoint lacks conv_1.eval_conv.weight")
    channels, inputs = state["conv_1.eval_conv.weight"].shape[:2]
    indices = {int(match[1]) for key in state if (match := re.match(r"block_(\d+)\.", key))}
    blocks = len(indices)
    if indices != set(range(1, blocks + 1)) or blocks < 2:
        raise ModelError(f"not a SPAN this project knows: its blocks are numbered {sorted(indices)}")
    outputs = int(state["upsampler.0.weight"].shape[0])
    unshuffle, shuffle = math.isqrt(inputs // 3), math.isqrt(outputs // 3)
    if inputs != 3 * unshuffle**2 or not unshuffle:
        raise ModelError(f"not an RGB SPAN: {inputs} input channels are not 3 x unshuffle x unshuffle")
    if outputs != 3 * shuffle**2 or not shuffle or shuffle % unshuffle:
        factor = "scale" if unshuffle == 1 else f"(scale x {unshuffle})"
        raise ModelError(f"not an RGB SPAN: {outputs} output channels are not 3 x {factor} x {factor}")
    if state["conv_cat.weight"].shape[1] != 4 * channels:
        raise ModelError("not a SPAN this project knows: conv_cat does not join four features")
    base = metadata.get("base", "none")
    if base not in ("none", "nearest"):
        raise ModelError(f"metadata says base={base}; known are none and nearest")
    img_range, mean = OFFICIAL_RANGE, OFFICIAL_MEAN
    if "no_norm" in state:
        img_range, mean = 1.0, (0.0, 0.0, 0.0)
    try:
        if "img_range" in metadata:
            img_range = float(metadata["img_range"])
        if "rgb_mean" in metadata:
            red, green, blue = (float(part) for part in metadata["rgb_mean"].split(","))
            mean = (red, green, blue)
    except ValueError:
        stated = ", ".join(f"{key}={metadata[key]}" for key in ("img_range", "rgb_mean") if key in metadata)
        raise ModelError(f"metadata says {stated}; img_range is one number, rgb_mean three with commas") from None
    return SpanConfig(
        channels=channels,
        scale=shuffle // unshuffle,
        blocks=blocks,
        unshuffle=unshuffle,
        base="nearest" if base == "nearest" else "none",
        img_range=img_range,
        rgb_mean=mean,
    )


def notes(config: SpanConfig) -> dict[str, str]:
    """What a model's metadata says of it, enough for `deduce`."""
    return {
        "channels": str(config.channels),
        "blocks": str(config.blocks),
        "unshuffle": str(config.unshuffle),
        "radius": str(config.radius),
        "base": config.base,
        "img_range": repr(config.img_range),
        "rgb_mean": ",".join(str(value) for value in config.rgb_mean),
    }


def fuse(state: State) -> dict[str, NDArray[np.float32]]:
    """The state with every training-form convolution replaced by its equal 3x3, `*.eval_conv.*`.

    A stored `eval_conv` beside a training form may be stale and is never used. Sums run in float64.
    """
    fused = {key: value for key, value in state.items() if not re.search(r"\.(sk|conv\.\d)\.", key)}
    stems = sorted({match[1] for key in state if (match := re.match(r"(.+)\.(sk|conv\.\d)\.(weight|bias)$", key))})
    for stem in stems:
        try:
            parts = {
                name: (
                    state[f"{stem}.{name}.weight"].astype(np.float64),
                    state[f"{stem}.{name}.bias"].astype(np.float64),
                )
                for name in ("sk", "conv.0", "conv.1", "conv.2")
            }
        except KeyError as error:
            raise ModelError(f"the checkpoint lacks {error.args[0]}, which {stem} needs to be fused") from None
        (w_skip, b_skip), (w0, b0), (w1, b1), (w2, b2) = parts.values()
        try:
            # 1x1, then 3x3, then 1x1 is one 3x3: the channel matrices multiply.
            weight = np.einsum("oq,qpyx,pi->oiyx", w2[:, :, 0, 0], w1, w0[:, :, 0, 0])
            bias = w2[:, :, 0, 0] @ (np.einsum("qpyx,p->q", w1, b0) + b1) + b2
            weight[:, :, 1, 1] += w_skip[:, :, 0, 0]
            bias = bias + b_skip
        except (ValueError, IndexError):
            raise ModelError(f"the shapes of sk and conv.0 to conv.2 in {stem} contradict each other") from None
        fused[f"{stem}.eval_conv.weight"] = weight.astype(np.float32)
        fused[f"{stem}.eval_conv.bias"] = bias.astype(np.float32)
    return fused


class Conv3(nn.Module):
    """A 3x3 convolution under the published key `eval_conv`; zero padding keeps the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.eval_conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.eval_conv(x)
        return result


class Block(nn.Module):
    """Swift parameter-free attention block: three convolutions gated by their own symmetric activation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c1_r = Conv3(channels, channels)
        self.c2_r = Conv3(channels, channels)
        self.c3_r = Conv3(channels, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float [N, C, H, W] -> (output, activated first feature), each of the same shape."""
        first = functional.silu(self.c1_r(x))
        third = self.c3_r(functional.silu(self.c2_r(first)))
        return (third + x) * (torch.sigmoid(third) - 0.5), first


class Span(nn.Module):
    """RGB float [N, 3, H, W] in 0..1 -> RGB float [N, 3, scale*H, scale*W], not clipped.

    Sizes that are no multiple of `unshuffle` are extended by the last row and column, and the result is cropped.
    """

    mean: Tensor

    def __init__(self, config: SpanConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.register_buffer("mean", torch.tensor(config.rgb_mean).view(1, 3, 1, 1), persistent=False)
        self.conv_1 = Conv3(3 * config.unshuffle**2, channels)
        for index in range(1, config.blocks + 1):
            self.add_module(f"block_{index}", Block(channels))
        self.conv_2 = Conv3(channels, channels)
        self.conv_cat = nn.Conv2d(4 * channels, channels, 1)
        self.upsampler = nn.Sequential(
            nn.Conv2d(channels, 3 * config.shuffle**2, 3, padding=1), nn.PixelShuffle(config.shuffle)
        )

    def halve(self) -> None:
        """Features in FP16 from now on; input and output, and the sums of the last convolution, stay FP32.

        The last convolution's inputs and weights are FP16's values in FP32, which TF32 holds as exactly.
        """
        for name, module in self.named_children():
            if name != "upsampler":
                module.half()
        last = self.upsampler[0]
        assert isinstance(last, nn.Conv2d)
        with torch.no_grad():
            last.weight.copy_(last.weight.half())

    def forward(self, x: Tensor) -> Tensor:
        inside, last = self.conv_cat.weight.dtype, self.upsampler[0].weight.dtype
        scale, unshuffle = self.config.scale, self.config.unshuffle
        height, width = x.shape[2:]
        if height % unshuffle or width % unshuffle:
            x = functional.pad(x, (0, -width % unshuffle, 0, -height % unshuffle), mode="replicate")
        centred = functional.pixel_unshuffle((x - self.mean) * self.config.img_range, unshuffle)
        feature = self.conv_1(centred.to(inside))
        outputs, value = [], feature
        for index in range(1, self.config.blocks + 1):
            value, first = self.get_submodule(f"block_{index}")(value)
            outputs.append(value)
        # The third feature is the last block's first one *after* its activation, as the published weights expect.
        joined = torch.cat([feature, self.conv_2(value), outputs[0], first], dim=1)
        upscaled: Tensor = self.upsampler(self.conv_cat(joined).to(last))
        if self.config.base == "nearest":
            upscaled = upscaled + functional.interpolate(x, scale_factor=scale, mode="nearest")
        return upscaled[:, :, : scale * height, : scale * width]

    @classmethod
    def from_state(cls, state: State, metadata: Mapping[str, str]) -> Span:
        """A network ready for inference from fused weights (`fuse`)."""
        network = cls(deduce(state, metadata))
        fill(network, state)
        return network


def build(state: State, metadata: Mapping[str, str]) -> Span:
    """The torch network from fused weights: what the reference engine runs."""
    return Span.from_state(state, metadata)


def export(build: Builder, image: str, state: State, config: SpanConfig) -> str:
    """SPAN as ONNX nodes, written out apart from the torch module so that each checks the other.

    image: tensor name of float32 [N, 3, H, W], height and width multiples of `unshuffle`. Initializers keep their
        state-dict keys. Returns the output's name.
    """
    unshuffle, shuffle = config.unshuffle, config.shuffle

    def conv(value: str, stem: str, size: int = 3) -> str:
        weight = build.constant(state[f"{stem}.weight"], f"{stem}.weight")
        bias = build.constant(state[f"{stem}.bias"], f"{stem}.bias")
        return build.op("Conv", value, weight, bias, name=stem, kernel_shape=[size, size], pads=[size // 2] * 4)

    def silu(value: str) -> str:
        return build.op("Mul", value, build.op("Sigmoid", value))

    half = build.constant(np.float32(0.5))
    if unshuffle > 1:
        # ONNX puts the colours of a pixel side by side; torch, for which the weights are, the pixels of a colour.
        order = np.arange(3 * unshuffle**2).reshape(unshuffle**2, 3).T.ravel()
        image = build.op("SpaceToDepth", image, blocksize=unshuffle)
        image = build.op("Gather", image, build.constant(order), axis=1)
    mean = build.constant(np.repeat(np.array(config.rgb_mean, np.float32), unshuffle**2).reshape(1, -1, 1, 1))
    centred = build.op("Mul", build.op("Sub", image, mean), build.constant(np.float32(config.img_range)))
    feature = conv(centred, "conv_1.eval_conv")
    value, first_output, first = feature, "", ""
    for index in range(1, config.blocks + 1):
        stem = f"block_{index}"
        first = silu(conv(value, f"{stem}.c1_r.eval_conv"))
        third = conv(silu(conv(first, f"{stem}.c2_r.eval_conv")), f"{stem}.c3_r.eval_conv")
        gate = build.op("Sub", build.op("Sigmoid", third), half)
        value = build.op("Mul", build.op("Add", third, value), gate)
        first_output = first_output or value
    joined = build.op("Concat", feature, conv(value, "conv_2.eval_conv"), first_output, first, axis=1)
    phases = conv(conv(joined, "conv_cat", 1), "upsampler.0")
    if config.base == "nearest":
        # Repeating the input over the phases before the shuffle is nearest upsampling, added where the last
        # convolution still has its full-precision sums.
        pixels = np.arange(3 * unshuffle**2).reshape(3, unshuffle, unshuffle)
        repeat = build.constant(pixels.repeat(config.scale, axis=1).repeat(config.scale, axis=2).ravel())
        phases = build.op("Add", phases, build.op("Gather", image, repeat, axis=1))
    return build.op("DepthToSpace", phases, blocksize=shuffle, mode="CRD")
