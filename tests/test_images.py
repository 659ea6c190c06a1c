"""Picture files: what of them arrives in the enlarged ones. A model that repeats every pixel makes results known."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

import vidsr
from vidsr.errors import InputError, OutputError
from vidsr.images.transparency import filled

pyvips = pytest.importorskip("pyvips", reason="needs pyvips (pip install 'vidsr[images]')")

Samples = NDArray[Any]
"""uint8|uint16 [H, W, C]"""
Enlarge = Callable[..., Samples]
PLAIN: dict[str, Any] = {"backend": "onnxruntime", "guard": "off", "overwrite": True}
"""Quick to start; what the guard is for is measured once a model, which takes longer than everything here."""
WIDTH, HEIGHT = 48, 32


def ramp(channels: int = 3, bits: int = 8, height: int = HEIGHT, width: int = WIDTH) -> Samples:
    """Smooth, and no two channels alike; alpha, the last of two or four, from transparent to opaque."""
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    parts = [columns, rows, 1 - columns, columns][:channels] if channels > 2 else [rows, columns][:channels]
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.stack([np.rint(part * (2**bits - 1)).astype(dtype) for part in parts], axis=2)


def image_of(samples: Samples) -> Any:
    image = pyvips.Image.new_from_array(samples)
    kinds = ("b-w", "srgb") if samples.dtype == np.uint8 else ("grey16", "rgb16")
    return image if samples.dtype == np.float32 else image.copy(interpretation=kinds[image.bands > 2])


def load(path: Path) -> Any:
    return pyvips.Image.new_from_file(str(path), revalidate=True)


def repeated(samples: Samples, scale: int = 2) -> Samples:
    return samples.repeat(scale, 0).repeat(scale, 1)


@pytest.fixture
def enlarge(nearest: Path, tmp_path: Path) -> Enlarge:
    """Runs vidsr on a file; the samples [H, W, C] of what came out."""

    def run(source: Path, name: str = "out.png", **options: Any) -> Samples:
        target = tmp_path / name
        vidsr.upscale(source, target, model=str(nearest), **PLAIN, **options)
        samples = load(target).numpy()
        return samples if samples.ndim == 3 else samples[:, :, None]

    return run


def warnings_of(source: Path, target: Path, model: Path, **options: Any) -> tuple[str, ...]:
    return vidsr.upscale(source, target, model=str(model), **PLAIN, **options).warnings


# What files hold


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_channels_and_depth_stay(tmp_path: Path, enlarge: Enlarge, suffix: str, channels: int, bits: int) -> None:
    given = ramp(channels, bits)
    if channels in (2, 4):
        given[..., -1] |= 1  # nothing hidden: see below for that
    image_of(given).write_to_file(str(source := tmp_path / f"in{suffix}"))
    made = enlarge(source, f"out{suffix}")
    assert made.dtype == given.dtype
    np.testing.assert_array_equal(made, repeated(given))


def test_sixteen_bits_are_not_eight(tmp_path: Path, enlarge: Enlarge) -> None:
    given = (np.arange(64 * 64, dtype=np.uint16) * 3 + 20000).reshape(64, 64, 1)
    image_of(given).write_to_file(str(source := tmp_path / "in.png"))
    assert len(np.unique(enlarge(source))) == 64 * 64


@pytest.mark.parametrize(("suffix", "error"), [(".jpg", 6), (".webp", 10), (".avif", 8)])
def test_lossy_kinds_come_close(tmp_path: Path, enlarge: Enlarge, suffix: str, error: int) -> None:
    image_of(ramp()).write_to_file(str(source := tmp_path / "in.png"))
    made = enlarge(source, f"out{suffix}")
    assert np.abs(made.astype(int) - repeated(ramp())).max() <= error


def test_quality_is_heard(tmp_path: Path, nearest: Path) -> None:
    rng = np.random.default_rng(0)
    image_of(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)).write_to_file(str(source := tmp_path / "in.png"))
    sizes = []
    for quality in (20, 90):
        vidsr.upscale(source, tmp_path / "out.jpg", model=str(nearest), quality=quality, **PLAIN)
        sizes.append((tmp_path / "out.jpg").stat().st_size)
    assert sizes[0] < sizes[1] / 2


def test_twelve_bits_of_avif_fill_sixteen(tmp_path: Path, enlarge: Enlarge) -> None:
    """White stays white."""
    image_of(np.full((32, 32, 3), 65535, np.uint16)).heifsave(
        str(source := tmp_path / "in.avif"), compression="av1", bitdepth=12, lossless=True
    )
    assert enlarge(source).min() == 65535


def test_heic(tmp_path: Path, enlarge: Enlarge) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif (pip install 'vidsr[images]')")
    given = repeated(ramp(), 2)
    if "HEIF" not in heif.libheif_info() or not heif.libheif_info()["HEIF"]:
        pytest.skip("this pillow-heif has no HEVC encoder")
    heif.from_bytes("RGB", (2 * WIDTH, 2 * HEIGHT), given.tobytes()).save(source := tmp_path / "in.heic", quality=-1)
    assert np.abs(enlarge(source).astype(int) - repeated(given)).mean() < 3


def test_palette_with_transparency(tmp_path: Path, enlarge: Enlarge) -> None:
    indices = np.arange(64, dtype=np.uint8).reshape(8, 8) // 16
    picture = Image.frombytes("P", (8, 8), indices.tobytes())
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    picture.save(source := tmp_path / "in.png", transparency=bytes([255, 128, 255, 0]))
    made = enlarge(source)
    assert made.shape == (16, 16, 4)
    np.testing.assert_array_equal(made[0, 0], [255, 0, 0, 255])
    np.testing.assert_array_equal(made[4, 0], [0, 255, 0, 128])
    assert (made[12:, :, 3] == 0).all()


def test_one_bit_becomes_gray(tmp_path: Path, enlarge: Enlarge) -> None:
    given = np.random.default_rng(0).random((16, 24)) > 0.5
    Image.fromarray(given).save(source := tmp_path / "in.png")
    np.testing.assert_array_equal(enlarge(source)[..., 0], repeated(given).astype(np.uint8) * 255)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_first_of_an_animation(tmp_path: Path, enlarge: Enlarge, nearest: Path, suffix: str) -> None:
    flat = [Image.new("RGB", (24, 16), color) for color in ("red", "lime", "blue")]
    flat[0].save(source := tmp_path / f"in{suffix}", save_all=True, append_images=flat[1:], lossless=True)
    assert any("first of 3" in line for line in warnings_of(source, tmp_path / "out.png", nearest))
    np.testing.assert_array_equal(enlarge(source)[5, 5, :3], [255, 0, 0])
    with pytest.raises(OutputError, match="first of 3"):
        enlarge(source, strict=True)


def test_cmyk_becomes_srgb(tmp_path: Path, enlarge: Enlarge, nearest: Path) -> None:
    Image.new("CMYK", (24, 16), (0, 255, 255, 0)).save(source := tmp_path / "in.jpg", quality=100)
    assert any("CMYK becomes sRGB" in line for line in warnings_of(source, tmp_path / "out.png", nearest))
    made = enlarge(source)
    red, green, blue = (int(value) for value in made[8, 8])
    assert made.shape[2] == 3 and red > 200 and green < 90 and blue < 90
    held = ImageCms.ImageCmsProfile(io.BytesIO(opened(tmp_path / "out.png")[1]))
    assert "sRGB" in ImageCms.getProfileDescription(held)
    with pytest.raises(OutputError, match="CMYK"):
        enlarge(source, strict=True)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (20000, 200)])
def test_odd_sizes(tmp_path: Path, enlarge: Enlarge, size: tuple[int, int]) -> None:
    width, height = size
    image_of(ramp(3, 8, height, width)).write_to_file(str(source := tmp_path / "in.png"))
    np.testing.assert_array_equal(enlarge(source), repeated(ramp(3, 8, height, width)))


def test_not_for_webp(tmp_path: Path, nearest: Path) -> None:
    image_of(ramp(1, 8, 2, 9000)).write_to_file(str(source := tmp_path / "in.png"))
    with pytest.raises(OutputError, match="18000x4 is more than WebP holds"):
        vidsr.upscale(source, tmp_path / "out.webp", model=str(nearest), **PLAIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png"]


# Damage


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_truncated(tmp_path: Path, enlarge: Enlarge, nearest: Path, suffix: str) -> None:
    given = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(given).save(source := tmp_path / f"in{suffix}")
    whole = load(source).numpy()
    cut(source, 0.6)
    assert any("damaged" in line for line in warnings_of(source, tmp_path / "out.png", nearest))
    made = enlarge(source)
    np.testing.assert_array_equal(made[:160], repeated(whole)[:160])
    assert (made[-20:] == made[-1, -1]).all()
    with pytest.raises(OutputError, match="damaged"):
        enlarge(source, "strict.png", strict=True)
    assert not (tmp_path / "strict.png").exists()


@pytest.mark.parametrize("content", [b"", b"no picture" * 100, b"\x89PNG\r\n\x1a\n"])
def test_no_picture(tmp_path: Path, enlarge: Enlarge, content: bytes) -> None:
    (tmp_path / "in.png").write_bytes(content)
    with pytest.raises(InputError, match=r"in\.png: not a readable picture") as caught:
        enlarge(tmp_path / "in.png")
    assert "\n" not in str(caught.value)


def test_floats_are_refused(tmp_path: Path, enlarge: Enlarge) -> None:
    image_of(np.zeros((8, 8), np.float32)).write_to_file(str(source := tmp_path / "in.tif"))
    with pytest.raises(InputError, match="float"):
        enlarge(source)


# Transparency


def test_hidden_colours_stay_hidden(tmp_path: Path, enlarge: Enlarge) -> None:
    """Black under transparent pixels would be drawn into the edges of what is seen."""
    given = np.zeros((32, 32, 4), np.uint8)
    given[8:24, 8:24] = (250, 200, 150, 255)
    image_of(given).write_to_file(str(source := tmp_path / "in.png"))
    vidsr.upscale(source, tmp_path / "span.png", precision="fp32", guard="off")
    made = load(tmp_path / "span.png").numpy().astype(int)
    seen = made[made[..., 3] > 0]
    assert np.abs(seen[:, :3] - (250, 200, 150)).max() <= 3
    assert (made[:12, :, 3] == 0).all() and (made[20:44, 20:44, 3] == 255).all()


def test_filling() -> None:
    alpha = np.zeros((7, 9), np.uint8)
    alpha[2, 3], alpha[6, 8] = 255, 255
    color = np.zeros((7, 9), np.uint8)
    color[2, 3], color[6, 8] = 100, 200
    (made,) = filled([color], alpha)
    assert made[2, 3] == 100 and made[6, 8] == 200
    assert made[3, 2] == 100 and made.min() >= 100 and made.max() <= 200
    assert color[3, 2] == 0  # what is given stays
    np.testing.assert_array_equal(filled([color], np.zeros_like(alpha))[0], color)


def test_jpeg_lies_on_white(tmp_path: Path, enlarge: Enlarge, nearest: Path) -> None:
    given = np.zeros((16, 16, 4), np.uint8)
    given[:, 8:] = (0, 0, 0, 255)
    image_of(given).write_to_file(str(source := tmp_path / "in.png"))
    assert any("on white" in line for line in warnings_of(source, tmp_path / "out.jpg", nearest))
    made = enlarge(source, "out.jpg")
    assert made[:, :12].min() > 245 and made[:, 20:].max() < 10
    given[..., 3] = 255
    image_of(given).write_to_file(str(source))
    assert warnings_of(source, tmp_path / "out.jpg", nearest) == ()


# Profiles and tags


def profile(name: str) -> bytes:
    """A built-in ICC profile of libvips."""
    return image_of(ramp()).copy(interpretation="srgb").icc_transform(name).get("icc-profile-data")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_profile_is_carried_over(tmp_path: Path, enlarge: Enlarge, suffix: str) -> None:
    p3 = profile("p3")
    Image.fromarray(ramp()).save(source := tmp_path / "in.png", icc_profile=p3)
    enlarge(source, f"out{suffix}")
    assert load(tmp_path / f"out{suffix}").get("icc-profile-data") == p3


def opened(path: Path) -> tuple[Image.Image, bytes, Image.Exif]:
    """By Pillow: the picture, its profile and its EXIF."""
    with Image.open(path) as picture:
        return picture.copy(), picture.info.get("icc_profile", b""), picture.getexif()


def lab(path: Path, shrink: int = 1, profile: bytes | None = None) -> Samples:
    """float32 [H, W, 3] in CIE Lab by LittleCMS, as the picture's own profile has it."""
    image = load(path).shrink(shrink, shrink).cast("uchar")
    if profile is not None:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return image.icc_import(embedded=True).numpy()


def mean_difference(first: Samples, second: Samples) -> float:
    return float(np.linalg.norm(first - second, axis=2).mean())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("name", ["srgb", "p3"])
def test_colours_are_those_of_the_source(tmp_path: Path, name: str, suffix: str) -> None:
    """Of our default model's picture, shrunk again, each seen through its own profile."""
    given = ramp(3, 8, 96, 128)
    Image.fromarray(given).save(source := tmp_path / "in.png", icc_profile=profile(name))
    vidsr.upscale(source, target := tmp_path / f"out{suffix}", precision="fp32", guard="off")
    allowed = 1.0 if suffix == ".webp" else 0.6  # its colours have half the size
    assert mean_difference(lab(target, 2), lab(source)) < allowed
    if name == "p3":  # what it would be without the profile
        assert mean_difference(lab(target, 2, profile("srgb")), lab(source)) > 3


def exif_picture(path: Path, orientation: int = 1, **options: Any) -> Path:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    exif.get_ifd(0x8769).update({0x9003: "2020:01:02 03:04:05", 0xA002: WIDTH, 0xA003: HEIGHT})
    exif.get_ifd(0x8825).update({1: "N", 2: (10.0, 20.0, 30.0)})
    Image.fromarray(ramp()).save(path, exif=exif, dpi=(300, 300), **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".avif"])
@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
def test_exif_is_carried_over(tmp_path: Path, enlarge: Enlarge, kind: str, suffix: str) -> None:
    enlarge(exif_picture(tmp_path / f"in{kind}"), f"out{suffix}")
    _, _, exif = opened(tmp_path / f"out{suffix}")
    assert exif[0x010F] == "Maker"
    assert exif.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert (exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003]) == (2 * WIDTH, 2 * HEIGHT)
    assert exif.get_ifd(0x8825)[2] == (10.0, 20.0, 30.0)


def test_exif_is_not_made_up(tmp_path: Path, enlarge: Enlarge) -> None:
    Image.fromarray(ramp()).save(source := tmp_path / "in.png")
    enlarge(source)
    assert not opened(tmp_path / "out.png")[2]


def test_tiff_takes_no_exif(tmp_path: Path, nearest: Path) -> None:
    source = exif_picture(tmp_path / "in.jpg")
    assert any("EXIF is not written" in line for line in warnings_of(source, tmp_path / "out.tif", nearest))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, enlarge: Enlarge, orientation: int) -> None:
    exif_picture(source := tmp_path / "in.png", orientation)
    turned = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90,
    }[orientation]  # fmt: skip
    made = enlarge(source)
    np.testing.assert_array_equal(made, repeated(turned(ramp())))
    assert opened(tmp_path / "out.png")[2].get(0x0112, 1) == 1


def test_thumbnail_is_left_out(tmp_path: Path, enlarge: Enlarge) -> None:
    """It shows the small picture, and turned as that was."""
    exif_picture(source := tmp_path / "in.jpg")
    image = load(source).copy()
    thumbnail = image_of(ramp(3, 8, 16, 24)).jpegsave_buffer(keep="none")
    image.set_type(pyvips.GValue.blob_type, "jpeg-thumbnail-data", thumbnail)
    image.jpegsave(str(with_one := tmp_path / "with.jpg"))
    assert load(with_one).get_typeof("jpeg-thumbnail-data")
    enlarge(with_one, "out.jpg")
    assert not load(tmp_path / "out.jpg").get_typeof("jpeg-thumbnail-data")
    assert load(tmp_path / "out.jpg").get_typeof("exif-ifd0-Make")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_xmp_and_resolution(tmp_path: Path, enlarge: Enlarge, suffix: str) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF/></x:xmpmeta>'
    image = image_of(ramp()).copy(xres=300 / 25.4, yres=300 / 25.4)
    image.set_type(pyvips.GValue.blob_type, "xmp-data", xmp)
    image.jpegsave(str(source := tmp_path / "in.jpg"))
    enlarge(source, f"out{suffix}")
    made = load(tmp_path / f"out{suffix}")
    assert made.get("xmp-data") == xmp
    if suffix != ".webp":  # holds no resolution but in EXIF
        assert made.xres == pytest.approx(300 / 25.4, rel=1e-3)
