"""Picture files to planes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vidsr.errors import InputError
from vidsr.frame import FrameLayout
from vidsr.images.library import first_line, heif, vips
from vidsr.images.picture import Extras, Picture
from vidsr.images.transparency import filled

__all__ = ["READABLE", "is_turned", "read"]

READABLE = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".avif", ".gif", ".heic", ".heif")
"""By file name suffix; what a file really holds is found out from its content."""

_KEPT = ("exif-", "icc-profile-data", "xmp-data", "iptc-data", "photoshop-data", "png-comment-", "resolution-unit",
         "image-description")  # fmt: skip
_SMALL = "exif-ifd1-"
"""EXIF's second directory describes the thumbnail, which would show the small picture."""
_LAB = ("lab", "labs", "labq", "lch", "xyz", "yxy")
_HEVC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")


def read(path: Path) -> Picture:
    """Decodes the first picture of a file and turns it upright. Raises InputError, or UsageError without libvips."""
    library = vips()
    try:
        image, losses = _from_heic(path) if _is_heic(path) else _decoded(path)
        image = _rgb_or_gray(image, losses).autorot()
        extras = _extras(image)
        samples = image.numpy()
    except library.Error as error:
        raise InputError(f"{path}: not a readable picture ({first_line(error)})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error.__cause__
    depth = image.get("bits-per-sample") if image.get_typeof("bits-per-sample") else 16
    return _picture(path, samples.reshape(image.height, image.width, -1), depth, extras, losses)


def is_turned(path: Path) -> bool:
    """Whether EXIF says that the picture is to be turned or mirrored. Raises UsageError without libvips."""
    library = vips()
    try:
        image = _loaded(path, "none")
    except (library.Error, OSError):  # whoever decodes it says so
        return False
    return bool(image.get_typeof("orientation")) and image.get("orientation") > 1


def _is_heic(path: Path) -> bool:
    """Whether it is an HEVC picture, which libvips' own wheel cannot decode for the patents on it."""
    with path.open("rb") as content:
        head = content.read(64)
    return head[4:8] == b"ftyp" and any(brand in head[8:] for brand in _HEVC_BRANDS)


def _decoded(path: Path) -> tuple[Any, list[str]]:
    """Of a damaged file what can be decoded."""
    library, losses = vips(), list[str]()
    try:
        image = _loaded(path, "error")
    except library.Error as error:
        image = _loaded(path, "none")
        if image.min() == image.max():
            raise InputError(f"damaged, and nothing of it can be read ({first_line(error)})") from error
        losses.append(f"the file is damaged, and what cannot be read stays gray or black ({first_line(error)})")
    pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if pages > 1:
        losses.append(f"only the first of {pages} pictures in it is taken")
    if image.get("vips-loader").startswith("heif") and image.format == "ushort":
        bits = image.get("bits-per-sample")
        image = image | (image >> bits)  # libvips fills up with zeros, which would make white a little gray
    return image, losses


def _loaded(path: Path, fail_on: str) -> Any:
    # Revalidated: libvips remembers what it loaded under that name.
    image = vips().Image.new_from_file(str(path), fail_on=fail_on, access="sequential", revalidate=True)
    return image.copy_memory()


def _from_heic(path: Path) -> tuple[Any, list[str]]:
    """Turned upright by its decoder, whatever EXIF says."""
    library, losses = vips(), list[str]()
    try:
        opened = heif().open_heif(path, convert_hdr_to_8bit=False)
        samples = np.asarray(opened)
    except (ValueError, RuntimeError, EOFError, SyntaxError) as error:
        raise InputError(f"not a readable picture ({first_line(error)})") from error
    if len(opened) > 1:
        losses.append(f"only the main one of {len(opened)} pictures in it is taken")
    deep = samples.dtype == np.uint16
    gray, color = ("grey16", "rgb16") if deep else ("b-w", "srgb")
    image = library.Image.new_from_array(np.ascontiguousarray(samples))
    image = image.copy(interpretation=gray if image.bands < 3 else color)
    named = {"exif-data": "exif", "icc-profile-data": "icc_profile", "xmp-data": "xmp"}
    for name, key in named.items():
        if opened.info.get(key):
            image.set_type(library.GValue.blob_type, name, bytes(opened.info[key]))
    image.set_type(library.GValue.gint_type, "bits-per-sample", int(opened.info.get("bit_depth", 8)))
    return image, losses


def _rgb_or_gray(image: Any, losses: list[str]) -> Any:
    """The picture as the model takes it, its values untouched where they are RGB or gray already."""
    kind = image.interpretation
    deep = image.format not in ("uchar", "char")
    if kind == "cmyk":
        losses.append("CMYK becomes sRGB, which shows fewer colours or other ones")
        return image.icc_transform(
            "srgb", embedded=True, input_profile="cmyk", depth=16 if deep else 8, black_point_compensation=True
        )
    if kind in _LAB:
        losses.append("CIE Lab becomes sRGB, which shows fewer colours")
        return image.colourspace("rgb16" if deep else "srgb")
    if image.format not in ("uchar", "ushort"):
        raise InputError(f"its samples are {image.format}, not whole numbers of 8 or 16 bits: convert it first")
    if image.bands > 4:
        raise InputError(f"it has {image.bands} channels; pictures have one to four")
    return image


def _extras(image: Any) -> Extras:
    names = [name for name in image.get_fields() if name.startswith(_KEPT) and not name.startswith(_SMALL)]
    return Extras(
        fields={name: (image.get_typeof(name), image.get(name)) for name in names},
        resolution=(image.xres, image.yres) if image.get_typeof("resolution-unit") or image.xres != 1 else None,
    )


def _picture(path: Path, samples: Any, depth: int, extras: Extras, losses: list[str]) -> Picture:
    height, width, channels = samples.shape
    alpha = channels in (2, 4)
    layout = FrameLayout(
        family="gray" if channels < 3 else "rgb",
        bits=8 if samples.dtype == np.uint8 else 16,
        height=height,
        width=width,
        alpha=alpha,
    )
    order = {1: (0,), 2: (0, 1), 3: (1, 2, 0), 4: (1, 2, 0, 3)}[channels]
    planes = tuple(samples[:, :, channel] for channel in order)
    if alpha:
        planes = (*filled(planes[:-1], planes[-1]), planes[-1])
    return Picture(
        path=path,
        layout=layout,
        planes=planes,
        depth=min(depth, layout.bits),
        extras=extras,
        losses=tuple(losses),
    )
