"""Weights between runs: what a run begins from, learns from, and leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import nn

from vidsr import models
from vidsr.checkpoint import fused_checkpoint
from vidsr.errors import InputError, OutputError, first_line
from vidsr.networks import State
from vidsr.networks.span import NAME, OFFICIAL_MEAN, Span, deduce
from vidsr.quantise import KEY, text_from_ranges
from vidsr.training.quantise import ranges_of

__all__ = ["read_start", "read_teacher", "write_weights"]


def read_start(name: str) -> tuple[State, Path]:
    """A SPAN's weights for `network_from`, whose input is 0..1 and not 0..255 as some are made for, and their file.

    name: a checkpoint, or a model that came with vidsr or out of a run, by name or file. Raises ModelError for another
    network, InputError for one with another base or mean.
    """
    path = Path(name)
    if path.suffix.lower() in models.CHECKPOINT_SUFFIXES:
        built, fused, stated = fused_checkpoint(path)
        network = built.NAME
    else:
        model = models.load(name)
        path, stated = model.path, model.metadata
        network, fused = stated.get("network", ""), model.state()  # initializers keep their state-dict keys
    config = deduce(fused, stated) if network == NAME else None
    if config is None or config.base != "nearest" or config.rgb_mean != OFFICIAL_MEAN:
        raise InputError(
            f"{path}: cannot be begun from; a SPAN that adds to the repeated input (base=nearest) is needed"
        )
    first = "conv_1.eval_conv.weight"
    return {**fused, first: fused[first] * np.float32(config.img_range)}, path


def read_teacher(path: Path, scale: int) -> nn.Module:
    """Any network vidsr knows, for inference. Raises ModelError, InputError for one of another scale."""
    network, fused, stated = fused_checkpoint(path)
    if (found := network.deduce(fused, stated).scale) != scale:
        raise InputError(f"--teacher {path}: enlarges {found} times, and the recipe {scale} times; they must be alike")
    built: nn.Module = network.build(fused, stated)
    return built.requires_grad_(False)


def write_weights(path: Path, network: Span, notes: Mapping[str, str]) -> None:
    """A checkpoint that `vidsr import` takes, with `notes` and its ranges for INT8 in its metadata. Raises
    OutputError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    config = network.config
    stated = {
        "base": config.base,
        "img_range": repr(config.img_range),
        "rgb_mean": ",".join(str(value) for value in config.rgb_mean),
    }
    if ranges := ranges_of(network):
        stated[KEY] = text_from_ranges(ranges)
    wanted = Span(config).state_dict()
    state = {key: value.float().cpu().contiguous() for key, value in network.state_dict().items() if key in wanted}
    part = path.with_name(f"{path.name}.part")
    try:
        save_file(state, part, metadata={**notes, **stated})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path}: cannot be written ({first_line(error)})") from error
    finally:
        part.unlink(missing_ok=True)
