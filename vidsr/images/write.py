"""Planes to picture files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidsr.durable import give_name, sync
from vidsr.errors import OutputError
from vidsr.frame import FrameLayout, Plane
from vidsr.images.library import first_line, vips
from vidsr.images.picture import Extras, Picture

__all__ = ["FORMATS", "Format", "check_size", "losses_of", "write"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of file to write.

    saver: libvips' name. bits: of the deepest samples it holds. alpha, exif: whether it holds them. longest: side in
    pixels. quality: 1 to 100, None where nothing is lost. options: further ones of the saver.
    """

    name: str
    saver: str
    bits: int
    alpha: bool = True
    exif: bool = True
    longest: int
    quality: int | None = None
    options: tuple[tuple[str, Any], ...] = ()


_JPEG = Format(
    name="JPEG", saver="jpegsave", bits=8, alpha=False, longest=65535, quality=95,
    options=(("subsample_mode", "off"), ("optimize_coding", True)),
)  # fmt: skip
_TIFF = Format(
    name="TIFF", saver="tiffsave", bits=16, exif=False, longest=2**31 - 1,
    options=(("compression", "deflate"), ("predictor", "horizontal")),
)  # fmt: skip
FORMATS = {
    ".png": Format(name="PNG", saver="pngsave", bits=16, longest=2**31 - 1),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format(
        name="WebP", saver="webpsave", bits=8, longest=16383, quality=95, options=(("smart_subsample", True),)
    ),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".avif": Format(
        name="AVIF", saver="heifsave", bits=12, longest=16384, quality=85,
        options=(("compression", "av1"), ("subsample_mode", "off")),
    ),
}  # fmt: skip
"""By file name suffix."""


def check_size(path: Path, height: int, width: int, format: Format) -> None:
    """Raises OutputError for a picture that is too large for that kind of file."""
    if max(height, width) > format.longest:
        raise OutputError(
            f"{path}: {width}x{height} is more than {format.name} holds ({format.longest} pixels a side): "
            "choose another kind of file"
        )


def losses_of(format: Format, picture: Picture) -> Iterator[str]:
    """What that kind of file does not hold of a picture, in words."""
    if picture.depth > format.bits:
        yield f"{format.name} holds {format.bits} bits a sample of {picture.depth}"
    if picture.layout.alpha and not format.alpha and not _opaque(picture):
        yield f"{format.name} holds no transparency: it is laid on white"
    if not format.exif and any(name.startswith("exif-ifd") for name in picture.extras.fields):
        yield f"EXIF is not written into {format.name}"


def _opaque(picture: Picture) -> bool:
    return bool((picture.planes[-1] == 2**picture.layout.bits - 1).all())


def write(
    path: Path, planes: Sequence[Plane], layout: FrameLayout, format: Format, *,
    quality: int | None, depth: int, extras: Extras, overwrite: bool,
) -> int:  # fmt: skip
    """Writes rgb or gray planes under that name, whole or not at all; how many bytes. depth: as `Picture.depth`.

    Raises OutputError, also for a name that is taken and not to be overwritten.
    """
    library = vips()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        image = _image(planes, layout, format)
        _attach(image, extras)
        keep = "all" if "exif-data" in extras.fields else "xmp:iptc:icc:other"  # libvips would make EXIF up
        getattr(image, format.saver)(str(part), keep=keep, **_options(format, layout, quality, depth))
        with part.open("rb+") as content:
            sync(content)
        written = part.stat().st_size
        give_name(part, path, overwrite=overwrite)
    except library.Error as error:
        raise OutputError(f"{path} cannot be written: {first_line(error)}") from error
    except FileExistsError:
        raise OutputError(
            f"{path} was made by someone else meanwhile: move it away, or add -y (overwrite=True)"
        ) from None
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        _forget(part)
    return written


def _forget(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:  # a name too long for the file system never was there
        return


def _image(planes: Sequence[Plane], layout: FrameLayout, format: Format) -> Any:
    """An image over the planes; libvips joins them while it writes."""
    image_class = vips().Image
    parts = [
        image_class.new_from_memory(np.ascontiguousarray(plane), layout.width, layout.height, 1,
                                    "uchar" if layout.bits == 8 else "ushort")
        for plane in planes
    ]  # fmt: skip
    if layout.family == "rgb":
        parts = [parts[2], parts[0], parts[1], *parts[3:]]
    kinds = ("b-w", "grey16") if layout.family == "gray" else ("srgb", "rgb16")
    image = parts[0].bandjoin(parts[1:]).copy(interpretation=kinds[layout.bits > 8])
    if layout.alpha and not format.alpha:
        white = 2**layout.bits - 1
        image = image.flatten(background=[white] * (image.bands - 1), max_alpha=white)
    return image.copy()


def _attach(image: Any, extras: Extras) -> None:
    for name, (kind, value) in extras.fields.items():
        image.set_type(kind, name, value)
    library = vips()
    image.set_type(library.GValue.gint_type, "orientation", 1)
    if "exif-data" in extras.fields:  # an empty thumbnail takes the small picture's out
        image.set_type(library.GValue.blob_type, "jpeg-thumbnail-data", b"")
    if extras.resolution is not None:
        image.set("xres", extras.resolution[0])
        image.set("yres", extras.resolution[1])


def _options(format: Format, layout: FrameLayout, quality: int | None, depth: int) -> dict[str, Any]:
    options = dict(format.options)
    if format.quality is not None:
        options["Q"] = quality or format.quality
    if format.name == "AVIF":
        options["bitdepth"] = next(bits for bits in (8, 10, 12) if bits >= min(depth, 12))
    if format.name == "TIFF":
        options["bigtiff"] = 8 * layout.height * layout.width > 2**31
    return options
