"""ESC as a torch module, under the published keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidsr.networks.esc_config import DYNAMIC, EPSILON, EscConfig

__all__ = ["Esc"]


class Norm(nn.LayerNorm):
    """Over the channels of [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeedForward(nn.Module):
    """Channels mixed in a wider space, with a look at the neighbours."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, hidden, 1)
        self.dwc = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.aggr = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = functional.gelu(self.proj(x))
        mixed: Tensor = self.aggr(functional.gelu(self.dwc(wide)) + wide)
        return mixed


class Attention(nn.Module):
    """Self-attention inside windows that begin at the picture's corner.

    What lacks for whole windows, below and to the right, is the picture reflected.
    """

    def __init__(self, config: EscConfig) -> None:
        super().__init__()
        channels, heads, self.window = config.channels, config.heads, config.window
        self.heads = heads
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.to_out = nn.Conv2d(channels, channels, 1)
        if config.rank:
            self.flashbias_q = nn.Parameter(torch.zeros(heads, self.window**2, config.rank))
            self.flashbias_k = nn.Parameter(torch.zeros(heads, self.window**2, config.rank))
        else:
            self.relative_position_bias = nn.Parameter(torch.zeros(heads, (2 * self.window - 1) ** 2))

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, H, W], the same back."""
        heads, side = self.heads, self.window
        height, width = x.shape[2:]
        down, right = -height % side, -width % side
        if down or right:
            x = _reflected(x, (0, down), (0, right))
        count, channels, tall, broad = x.shape
        windows = (tall // side, side, broad // side, side)
        qkv = self.to_qkv(x).view(count, 3, heads, channels // heads, *windows)
        query, key, value = qkv.permute(1, 0, 4, 6, 2, 5, 7, 3).reshape(3, -1, heads, side**2, channels // heads)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=self.bias())
        seen = seen.view(count, windows[0], windows[2], heads, side, side, -1).permute(0, 3, 6, 1, 4, 2, 5)
        result: Tensor = self.to_out(seen.reshape(count, channels, tall, broad)[:, :, :height, :width])
        return result

    def bias(self) -> Tensor:
        """float [1, heads, window**2, window**2], what is added for a pixel (last axis) seen from another."""
        heads, side = self.heads, self.window
        if hasattr(self, "flashbias_q"):
            return (self.flashbias_q @ self.flashbias_k.transpose(1, 2))[None]
        table = self.relative_position_bias.view(heads, 2 * side - 1, 2 * side - 1)
        # The table's middle is a pixel's own place: seen from row r, row 0 of the window is row side - 1 - r of it.
        return table.unfold(1, side, 1).unfold(2, side, 1).flip(1, 2).reshape(1, heads, side**2, side**2)


def _reflected(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """[N, C, H, W] mirrored at its outer pixels by so many (before, behind), again and again if it is that small."""
    places = []
    for length, (before, behind) in zip(x.shape[2:], (rows, columns), strict=True):
        period = max(2 * (length - 1), 1)
        place = torch.arange(-before, length + behind, device=x.device) % period
        places.append(torch.minimum(place, period - place))
    return x[:, :, places[0][:, None], places[1]]


class Layer(nn.Module):
    """The part of a layer that sees far (published as `pconvs`)."""

    def __init__(self, config: EscConfig) -> None:
        super().__init__()
        self.far = config.far
        kernel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(config.far, config.squeeze, 1),
            nn.GELU(),
            nn.Conv2d(config.squeeze, config.far * DYNAMIC**2, 1),
        )
        self.plk = nn.ModuleDict({"proj" if config.form == "esc-fp" else "dwc_proj": kernel})
        self.aggr = nn.Conv2d(config.channels, config.channels, 1)

    def forward(self, x: Tensor, large: Tensor, before: Tensor | None) -> Tensor:
        """large: the shared kernel [far, far, k, k], or [far, 1, k, k] with `before`, the 1x1 kernel ahead of it."""
        head, rest = x[:, : self.far], x[:, self.far :]
        (maker,) = self.plk.values()
        own = maker(head).reshape(-1, 1, DYNAMIC, DYNAMIC)
        if before is not None:
            head = functional.conv2d(head, before)
        # A batch as channels: each picture has a kernel of its own.
        flat = head.reshape(1, -1, *head.shape[2:])
        near = functional.conv2d(flat, own, padding=DYNAMIC // 2, groups=flat.shape[1]).view_as(head)
        wide = functional.conv2d(head, large, padding=large.shape[-1] // 2, groups=self.far // large.shape[1])
        result: Tensor = self.aggr(torch.cat([wide + near, rest], dim=1))
        return result


class Block(nn.Module):
    """Attention, then layers that emulate it."""

    def __init__(self, config: EscConfig) -> None:
        super().__init__()
        channels, layers = config.channels, range(config.layers)
        self.ln_proj = Norm(channels)
        self.proj = FeedForward(channels, config.wide)
        self.ln_attn = Norm(channels)
        self.attn = Attention(config)
        self.lns = nn.ModuleList(Norm(channels) if config.normed else nn.Identity() for _ in layers)
        self.pconvs = nn.ModuleList(Layer(config) for _ in layers)
        self.convffns = nn.ModuleList(FeedForward(channels, config.hidden) for _ in layers)
        self.ln_out = Norm(channels)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, large: Tensor, before: Tensor | None) -> Tensor:
        value = self.proj(self.ln_proj(x))
        value = value + self.attn(self.ln_attn(value))
        for norm, layer, feed in zip(self.lns, self.pconvs, self.convffns, strict=True):
            value = value + layer(feed(norm(value)), large, before)
        result: Tensor = self.conv_out(self.ln_out(value)) + x
        return result


class Esc(nn.Module):
    """RGB float32 [N, 3, H, W] in 0..1 -> RGB float32 [N, 3, scale*H, scale*W], not clipped."""

    def __init__(self, config: EscConfig) -> None:
        super().__init__()
        self.config = config
        channels, far, size = config.channels, config.far, config.kernel
        self.proj = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        if config.form == "esc-fp":
            self.lk_channel = nn.Parameter(torch.zeros(far, far, 1, 1))
            self.lk_spatial = nn.Parameter(torch.zeros(far, 1, size, size))
            self.ln_last = Norm(channels)
        else:
            self.plk_filter = nn.Parameter(torch.zeros(far, far, size, size))
        self.to_img: nn.Conv2d | nn.ModuleDict
        if config.form == "esc-real":
            wide = 2 * channels
            seventh = nn.Conv2d(wide, wide, 7, groups=wide)
            self.skip = nn.Sequential(nn.Conv2d(3, wide, 1), seventh, nn.LeakyReLU(0.2), nn.Conv2d(wide, channels, 1))
            *inner, end = map(str, config.convolutions)
            self.to_img = nn.ModuleDict({place: nn.Conv2d(channels, channels, 3, padding=1) for place in inner})
            self.to_img[end] = nn.Conv2d(channels, 3, 3, padding=1)
        else:
            self.to_img = nn.Conv2d(channels, 3 * config.scale**2, 3, padding=1)

    def halve(self) -> None:
        """Features in FP16 from now on; input and output, and the sums of the last convolution, stay FP32."""
        self.half()
        self._end.float()

    @property
    def _end(self) -> nn.Conv2d:
        """The last convolution, whose result is the picture."""
        end = self.to_img if isinstance(self.to_img, nn.Conv2d) else list(self.to_img.values())[-1]
        assert isinstance(end, nn.Conv2d)
        return end

    def forward(self, x: Tensor) -> Tensor:
        given = x.to(self.proj.weight.dtype)
        shallow = value = self.proj(given)
        separable = self.config.form == "esc-fp"
        large, before = (self.lk_spatial, self.lk_channel) if separable else (self.plk_filter, None)
        for block in self.blocks:
            value = block(value, large, before)
        value = self.last(self.ln_last(value) if separable else value) + shallow
        if self.config.form == "esc-real":
            return self._upsampled(value + self.skip(_reflected(given, (3, 3), (3, 3))))
        picture: Tensor = functional.pixel_shuffle(self._end(value.to(self._end.weight.dtype)), self.config.scale)
        return picture + functional.interpolate(
            x, scale_factor=self.config.scale, mode="bicubic" if separable else "nearest"
        )

    def _upsampled(self, value: Tensor) -> Tensor:
        """By ESC-Real: twice as large before each of the first two convolutions."""
        assert isinstance(self.to_img, nn.ModuleDict)
        *inner, end = self.to_img.values()
        for index, convolution in enumerate(inner):
            if index < 2:
                value = functional.interpolate(value, scale_factor=2, mode="nearest")
            value = functional.leaky_relu(convolution(value), 0.2)
        picture: Tensor = end(value.to(self._end.weight.dtype))
        return picture
