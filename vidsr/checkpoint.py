"""Turns published checkpoints into models."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from vidsr import models, networks
from vidsr.errors import ModelError, OutputError, UsageError, first_line
from vidsr.graph import export_model
from vidsr.networks import State
from vidsr.stability import examine

__all__ = ["check_name", "fused_checkpoint", "import_checkpoint", "read_checkpoint"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WRAPPERS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "net")


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(weights as float32 arrays by key, metadata) of a `.safetensors` or `.pth` file.

    Pickled files are read weights-only: a file that wants to run code is refused. Raises ModelError.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint")
    if path.suffix.lower() == ".safetensors":
        state, metadata = _safetensors(path)
    elif path.suffix.lower() in models.CHECKPOINT_SUFFIXES:
        state, metadata = _pickled(path), {}
    else:
        raise ModelError(f"{path}: not a checkpoint; vidsr reads .safetensors, .pth, .pt and .ckpt")
    if not state:
        raise ModelError(f"{path}: holds no weights")
    return state, metadata


def _safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    networks.need_torch()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as opened:
            state = {key: opened.get_tensor(key).float().numpy() for key in opened.keys()}  # noqa: SIM118 - not a dict
            # In an order of chance, which would make another file of the same model each time.
            return state, dict(sorted((opened.metadata() or {}).items()))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({first_line(error)})") from error


def _pickled(path: Path) -> dict[str, Any]:
    networks.need_torch()
    import pickle

    import torch

    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path}: wants to run code when loaded, or is damaged; refused") from error
    except Exception as error:  # damaged files end in struct.error, IndexError, AssertionError and more
        raise ModelError(f"{path}: not a readable checkpoint ({first_line(error)})") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: holds a {type(content).__name__}, not weights by name")
    return {
        key.removeprefix("module."): value.detach().float().numpy()
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }


def check_name(name: str, place: str) -> None:
    """Raises UsageError for what cannot be a model's name. place: where it was given."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{place} {name}: use letters, digits, dots, dashes and underscores")
    if Path(name).suffix.lower() in (".onnx", *models.CHECKPOINT_SUFFIXES):
        raise UsageError(f"{place} {name}: that is the name of a file; leave out {Path(name).suffix}")


def import_checkpoint(
    path: Path, name: str, *, license: str = "", overwrite: bool = False, folder: Path | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Writes a checkpoint as the model `name` into `folder` (by default the user's) and returns its path.

    metadata: added to what the checkpoint itself says, and to what is written into the model, beside the figures of
        its stability and whether it needs the guard.
    What is none of our networks is left to spandrel, where that is installed (`vidsr.foreign`).
    Raises ModelError for what is no known network or cannot be exported, UsageError for an unusable name,
    OutputError, BackendError.
    """
    check_name(name, "--name")
    folder = folder or models.user_folder()
    target = folder / f"{name}.onnx"
    taken = {path.stem: path for path in [*models.installed(), *folder.glob("*.onnx")]}
    if name in taken and not overwrite:
        raise OutputError(
            f"{taken[name]} is a model of that name: choose another --name, or add -y to put this one in its place"
        )
    state, stated = read_checkpoint(path)
    stated = {**stated, **(metadata or {}), **({"license": license} if license else {})}
    try:
        network = _recognised(state)
        model = _foreign(state, stated, name, path) if network is None else _model(network, state, stated, name)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    _examine(model, target)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".part")
    try:
        onnx.save(model, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _examine(proto: onnx.ModelProto, path: Path) -> None:
    """Writes what `vidsr.stability` finds into the metadata of what `_model` made."""
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    model = models.Model(name=path.stem, path=path, proto=proto, scale=int(metadata["scale"]), metadata=metadata)
    onnx.helper.set_model_props(proto, metadata | examine(model).metadata)


def fused_checkpoint(path: Path) -> tuple[Any, State, dict[str, str]]:
    """(module of the network, its weights in the plain form, metadata) of a checkpoint of ours. Raises ModelError."""
    state, stated = read_checkpoint(path)
    try:
        if (network := _recognised(state)) is None:
            raise _unknown(state)
        return network, network.fuse(state), stated
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _recognised(state: State) -> Any:
    """The module of one of our networks, or None."""
    known = (networks.load(name) for name in networks.MODULES)
    return next((network for network in known if network.recognise(frozenset(state))), None)


def _unknown(state: State) -> ModelError:
    family = next((label for mark, label in _OTHERS.items() if any(mark in key for key in state)), "an unknown network")
    spandrel = " and what spandrel knows" if find_spec("spandrel") else " (more with pip install 'vidsr[spandrel]')"
    return ModelError(f"holds {family}, which vidsr cannot import; it knows {', '.join(networks.MODULES)}{spandrel}")


_OTHERS = {
    "conv_near.": "SPAN-F (NTIRE 2024 team 24)",
    "RDB1": "RRDB (ESRGAN)",
    "rdb1": "RRDB (ESRGAN)",
    "body.0.rdb": "RRDB (ESRGAN)",
    "relative_position_bias_table": "a Swin-type transformer",
    "upsampler.MetaUpsample": "DAT or a MetaUpsample network",
    "to_feat": "PLKSR or RealPLKSR",
}
"""Key fragments of networks people try, to name what was refused."""


def _foreign(state: State, stated: Mapping[str, str], name: str, path: Path) -> onnx.ModelProto:
    """What spandrel knows, where it is installed."""
    if find_spec("spandrel") is None:
        raise _unknown(state)
    from vidsr import foreign

    network = foreign.recognised(state)
    if network is None:
        raise _unknown(state)
    model = network.exported(name)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    notes["source_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    onnx.helper.set_model_props(model, _kept(stated, notes) | notes)
    return model


def _model(network: Any, state: State, stated: Mapping[str, str], name: str) -> onnx.ModelProto:
    state = network.fuse(state)
    config = network.deduce(state, stated)
    network.build(state, stated)  # refuses missing or misshapen weights with a clear word
    notes = {"network": network.NAME, "scale": str(config.scale), **network.notes(config)}
    return export_model(
        lambda build, image: network.export(build, image, state, config),
        name=name, metadata=_kept(stated, notes) | notes,
    )  # fmt: skip


def _kept(stated: Mapping[str, str], notes: Mapping[str, str]) -> dict[str, str]:
    """Of what a checkpoint says, all that is not found out here."""
    return {key: value for key, value in stated.items() if key not in notes and isinstance(value, str)}
