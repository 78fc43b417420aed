"""Pixels to the network's tensor: the one preprocessing of training and serving.

    original --fit_size--> (S, S, 3) --finish (JPEG step)--> (S, S, 3) --to_tensor--> (3, S, S)

Decoding is in `ibinn.decoding`; its names are given here too. Importing this module does not import
torch: whatever only decodes and prepares (the server's decoder processes) does without.
B batch, S side, H and W height and width of the original. Pixels are uint8 RGB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from PIL import Image, JpegImagePlugin

from ibinn.decoding import (
    FORMATS,
    DecodedImage,
    ImageLike,
    Limits,
    Pixels,
    decode,
    open_image,
    pixels_sha256,
)
from ibinn.errors import ConfigError
from ibinn.framing import Frame
from ibinn.types import InputInfo, Region

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FORMATS",
    "DecodedImage",
    "ImageLike",
    "ImagePreparer",
    "JpegStep",
    "Limits",
    "Pixels",
    "PreparedImage",
    "Preprocessing",
    "PreprocessingConfig",
    "decode",
    "open_image",
    "pixels_sha256",
    "png_size",
]

Interpolation = Literal["bilinear", "box", "bicubic", "lanczos"]
Fit = Literal["crop", "squash"]
Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
Levels = Literal[256, 255]

_FILTERS: Mapping[str, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegStep:
    """Save as JPEG and read again, so that every input carries the same compression traces.

    Attributes:
        quality: libjpeg's quality, 1 to 100.
        subsampling: Of the colour channels.

    Raises:
        ConfigError: A value out of range.
    """

    quality: int = 75
    subsampling: Subsampling = "4:2:0"

    def __post_init__(self) -> None:
        if not _is_int(self.quality) or not 1 <= self.quality <= 100:
            raise ConfigError(f"jpeg.quality is {self.quality!r}; expected an integer 1 to 100")
        _check_choice("jpeg.subsampling", self.subsampling, get_args(Subsampling))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingConfig:
    """How an image becomes the network's input; part of the bundle.

    Attributes:
        side: S, side in pixels of the square the network sees.
        mean: Per channel (R, G, B), of values in [0, 1).
        std: Per channel, above 0, in the same units.
        interpolation: Filter of the resize; it averages when it shrinks.
        fit: ``crop`` takes the centre square, ``squash`` the whole image out of proportion.
        jpeg: The JPEG step, or None.
        shorter_side: R: resize the shorter side to R pixels, keep the proportions, and take the
            centre square of S, as the released ImageNet networks are used; None: take the
            largest centre square. An image of S×S pixels is taken as it is.
        levels: What pixel values are divided by: 256, so that they fill [0, 1), or 255 for
            networks that were trained on k/255 with noise of one level added, as the released
            ones. Scores use the centre (k + 1/2)/levels either way.

    Raises:
        ConfigError: A value out of range.
    """

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bilinear"
    fit: Fit = "crop"
    jpeg: JpegStep | None = None
    shorter_side: int | None = None
    levels: Levels = 256

    def __post_init__(self) -> None:
        if not _is_int(self.side) or not 1 <= self.side <= 4096:
            raise ConfigError(f"side is {self.side!r}; expected an integer 1 to 4096")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not _is_triple(values):
                raise ConfigError(f"{name} is {values!r}; expected three finite numbers (R, G, B)")
        if min(self.std) <= 0:
            raise ConfigError(f"std is {self.std!r}; expected numbers above 0")
        _check_choice("interpolation", self.interpolation, get_args(Interpolation))
        _check_choice("fit", self.fit, get_args(Fit))
        if self.jpeg is not None and not isinstance(self.jpeg, JpegStep):
            raise ConfigError(f"jpeg is {self.jpeg!r}; expected a JpegStep or None")
        if not _is_int(self.levels) or self.levels not in get_args(Levels):
            raise ConfigError(f"levels is {self.levels!r}; expected 256 or 255")
        if self.shorter_side is not None:
            if not _is_int(self.shorter_side) or not self.side <= self.shorter_side <= 4096:
                raise ConfigError(
                    f"shorter_side is {self.shorter_side!r}; expected an integer {self.side} "
                    "(the side) to 4096, or none"
                )
            if self.fit != "crop":
                raise ConfigError(
                    f"shorter_side is {self.shorter_side} and fit {self.fit}; a shorter side is "
                    "resized to be cropped; set fit to crop, or shorter_side to none"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them."""
        values = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        # Came later: a bundle's digest is over these values, and those without them keep theirs.
        for name, default in (("shorter_side", None), ("levels", 256)):
            if values[name] == default:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PreprocessingConfig:
        """Read what `to_dict` wrote.

        Raises:
            ConfigError: An unknown or missing key, or a value that is not valid.
        """
        entries = _known_entries("preprocessing", values, cls)
        for name in ("mean", "std"):
            if isinstance(entries.get(name), list):
                entries[name] = tuple(entries[name])
        if entries.get("jpeg") is not None and not isinstance(entries["jpeg"], JpegStep):
            step = _known_entries("preprocessing.jpeg", entries["jpeg"], JpegStep)
            entries["jpeg"] = JpegStep(**step)
        missing = sorted({"side", "mean", "std"} - entries.keys())
        if missing:
            raise ConfigError(f"preprocessing lacks {', '.join(missing)}")
        return cls(**entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """An image ready for the network.

    Attributes:
        pixels: uint8 (S, S, 3), what the network sees.
        input: Where it came from.
        encoded_bytes: `png_size` of the pixels, an upper bound of their complexity.
    """

    pixels: Pixels
    input: InputInfo
    encoded_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreparer:
    """Bytes to the network's pixels: decode within limits, then `Preprocessing.prepare`.

    A value: it can be sent to another process and works there without the model.

    Attributes:
        config: How an image becomes the network's input.
        limits: What is refused before it is decoded.
    """

    config: PreprocessingConfig
    limits: Limits

    def __call__(self, image: bytes) -> PreparedImage:
        """The image as the network sees it.

        Raises:
            ImageError: It is over a limit, damaged, or of a format that is not allowed.
        """
        return Preprocessing(self.config).prepare(decode(image, self.limits))

    def from_pixels(self, pixels: Pixels) -> PreparedImage:
        """The same for an image that is decoded already.

        Args:
            pixels: uint8 (H, W, 3).

        Raises:
            ImageError: It is no such array, or over a limit.
        """
        return Preprocessing(self.config).prepare(open_image(pixels, self.limits))


class Preprocessing:
    """The preprocessing that a `PreprocessingConfig` describes; stateless and thread-safe."""

    __slots__ = ("config",)

    def __init__(self, config: PreprocessingConfig) -> None:
        self.config = config

    @property
    def dims(self) -> int:
        """D = 3·S², the dimension of the network's input."""
        return 3 * self.config.side**2

    @property
    def log_det(self) -> float:
        """log|det ∂x/∂v| = S² Σ_c log((256/levels)/std_c) in nats, for v = (k + u)/256 in [0, 1).

        Densities are of v whatever the levels are, so that bits/dim of any two models compare.
        """
        scale = 256.0 / self.config.levels
        return -float(self.config.side**2) * sum(math.log(std / scale) for std in self.config.std)

    def fit_size(self, pixels: Pixels) -> Pixels:
        """Crop or squash to a square and resize; the identity on (S, S, 3).

        Args:
            pixels: uint8 (H, W, 3).

        Returns:
            uint8 (S, S, 3).
        """
        side = self.config.side
        if (frame := self.frame(pixels)) is not None:
            image = Image.fromarray(np.ascontiguousarray(pixels))
            return frame.window(image, frame.centre, _FILTERS[self.config.interpolation])
        region = self._region(pixels)
        if (region.height, region.width) != pixels.shape[:2]:
            pixels = pixels[
                region.top : region.top + region.height, region.left : region.left + region.width
            ]
        if pixels.shape[:2] == (side, side):
            return pixels
        image = Image.fromarray(np.ascontiguousarray(pixels))
        return np.array(image.resize((side, side), _FILTERS[self.config.interpolation]))

    def frame(self, pixels: Pixels) -> Frame | None:
        """Where windows lie in an image whose shorter side is resized; None if it is not."""
        side, shorter = self.config.side, self.config.shorter_side
        height, width, _ = pixels.shape
        if shorter is None or (height, width) == (side, side):
            return None
        return Frame(height=height, width=width, shorter_side=shorter, side=side)

    def five_windows(self, pixels: Pixels) -> list[Pixels]:
        """The four corners and the centre of an image whose shorter side is resized.

        Args:
            pixels: uint8 (H, W, 3), the original.

        Returns:
            Five images uint8 (S, S, 3), before the JPEG step.

        Raises:
            ConfigError: This preprocessing does not resize the shorter side.
        """
        shorter = self.config.shorter_side
        if shorter is None:
            raise ConfigError(
                "five windows are cut from an image whose shorter side is resized; this "
                "preprocessing has no shorter_side; set it, or use `fit_size`"
            )
        height, width, _ = pixels.shape
        frame = Frame(height=height, width=width, shorter_side=shorter, side=self.config.side)
        image = Image.fromarray(np.ascontiguousarray(pixels))
        resampling = _FILTERS[self.config.interpolation]
        return [frame.window(image, place, resampling) for place in frame.five]

    def finish(self, pixels: Pixels) -> Pixels:
        """The JPEG step, or the identity where there is none; uint8 (S, S, 3) to the same."""
        step = self.config.jpeg
        if step is None:
            return pixels
        buffer = BytesIO()
        image = Image.fromarray(np.ascontiguousarray(pixels))
        image.save(buffer, format="JPEG", quality=step.quality, subsampling=step.subsampling)
        buffer.seek(0)
        return np.array(JpegImagePlugin.JpegImageFile(buffer))

    def prepare(self, decoded: DecodedImage) -> PreparedImage:
        """`fit_size` and `finish`, with a record of what was looked at and what was lost."""
        pixels = self.finish(self.fit_size(decoded.pixels))
        height, width, _ = decoded.pixels.shape
        return PreparedImage(
            pixels=pixels,
            input=InputInfo(
                width=width,
                height=height,
                format=decoded.format,
                sha256_bytes=decoded.sha256_bytes,
                sha256_pixels=decoded.sha256_pixels,
                region=self._region(decoded.pixels),
                reductions=(*decoded.reductions, *self._reductions(decoded.pixels)),
            ),
            encoded_bytes=png_size(pixels),
        )

    def erased(self) -> tuple[str, ...]:
        """What it takes away, which nothing behind it can detect; sentences."""
        side, step = self.config.side, self.config.jpeg
        words = [
            f"Detail finer than {side}×{side} pixels: every image is reduced to that size before "
            "anything looks at it.",
            self._left_out(),
            "Transparency (shown over white), metadata, colour profiles, and more than 8 bits per "
            "channel.",
        ]
        if step is not None:
            words.append(
                f"What JPEG at quality {step.quality} with {step.subsampling} chroma drops: faint "
                "noise (of about 0.015 of the pixel range and below), colour detail finer than "
                "two pixels, and the traces of earlier compression. Images that differ only there "
                "get nearly the same answer."
            )
        return tuple(words)

    def _left_out(self) -> str:
        side, shorter = self.config.side, self.config.shorter_side
        if self.config.fit == "squash":
            return "The proportions of images that are not square: they are squashed."
        if shorter in (None, side):
            return "What lies outside the centre square of the image."
        return (
            "What lies outside the centre square of the image, and the margin of that square: "
            f"the shorter side is resized to {shorter} px and the middle {side} px of it are kept."
        )

    def to_tensor(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """x = ((k + u)/levels - mean)/std with u = 1/2, or dequantised with the noise u given.

        Args:
            pixels: uint8 (B, S, S, 3), the values k.
            noise: u in [0, 1), (B, 3, S, S); float64 makes the result float64.

        Returns:
            float32 (B, 3, S, S) on the device of `pixels`, in channels_last memory.
        """
        import torch

        # Filling on the device instead of copying a list to it keeps accelerators from waiting.
        levels = pixels.permute(0, 3, 1, 2).to(torch.float32)
        values = (levels + (0.5 if noise is None else noise)) / self.config.levels
        channels = [
            (values[:, channel] - mean) / std
            for channel, (mean, std) in enumerate(
                zip(self.config.mean, self.config.std, strict=True)
            )
        ]
        return torch.stack(channels, dim=1).contiguous(memory_format=torch.channels_last)

    def to_pixels(self, x: Tensor) -> Pixels:
        """The 8-bit images nearest to network inputs; undoes `to_tensor` at u = 1/2.

        Args:
            x: (B, 3, S, S), such as the inverse network makes them.

        Returns:
            uint8 (B, S, S, 3), values out of range clipped.
        """
        import torch

        mean = torch.tensor(self.config.mean).view(1, -1, 1, 1).to(x)
        std = torch.tensor(self.config.std).view(1, -1, 1, 1).to(x)
        levels = ((x * std + mean) * float(self.config.levels) - 0.5).round().clamp(0, 255)
        pixels: Pixels = levels.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
        return pixels

    def _region(self, pixels: Pixels) -> Region:
        height, width, _ = pixels.shape
        if self.config.fit == "squash":
            return Region(left=0, top=0, width=width, height=height)
        if (frame := self.frame(pixels)) is not None:
            left, top, across, down = frame.pixels_of(frame.box(frame.centre))
            return Region(left=left, top=top, width=across, height=down)
        side = min(height, width)
        return Region(left=(width - side) // 2, top=(height - side) // 2, width=side, height=side)

    def _reductions(self, pixels: Pixels) -> tuple[str, ...]:
        height, width, _ = pixels.shape
        side, step, region = self.config.side, self.config.jpeg, self._region(pixels)
        words = []
        if (region.width, region.height) != (width, height):
            words.append(f"centre {region.width}×{region.height} of {width}×{height} px")
        if (region.width, region.height) != (side, side):
            words.append(
                f"{region.width}×{region.height} px resized to {side}×{side} px "
                f"({self.config.interpolation})"
            )
        if step is not None:
            words.append(f"JPEG at quality {step.quality}, {step.subsampling}")
        return tuple(words)


def png_size(pixels: Pixels) -> int:
    """Length in bytes of the lossless PNG encoding (compression level 6) of (H, W, 3) pixels."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=6)
    return buffer.tell()


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_triple(values: object) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) == 3
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def _known_entries(name: str, values: object, owner: type) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name} is {values!r}; expected a mapping")
    known = [field.name for field in fields(owner)]
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise ConfigError(
            f"{name} has unknown keys {', '.join(unknown)}; known are {', '.join(known)}"
        )
    return dict(values)
