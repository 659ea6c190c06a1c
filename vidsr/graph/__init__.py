"""ONNX graphs: written node by node, and composed around a model for the planes of a frame layout.

    builder       nodes and initializers under a prefix; networks are written with it
    planes        the tensors at the border, one a plane
    border        the nodes from planes to RGB and back
    composition   compose: all of it around a model
    guard         nodes behind a model that leaves all reason
    chain         models that follow each other, as one
    measure       what a model does with sizes, how far it sees, and its memory

Only `onnx` and numpy. `vidsr.half` lowers a model's precision before it is composed.
"""

from __future__ import annotations

from onnx import ModelProto

from vidsr.graph.border import CODES_FROM_RGB, HEAD, RGB_FROM_CODES, TAIL
from vidsr.graph.builder import Builder, export_model, free_inputs, opset_of
from vidsr.graph.chain import CHAIN_REACH, Link, chained
from vidsr.graph.composition import compose
from vidsr.graph.guard import GUARD_REACH
from vidsr.graph.planes import Planes, PlaneTensor, plane_names, plane_tensors

__all__ = [
    "CHAIN_REACH",
    "CODES_FROM_RGB",
    "GUARD_REACH",
    "HEAD",
    "RGB_FROM_CODES",
    "TAIL",
    "Builder",
    "Link",
    "ModelProto",
    "PlaneTensor",
    "Planes",
    "chained",
    "compose",
    "export_model",
    "free_inputs",
    "opset_of",
    "plane_names",
    "plane_tensors",
]
