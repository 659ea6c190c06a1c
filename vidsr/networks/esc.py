"""ESC: self-attention emulated by convolution (Lee, Yun and Ro, ICCV 2025; arXiv 2503.06671). Needs torch.

Written from the paper and the published checkpoints' keys. A block begins with attention inside windows of 32x32 and
goes on with layers in which some channels see far: through one large kernel that all layers share, and a 3x3 kernel
that each layer makes from the mean of its own features.

Three forms are published: ESC (light and large ones differ in sizes only), ESC-FP, whose large kernel is a product of
1x1 and depthwise, and ESC-Real, which upsamples by nearest neighbours and convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vidsr.errors import ModelError
from vidsr.networks import State
from vidsr.networks.esc_config import EscConfig, deduced
from vidsr.networks.esc_export import export
from vidsr.networks.esc_module import Esc
from vidsr.networks.filling import fill

__all__ = ["NAME", "Esc", "EscConfig", "build", "deduce", "export", "fuse", "notes", "recognise"]

NAME = "esc"
TILE_OVERLAP = 64
"""Pixels around a tile, by measurement: see docs/esc.md."""


def recognise(keys: frozenset[str]) -> bool:
    """Whether a checkpoint's keys are those of ESC."""
    block = {"attn.to_qkv.weight", "pconvs.0.aggr.weight", "convffns.0.dwc.weight", "conv_out.weight"}
    return {f"blocks.0.{key}" for key in block} <= keys and not keys.isdisjoint({"plk_filter", "lk_spatial"})


def deduce(state: State, metadata: Mapping[str, str]) -> EscConfig:
    """The hyper-parameters of fused weights. Raises ModelError where they are of a form that is not known."""
    if unknown := [key for key in ("to_img.MetaUpsample", "to_img.offset.weight", "proj.1.weight") if key in state]:
        raise ModelError(f"an ESC-Real with another upsampler than the published x4 ({unknown[0]}) is not known here")
    try:
        return deduced(state)
    except KeyError as error:
        raise ModelError(f"the checkpoint lacks {error.args[0]}") from None


def notes(config: EscConfig) -> dict[str, str]:
    """What a model's metadata says of it."""
    return {
        "form": config.form,
        "channels": str(config.channels),
        "blocks": str(config.blocks),
        "window": str(config.window),
        "tile_overlap": str(TILE_OVERLAP),
        "tile_step": str(config.window),
    }


def fuse(state: State) -> dict[str, NDArray[np.float32]]:
    """The state with the large kernel averaged over the eight ways to turn and mirror it, as the network uses it."""
    fused = dict(state)
    if "plk_filter" in state and state["plk_filter"].ndim == 4:
        kernel = state["plk_filter"].astype(np.float64)
        if kernel.shape[2] != kernel.shape[3]:
            raise ModelError(f"plk_filter is {list(kernel.shape)}, which is no square kernel")
        turned = [np.rot90(kernel, turns, (2, 3)) for turns in range(4)]
        fused["plk_filter"] = np.mean([*turned, *(kernel[..., ::-1] for kernel in turned)], axis=0).astype(np.float32)
    return fused


def build(state: State, metadata: Mapping[str, str]) -> Esc:
    """The torch network from fused weights: what the reference engine runs."""
    network = Esc(deduce(state, metadata))
    fill(network, state)
    return network
