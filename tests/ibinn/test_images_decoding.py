"""Bytes to pixels: every format, every limit, and bytes that mean harm."""

from __future__ import annotations

import hashlib
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ibinn.decoding import Limits, decode, open_image, pixels_sha256
from ibinn.errors import ConfigError, ImageDecodeError, ImageError, ImageTooLargeError

LIMITS = Limits()
ORIENTATION = 0x0112


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """An upright picture without symmetry: red above left, green above right, blue below."""
    image = Image.new("RGB", (width, height), (20, 30, 200))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 2 - 1, height // 2 - 1), fill=(220, 20, 30))
    draw.rectangle((width // 2, 0, width - 1, height // 2 - 1), fill=(30, 210, 20))
    return image


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, *, depth: int, colour: int, rows: bytes, extra: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(rows, 9))
        + png_chunk(b"IEND", b"")
    )


def bomb(width: int = 10_000, height: int = 10_000) -> bytes:
    """A grey one-bit PNG of 100 megapixels."""
    rows = (b"\0" + bytes((width + 7) // 8)) * height
    data = png(width, height, depth=1, colour=0, rows=rows)
    assert len(data) < 20_000
    return data


# ------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("GIF", {})],
)
def test_lossless_formats_give_the_pixels_that_were_saved(format: str, options: Any) -> None:
    decoded = decode(encode(picture(), format, **options), LIMITS)
    assert decoded.format == format
    np.testing.assert_array_equal(decoded.pixels, np.array(picture()))
    assert decoded.pixels.dtype == np.uint8
    assert decoded.reductions == ()


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"quality": 95}),
    ],
)
def test_lossy_formats_come_close(format: str, options: Any) -> None:
    decoded = decode(encode(picture(), format, **options), LIMITS)
    difference = np.abs(decoded.pixels.astype(int) - np.array(picture()))
    assert decoded.format == format
    assert difference.mean() < 6


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = picture() if undo is None else picture().transpose(undo)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    lossless = {"lossless": True} if format == "WEBP" else {}
    decoded = decode(encode(stored, format, exif=exif, **lossless), LIMITS)
    assert decoded.pixels.shape == (32, 48, 3)
    assert np.abs(decoded.pixels.astype(int) - np.array(picture())).mean() < 8


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_spoil_good_pixels() -> None:
    data = encode(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff")
    assert decode(data, LIMITS).pixels.shape == (32, 48, 3)


def test_palette_becomes_rgb() -> None:
    decoded = decode(encode(picture().quantize(8), "PNG"), LIMITS)
    assert np.abs(decoded.pixels.astype(int) - np.array(picture())).max() <= 2


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_transparent_palette_entry_becomes_white(format: str) -> None:
    image = Image.new("P", (4, 2))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 1)
    decoded = decode(encode(image, format, transparency=0), LIMITS)
    assert decoded.pixels[0, 0].tolist() == [200, 100, 50]
    assert decoded.pixels[1, 3].tolist() == [255, 255, 255]
    assert decoded.reductions == ("transparency laid over white",)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_alpha_is_laid_over_white(format: str) -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[..., 3] = [[0, 128, 255], [0, 128, 255]]
    lossless = {"lossless": True, "exact": True} if format == "WEBP" else {}
    decoded = decode(encode(Image.fromarray(pixels), format, **lossless), LIMITS)
    assert decoded.pixels[0, :, 0].tolist() == [255, 127, 0]
    assert decoded.reductions == ("transparency laid over white",)


def test_opaque_alpha_reduces_nothing() -> None:
    decoded = decode(encode(picture().convert("RGBA"), "PNG"), LIMITS)
    np.testing.assert_array_equal(decoded.pixels, np.array(picture()))
    assert decoded.reductions == ()


def test_grey_with_alpha_is_laid_over_white() -> None:
    image = Image.merge("LA", (Image.new("L", (3, 3), 100), Image.new("L", (3, 3), 0)))
    image.putpixel((1, 1), (100, 255))
    decoded = decode(encode(image, "PNG"), LIMITS)
    assert decoded.pixels[1, 1].tolist() == [100, 100, 100]
    assert decoded.pixels[0, 0].tolist() == [255, 255, 255]


def test_grey_fills_three_channels() -> None:
    grey = picture().convert("L")
    decoded = decode(encode(grey, "PNG"), LIMITS)
    np.testing.assert_array_equal(decoded.pixels, np.repeat(np.array(grey)[..., None], 3, axis=2))


def test_one_bit_is_black_and_white() -> None:
    image = Image.new("1", (9, 5))
    image.putpixel((8, 4), 1)
    decoded = decode(encode(image, "PNG"), LIMITS)
    assert decoded.pixels[4, 8].tolist() == [255, 255, 255]
    assert int(decoded.pixels.sum()) == 3 * 255


def test_sixteen_bit_grey_keeps_its_upper_eight_bits() -> None:
    values = np.array([[0, 255, 256, 1000], [32_768, 40_000, 65_279, 65_535]], np.uint16)
    decoded = decode(encode(Image.fromarray(values), "PNG"), LIMITS)
    np.testing.assert_array_equal(decoded.pixels[..., 1], values >> 8)
    assert decoded.reductions == ("16 bits per channel reduced to 8",)


def test_transparent_level_of_sixteen_bit_grey_becomes_white() -> None:
    rows = b"\0" + struct.pack(">HH", 1000, 40_000)
    data = png(2, 1, depth=16, colour=0, rows=rows, extra=png_chunk(b"tRNS", b"\x03\xe8"))
    assert decode(data, LIMITS).pixels[0, :, 0].tolist() == [255, 40_000 >> 8]


def test_sixteen_bit_colour_keeps_its_upper_eight_bits() -> None:
    rows = b"\0" + struct.pack(">HHH", 0x1234, 0x8000, 0xFFFF)
    decoded = decode(png(1, 1, depth=16, colour=2, rows=rows), LIMITS)
    assert decoded.pixels[0, 0].tolist() == [0x12, 0x80, 0xFF]


def test_cmyk_jpeg_has_its_colours() -> None:
    decoded = decode(encode(picture().convert("CMYK"), "JPEG", quality=95), LIMITS)
    for (row, column), colour in {(4, 4): (220, 20, 30), (4, 40): (30, 210, 20)}.items():
        assert np.abs(decoded.pixels[row, column].astype(int) - colour).max() < 12


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    decoded = decode(data, LIMITS)
    assert (decoded.pixels == [255, 0, 0]).all()
    assert decoded.reductions == ("first frame of an animation",)


def test_picture_behind_the_picture_of_a_phone_is_ignored() -> None:
    data = encode(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32))])
    decoded = decode(data, LIMITS)
    assert decoded.format == "JPEG"
    assert decoded.pixels[4, 4, 0] > 200


def test_hashes_name_bytes_and_pixels() -> None:
    as_png, as_bmp = encode(picture(), "PNG"), encode(picture(), "BMP")
    first, second = decode(as_png, LIMITS), decode(as_bmp, LIMITS)
    assert first.sha256_bytes == hashlib.sha256(as_png).hexdigest() != second.sha256_bytes
    assert first.sha256_pixels == second.sha256_pixels
    ppm = hashlib.sha256(encode(picture(), "PPM")).hexdigest()
    assert first.sha256_pixels == ppm


def test_pixel_hash_tells_shapes_apart() -> None:
    flat = np.arange(48, dtype=np.uint8)
    assert pixels_sha256(flat.reshape(2, 8, 3)) != pixels_sha256(flat.reshape(4, 4, 3))


# -------------------------------------------------------------------------- what can be opened


def test_paths_pil_images_and_arrays_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "picture.dat"  # the name's ending plays no part
    path.write_bytes(encode(picture(), "PNG"))
    array = np.array(picture())
    opened = [open_image(image, LIMITS) for image in (path, str(path), picture(), array)]
    assert [image.format for image in opened] == ["PNG", "PNG", "PIL", "ARRAY"]
    assert len({image.sha256_pixels for image in opened}) == 1
    assert [bool(image.sha256_bytes) for image in opened] == [True, True, False, False]


def test_array_is_copied() -> None:
    array = np.array(picture())
    decoded = open_image(array, LIMITS)
    array[:] = 0
    assert decoded.sha256_pixels == pixels_sha256(decoded.pixels)


def test_grey_array_fills_three_channels() -> None:
    decoded = open_image(np.full((2, 5), 7, np.uint8), LIMITS)
    assert decoded.pixels.shape == (2, 5, 3)
    assert (decoded.pixels == 7).all()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png.*No such file"):
        open_image(tmp_path / "nowhere.png", LIMITS)


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(tmp_path, LIMITS)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), "dtype float64; expected uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\); expected \(H, W, 3\)"),
        (np.zeros((4,), np.uint8), r"shape \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "4×0 px"),
        (Image.new("RGB", (0, 4)), "0×4 px"),
        (Image.new("F", (4, 4)), "floating-point"),
        (7, "image is a int"),
    ],
)
def test_other_values_are_refused_with_what_was_expected(image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_image(image, LIMITS)


# -------------------------------------------------------------------------------------- limits


def test_hundred_megapixels_in_a_few_kilobytes_are_refused_undecoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = bomb()
    monkeypatch.setattr("ibinn.decoding._OPENERS", {})  # no decoder may be asked
    with pytest.raises(
        ImageTooLargeError, match="10000×10000 = 100000000 px; the limit is 40000000"
    ):
        decode(data, LIMITS)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_sides_and_pixels_are_checked_before_decoding(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(picture(), format)
    monkeypatch.setattr(Image.Image, "load", None)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    with pytest.raises(ImageTooLargeError, match="48×32 px; the limit is 40 px per side"):
        decode(data, Limits(max_side=40))
    with pytest.raises(ImageTooLargeError, match="1536 px; the limit is 1000 px"):
        decode(data, Limits(max_pixels=1000))
    with pytest.raises(ImageDecodeError, match="48×32 px; at least 33 px per side"):
        decode(data, Limits(min_side=33))


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"exif": b"Exif\0\0"}])
def test_webp_canvas_is_not_allocated_before_its_size_is_known(
    options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(picture(), "WEBP", **options)
    monkeypatch.setattr("ibinn.decoding._OPENERS", {})
    with pytest.raises(ImageTooLargeError, match="48×32 px"):
        decode(data, Limits(max_side=40))


def test_bytes_are_checked_before_anything_else(tmp_path: Path) -> None:
    data = encode(picture(), "BMP")
    limits = Limits(max_bytes=len(data) - 1)
    path = tmp_path / "large.bmp"
    path.write_bytes(data)
    for image in (data, path):
        with pytest.raises(ImageTooLargeError, match=f"{len(data)} bytes; the limit is"):
            open_image(image, limits)
    assert decode(data, Limits(max_bytes=len(data))).format == "BMP"


def test_arrays_and_pil_images_obey_the_limits_too() -> None:
    for image in (picture(), np.array(picture())):
        with pytest.raises(ImageTooLargeError):
            open_image(image, Limits(max_pixels=1000))


def test_jpeg_of_thousands_of_scans_is_refused() -> None:
    data = encode(picture(), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    with pytest.raises(ImageDecodeError, match="scans; at most 100"):
        decode(data[:start] + scan * 5000 + b"\xff\xd9", LIMITS)


def test_limits_that_admit_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_pixels is 0"):
        Limits(max_pixels=0)
    with pytest.raises(ConfigError, match="no image could be accepted"):
        Limits(max_side=10, min_side=11)


# --------------------------------------------------------------------------------- hostile bytes


def test_empty_bytes_are_refused() -> None:
    with pytest.raises(ImageDecodeError, match="empty"):
        decode(b"", LIMITS)


@pytest.mark.parametrize(
    "data", [b"hello, world", b"\x00" * 100, b"<svg></svg>", b"%PDF-1.7", b"P6\n1 1\n255\nabc"]
)
def test_other_bytes_are_refused_with_the_formats_expected(data: bytes) -> None:
    with pytest.raises(ImageDecodeError, match="expected JPEG, PNG, WEBP, BMP, GIF"):
        decode(data, LIMITS)


def test_formats_beyond_the_list_are_refused() -> None:
    with pytest.raises(ImageDecodeError, match="not an image that can be read"):
        decode(encode(picture(), "TIFF"), LIMITS)


def test_zero_sized_images_are_refused() -> None:
    empty_png = png(0, 0, depth=8, colour=2, rows=b"")
    empty_gif = b"GIF89a" + bytes(4) + encode(picture(), "GIF")[10:]
    empty_bmp = bytearray(encode(picture(), "BMP"))
    empty_bmp[18:26] = bytes(8)
    for data in (empty_png, empty_gif, bytes(empty_bmp)):
        with pytest.raises(ImageDecodeError, match="0×0 px"):
            decode(data, LIMITS)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_truncated_images_are_refused_wherever_they_are_cut(format: str) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    data = encode(noise, format)
    for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95):
        with pytest.raises(ImageDecodeError):
            decode(data[: int(share * len(data))], LIMITS)


def test_two_thousand_damaged_images_are_decoded_or_refused_cleanly() -> None:
    rng = np.random.default_rng(7)
    image = picture(24, 16)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    seeds = [
        encode(image, "JPEG", exif=exif),
        encode(image, "JPEG", progressive=True),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image, "PNG", exif=exif),
        encode(image.quantize(8), "PNG", transparency=0),
        encode(Image.fromarray(np.full((8, 8), 9, np.uint16)), "PNG"),
        encode(image, "WEBP", exif=exif),
        encode(image.convert("RGBA"), "WEBP", lossless=True),
        encode(image, "BMP"),
        encode(image.convert("1"), "BMP"),
        encode(image, "GIF", save_all=True, append_images=[image.rotate(180)]),
    ]
    refused = 0
    for turn in range(2000):
        data = bytearray(seeds[turn % len(seeds)])
        for _ in range(rng.integers(1, 6)):
            # half of the damage hits the header, where the decisions are taken
            place = int(rng.integers(len(data) if rng.random() < 0.5 else min(64, len(data))))
            kind = rng.integers(4)
            if kind == 0:
                data[place] = int(rng.integers(256))
            elif kind == 1:
                data[place] ^= 1 << int(rng.integers(8))
            elif kind == 2:
                data[place : place + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
            else:
                del data[place : place + int(rng.integers(1, 16))]
            if not data:
                break
        try:
            pixels = decode(bytes(data), Limits(max_pixels=2**20)).pixels
        except (ImageDecodeError, ImageTooLargeError):
            refused += 1
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
    assert 500 < refused < 1990
