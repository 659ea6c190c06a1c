"""Measures models: on pairs of pictures by the field's convention, and on clips as people have them."""

from vidsr.evaluate.comparison import Box, Column, choose, sheet
from vidsr.evaluate.metrics import PSNR_OF_EQUALS, flicker, psnr, ssim, y_of
from vidsr.evaluate.pictures import Score, evaluate, pairs
from vidsr.evaluate.video import Footage, Small, VideoScore, footage_of, measure, small_of
from vidsr.resample import bicubic, shrink

__all__ = [
    "PSNR_OF_EQUALS",
    "Box",
    "Column",
    "Footage",
    "Score",
    "Small",
    "VideoScore",
    "bicubic",
    "choose",
    "evaluate",
    "flicker",
    "footage_of",
    "measure",
    "pairs",
    "psnr",
    "sheet",
    "shrink",
    "small_of",
    "ssim",
    "y_of",
]
