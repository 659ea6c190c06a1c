"""Weights into torch modules. Needs torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from vidsr.errors import ModelError
from vidsr.networks import State

__all__ = ["fill"]


def fill(network: nn.Module, state: State) -> None:
    """Makes a network ready for inference with its weights from `state`; keys it does not know are left over.

    Raises ModelError where weights are missing or have another shape.
    """
    wanted = network.state_dict()
    if missing := sorted(wanted.keys() - state.keys()):
        raise ModelError(f"the checkpoint lacks {missing[0]} ({len(missing)} missing in all)")
    for key, tensor in wanted.items():
        if state[key].shape != tuple(tensor.shape):
            raise ModelError(f"{key} is {list(state[key].shape)} where {list(tensor.shape)} is needed")
    network.load_state_dict({key: torch.from_numpy(np.array(state[key], np.float32)) for key in wanted})
    network.eval()
