"""ESC as ONNX nodes, written out apart from the torch module so that each checks the other.

Two things look unlike torch. A layer's own 3x3 kernel is a sum of shifted products, because ONNX has no convolution
with another kernel for each picture. And windows are cut out, and put back, by one Gather of pixels each: that reflects
what lacks for whole windows at any size, and the places are computed once for all blocks.
"""

from __future__ import annotations

import math

import numpy as np

from vidsr.graph import Builder
from vidsr.networks import State
from vidsr.networks.esc_config import DYNAMIC, EPSILON, EscConfig

__all__ = ["export"]

_END = 2**31 - 1
"""Behind the last place of any axis, for Slice."""


def export(build: Builder, image: str, state: State, config: EscConfig) -> str:
    """image: name of float32 [N, 3, H, W]. Initializers keep their state-dict keys. Returns the output's name."""
    return _Writer(_Nodes(build, state), image, config).picture()


class _Nodes:
    """What several parts need; methods take and give names of tensors."""

    def __init__(self, build: Builder, state: State) -> None:
        self.build, self.op, self._state = build, build.op, state
        self._integers: dict[tuple[int, ...], str] = {}

    def weight(self, key: str) -> str:
        return self.build.constant(self._state[key], key)

    def number(self, value: float) -> str:
        return self.build.constant(np.float32(value))

    def integers(self, *values: int) -> str:
        """int64 [len(values)]"""
        if values not in self._integers:
            self._integers[values] = self.build.constant(values)
        return self._integers[values]

    def part(self, value: str, axis: int, begin: int, end: int) -> str:
        return self.op("Slice", value, self.integers(begin), self.integers(end), self.integers(axis))

    def conv(self, value: str, stem: str, size: int, group: int = 1, pad: bool = True) -> str:
        weight, bias = self.weight(f"{stem}.weight"), self.weight(f"{stem}.bias")
        pads = [size // 2 * pad] * 4
        return self.op("Conv", value, weight, bias, name=stem, kernel_shape=[size, size], pads=pads, group=group)

    def linear(self, value: str, stem: str) -> str:
        """A 1x1 convolution of what has its channels last."""
        weight = self.op("Transpose", self.op("Squeeze", self.weight(f"{stem}.weight"), self.integers(2, 3)))
        return self.op("Add", self.op("MatMul", value, weight), self.weight(f"{stem}.bias"), name=stem)

    def gelu(self, value: str) -> str:
        erf = self.op("Erf", self.op("Div", value, self.number(math.sqrt(2))))
        return self.op("Mul", self.op("Mul", value, self.op("Add", erf, self.number(1))), self.number(0.5))

    def enlarged(self, value: str, factor: int, mode: str) -> str:
        scales = self.build.constant([1.0, 1.0, float(factor), float(factor)])
        place = "asymmetric" if mode == "nearest" else "half_pixel"
        return self.op(
            "Resize", value, "", scales, mode=mode, coordinate_transformation_mode=place, nearest_mode="floor",
            cubic_coeff_a=-0.75,
        )  # fmt: skip

    def counted(self, first: int, count: str) -> str:
        """int64 [count], from `first` on. count: int64 [1]; a Reshape tells shape inference the length."""
        begin = self.integers(first)
        ends = [self.op("Squeeze", value) for value in (begin, self.op("Add", begin, count), self.integers(1))]
        return self.op("Reshape", self.op("Range", *ends), count)

    def mirrored(self, places: str, length: str) -> str:
        """Places outside of 0 to length - 1 reflected to where a picture has its pixels, again and again."""
        twice = self.op("Mul", self.op("Sub", length, self.integers(1)), self.integers(2))
        period = self.op("Max", twice, self.integers(1))
        place = self.op("Mod", places, period)
        return self.op("Min", place, self.op("Sub", period, place))


class _Windows:
    """Places of pixels in windows, from the picture's size; all int64.

    inside: of the picture's pixels, for every pixel of every window. back: of the windows' pixels, for every pixel of
    the picture.
    """

    def __init__(self, nodes: _Nodes, image: str, side: int) -> None:
        op, integers = nodes.op, nodes.integers
        self.batch, self.height, self.width = (
            op("Gather", op("Shape", image), integers(axis), axis=0) for axis in (0, 2, 3)
        )
        window, one = integers(side), integers(1)
        corners = op("Slice", image, integers(0, 0), integers(_END, _END), integers(2, 3), integers(side, side))
        down, right = (op("Gather", op("Shape", corners), integers(axis), axis=0) for axis in (2, 3))
        rows, columns = (
            nodes.mirrored(nodes.counted(0, op("Mul", count, window)), length)
            for count, length in ((down, self.height), (right, self.width))
        )
        rows = op("Reshape", rows, op("Concat", down, one, window, one, axis=0))
        columns = op("Reshape", columns, op("Concat", one, right, one, window, axis=0))
        self.inside = op("Reshape", op("Add", op("Mul", rows, self.width), columns), integers(-1))
        row = op("Reshape", nodes.counted(0, self.height), integers(-1, 1))
        column = nodes.counted(0, self.width)
        whole = op("Add", op("Mul", op("Div", row, window), right), op("Div", column, window))
        rest = op("Add", op("Mul", op("Mod", row, window), window), op("Mod", column, window))
        places = op("Add", op("Mul", whole, integers(side**2)), rest)
        self.back = op("Reshape", places, integers(-1))


class _Writer:
    """The network; methods take and give names of tensors."""

    def __init__(self, nodes: _Nodes, image: str, config: EscConfig) -> None:
        self._nodes, self._image, self._config = nodes, image, config
        self._windows = _Windows(nodes, image, config.window)
        # Rows and columns of a window that come before each of them in the bias's table, the last first.
        shifted = np.arange(config.window)[::-1, None] + np.arange(config.window)
        self._shifted = nodes.build.constant(shifted)

    def picture(self) -> str:
        nodes, op, config = self._nodes, self._nodes.op, self._config
        shallow = value = nodes.conv(self._image, "proj", 3)
        separable = config.form == "esc-fp"
        large = [nodes.weight(key) for key in (("lk_spatial", "lk_channel") if separable else ("plk_filter",))]
        for block in range(config.blocks):
            value = self._block(value, f"blocks.{block}", *large)
        value = self._norm(value, "ln_last") if separable else value
        value = op("Add", nodes.conv(value, "last", 3), shallow)
        if config.form == "esc-real":
            return self._upsampled(op("Add", value, self._skip()))
        phases = nodes.conv(value, "to_img", 3)
        if not separable:
            # Repeating a pixel over the phases before the shuffle is nearest upsampling.
            repeat = nodes.integers(*np.arange(3).repeat(config.scale**2).tolist())
            phases = op("Add", phases, op("Gather", self._image, repeat, axis=1))
        picture = op("DepthToSpace", phases, blocksize=config.scale, mode="CRD")
        return op("Add", picture, nodes.enlarged(self._image, config.scale, "cubic")) if separable else picture

    def _skip(self) -> str:
        """ESC-Real's second way past the blocks."""
        nodes, op, wide = self._nodes, self._nodes.op, 2 * self._config.channels
        value = self._image
        for axis, length in ((2, self._windows.height), (3, self._windows.width)):
            places = nodes.counted(-3, op("Add", length, nodes.integers(6)))
            value = op("Gather", value, nodes.mirrored(places, length), axis=axis)
        value = nodes.conv(nodes.conv(value, "skip.0", 1), "skip.1", 7, group=wide, pad=False)
        return nodes.conv(op("LeakyRelu", value, alpha=0.2), "skip.3", 1)

    def _upsampled(self, value: str) -> str:
        """By ESC-Real: twice as large before each of the first two convolutions."""
        nodes, convolutions = self._nodes, self._config.convolutions
        for index, place in enumerate(convolutions):
            if index < 2:
                value = nodes.enlarged(value, 2, "nearest")
            value = nodes.conv(value, f"to_img.{place}", 3)
            if place != convolutions[-1]:
                value = nodes.op("LeakyRelu", value, alpha=0.2)
        return value

    def _block(self, x: str, stem: str, *large: str) -> str:
        nodes, op, config = self._nodes, self._nodes.op, self._config
        value = self._feed(self._norm(x, f"{stem}.ln_proj"), f"{stem}.proj", config.wide)
        value = op("Add", value, self._attention(value, stem))
        for index in range(config.layers):
            mixed = self._norm(value, f"{stem}.lns.{index}") if config.normed else value
            mixed = self._feed(mixed, f"{stem}.convffns.{index}", config.hidden)
            value = op("Add", value, self._layer(mixed, f"{stem}.pconvs.{index}", *large))
        return op("Add", nodes.conv(self._norm(value, f"{stem}.ln_out"), f"{stem}.conv_out", 3), x)

    def _norm(self, x: str, stem: str) -> str:
        return self._nodes.op("Transpose", self._norm_last(x, stem), perm=[0, 3, 1, 2])

    def _norm_last(self, x: str, stem: str) -> str:
        """[N, C, H, W] to [N, H, W, C]"""
        nodes = self._nodes
        last = nodes.op("Transpose", x, perm=[0, 2, 3, 1])
        weights = [nodes.weight(f"{stem}.{part}") for part in ("weight", "bias")]
        return nodes.op("LayerNormalization", last, *weights, axis=-1, epsilon=EPSILON)

    def _feed(self, x: str, stem: str, hidden: int) -> str:
        nodes = self._nodes
        wide = nodes.gelu(nodes.conv(x, f"{stem}.proj", 1))
        near = nodes.gelu(nodes.conv(wide, f"{stem}.dwc", 3, group=hidden))
        return nodes.conv(nodes.op("Add", near, wide), f"{stem}.aggr", 1)

    def _layer(self, x: str, stem: str, large: str, before: str | None = None) -> str:
        """large, before: see the torch module."""
        nodes, op, config = self._nodes, self._nodes.op, self._config
        far, size = config.far, config.kernel
        head, tail = nodes.part(x, 1, 0, far), nodes.part(x, 1, far, _END)
        maker = f"{stem}.plk.{'proj' if before else 'dwc_proj'}"
        own = nodes.gelu(nodes.conv(op("GlobalAveragePool", head), f"{maker}.1", 1))
        own = op("Reshape", nodes.conv(own, f"{maker}.3", 1), nodes.integers(0, far, DYNAMIC**2, 1))
        if before:
            head = op("Conv", head, before, kernel_shape=[1, 1])
        groups = far if before else 1
        wide = op("Conv", head, large, kernel_shape=[size, size], pads=[size // 2] * 4, group=groups)
        mixed = op("Concat", op("Add", wide, self._near(head, own)), tail, axis=1)
        return nodes.conv(mixed, f"{stem}.aggr", 1)

    def _near(self, x: str, kernel: str) -> str:
        """[N, C, H, W], each channel of each picture convolved with its own 3x3 kernel, [N, C, 9, 1]."""
        nodes, op = self._nodes, self._nodes.op
        padded = op("Pad", x, nodes.integers(0, 0, 1, 1, 0, 0, 1, 1))
        spans = ((0, -2), (1, -1), (2, _END))
        columns = [nodes.part(padded, 3, *span) for span in spans]
        rows = []
        for row, span in enumerate(spans):
            places = range(3 * row, 3 * row + 3)
            products = [op("Mul", columns[at % 3], nodes.part(kernel, 2, at, at + 1)) for at in places]
            rows.append(nodes.part(self._sum(products), 2, *span))
        return self._sum(rows)

    def _sum(self, values: list[str]) -> str:
        total = values[0]
        for value in values[1:]:
            total = self._nodes.op("Add", total, value)
        return total

    def _attention(self, x: str, stem: str) -> str:
        """As compilers know and fuse it: [N, pixels, heads, channels] transposed, two products, one Softmax between."""
        nodes, op, config, windows = self._nodes, self._nodes.op, self._config, self._windows
        channels, heads, pixels = config.channels, config.heads, config.window**2
        last = op("Reshape", self._norm_last(x, f"{stem}.ln_attn"), nodes.integers(0, -1, channels))
        inside = op("Reshape", op("Gather", last, windows.inside, axis=1), nodes.integers(-1, pixels, channels))
        qkv = nodes.linear(inside, f"{stem}.attn.to_qkv")
        query, key, value = (
            op(
                "Transpose",
                op("Reshape", part, nodes.integers(0, pixels, heads, channels // heads)),
                perm=[0, 2, 3, 1] if at == 1 else [0, 2, 1, 3],
            )
            for at, part in enumerate(nodes.part(qkv, 2, at * channels, (at + 1) * channels) for at in range(3))
        )
        scores = op("Mul", op("MatMul", query, key), nodes.number((channels // heads) ** -0.5))
        shares = op("Softmax", op("Add", scores, self._bias(f"{stem}.attn")), axis=-1)
        seen = op("Transpose", op("MatMul", shares, value), perm=[0, 2, 1, 3])
        flat = op("Reshape", seen, op("Concat", windows.batch, nodes.integers(-1, channels), axis=0))
        back = nodes.linear(op("Gather", flat, windows.back, axis=1), f"{stem}.attn.to_out")
        shape = op("Concat", windows.batch, nodes.integers(channels), windows.height, windows.width, axis=0)
        return op("Reshape", op("Transpose", back, perm=[0, 2, 1]), shape)

    def _bias(self, stem: str) -> str:
        """[heads, window**2, window**2] made of weights alone, so that compilers make it once."""
        nodes, op, config = self._nodes, self._nodes.op, self._config
        if config.rank:
            factor = op("Transpose", nodes.weight(f"{stem}.flashbias_k"), perm=[0, 2, 1])
            return op("MatMul", nodes.weight(f"{stem}.flashbias_q"), factor)
        side, table = 2 * config.window - 1, nodes.weight(f"{stem}.relative_position_bias")
        table = op("Reshape", table, nodes.integers(config.heads, side, side))
        rows = op("Gather", table, self._shifted, axis=1)
        both = op("Transpose", op("Gather", rows, self._shifted, axis=3), perm=[0, 1, 3, 2, 4])
        return op("Reshape", both, nodes.integers(config.heads, config.window**2, config.window**2))
