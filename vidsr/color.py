"""Colour: what the tags mean, and the matrices between code values and RGB. numpy only.

Codes are those of ITU-T H.273 (the numbers FFmpeg and every modern container use).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BT601",
    "BT709",
    "LUMA_WEIGHTS",
    "RGB",
    "UNSPECIFIED",
    "ColorTags",
    "Conversion",
    "HdrMetadata",
    "conversion",
]

UNSPECIFIED = 2
RGB = 0
BT709 = 1
BT601 = 6

LUMA_WEIGHTS: dict[int, tuple[float, float]] = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.470BG
    6: (0.299, 0.114),  # SMPTE 170M (BT.601)
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020 non-constant luminance
}
"""`(Kr, Kb)` by H.273 matrix code. A new matrix is one row here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorTags:
    """H.273 code points as the file states them; 2 means unspecified and stays so in the output.

    full_range: True full, False limited, None unstated.
    """

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    full_range: bool | None = None

    def resolved(self, *, height: int, width: int, rgb: bool) -> ColorTags:
        """These tags with matrix and range made definite for conversion.

        Untagged YUV is BT.709 from 720 lines or 1280 columns on, else BT.601 (the usual size rule), limited range.
        Matrices this table does not hold (YCgCo, ICtCp, constant luminance) count as untagged.
        """
        if rgb:
            return replace(self, matrix=RGB, full_range=self.full_range is not False)
        matrix = self.matrix
        if matrix not in LUMA_WEIGHTS:
            matrix = BT709 if height >= 720 or width >= 1280 else BT601
        return replace(self, matrix=matrix, full_range=bool(self.full_range))


@dataclass(frozen=True, slots=True, kw_only=True)
class HdrMetadata:
    """HDR10 static metadata: what the mastering display could show, and how bright the content is.

    primaries: CIE 1931 (x, y) of red, green, blue and white (SMPTE ST 2086). luminance: (lowest, highest) in cd/m2.
    max_cll, max_fall: brightest pixel and brightest frame average in cd/m2 (CTA-861.3). None where not stated.
    """

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    max_cll: int | None = None
    max_fall: int | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """Affine maps between plane code values and RGB, as the graph's inputs.

    rgb_from_codes: float32 [3, 4]; RGB (0..1) = M[:, :3] @ (plane 0, 1, 2) + M[:, 3]
    codes_from_rgb: float32 [3, 4]; planes = M[:, :3] @ RGB + M[:, 3]
    For gray only the first plane's column and row are used.
    """

    rgb_from_codes: NDArray[np.float32]
    codes_from_rgb: NDArray[np.float32]


def _affine(matrix: int, full_range: bool, bits: int) -> NDArray[np.float64]:
    """float64 [3, 4]: code values of planes 0..2 from RGB in 0..1 (H.273, section 8.3)."""
    peak = float(2**bits - 1)
    step = float(2 ** (bits - 8))
    scale, black = (peak, 0.0) if full_range else (219.0 * step, 16.0 * step)
    if matrix == RGB:
        # FFmpeg's planar RGB lies as G, B, R.
        order = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float64)
        return np.hstack([order * scale, np.full((3, 1), black)])
    kr, kb = LUMA_WEIGHTS[matrix]
    luma = np.array([kr, 1.0 - kr - kb, kb])
    chroma_scale = peak if full_range else 224.0 * step
    middle = 128.0 * step
    blue = (np.array([0.0, 0.0, 1.0]) - luma) / (2.0 * (1.0 - kb))
    red = (np.array([1.0, 0.0, 0.0]) - luma) / (2.0 * (1.0 - kr))
    rows = np.stack([luma * scale, blue * chroma_scale, red * chroma_scale])
    return np.hstack([rows, np.array([[black], [middle], [middle]])])


def _inverse(affine: NDArray[np.float64], gray: bool) -> NDArray[np.float64]:
    if gray:
        # R = G = B = (code - black) / scale
        gain = 1.0 / affine[0, :3].sum()
        return np.array([[gain, 0.0, 0.0, -gain * affine[0, 3]]] * 3)
    inverse = np.linalg.inv(affine[:, :3])
    return np.hstack([inverse, -inverse @ affine[:, 3:]])


def conversion(
    source: ColorTags, target: ColorTags, *, source_bits: int, target_bits: int, gray_source: bool = False
) -> Conversion:
    """The maps for one source and one target description.

    Both must be definite (`ColorTags.resolved`). Raises KeyError for a matrix not in `LUMA_WEIGHTS`.
    """
    inward = _inverse(_affine(source.matrix, bool(source.full_range), source_bits), gray_source)
    outward = _affine(target.matrix, bool(target.full_range), target_bits)
    return Conversion(inward.astype(np.float32), outward.astype(np.float32))
