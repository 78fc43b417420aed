"""Out-of-distribution images on which statistics are *chosen*, none of which a report uses.

A statistic picked because it finds the reported sets would make their miss rates optimistic, so
choices are made here: drawings and textures that this module makes, blur and flipped contrast of
validation images, digits in cluttered scenes, and what `training.development_photographs` makes.
Every image is a function of (seed, index).
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.development_photographs import enlarged, mosaics, photographs, turned
from training.ood_sets import (
    FULL_COUNT,
    Images,
    LazyImages,
    OodSet,
    Pixels,
    choose,
    sklearn_digits,
    to_8_bit,
    unit,
)


def development_sets(
    images: Images, *, side: int, count: int = FULL_COUNT, seed: int = 0
) -> tuple[OodSet, ...]:
    """All development sets.

    Args:
        images: Validation images at the model's input size, uint8 (side, side, 3) each; never
            test images.
        side: The model's input side in pixels.
        count: Images per set; sets made from `images` hold at most one per image.
        seed: Seed of every choice.
    """
    pictures = photographs(side=side, count=count, seed=seed)
    return (
        drawings(side=side, count=count, seed=seed),
        textures(side=side, count=count, seed=seed),
        street_digits(side=side, count=count, seed=seed),
        blurred(images, count=count, seed=seed),
        flipped_contrast(images, count=count, seed=seed),
        *([pictures] if pictures is not None else []),
        mosaics(images, side=side, count=count, seed=seed),
        turned(images, count=count, seed=seed),
        enlarged(images, side=side, count=count, seed=seed),
    )


def drawings(*, side: int, count: int = FULL_COUNT, seed: int = 0) -> OodSet:
    """Two to five strokes, ellipses or polygons in random colours on a pale ground."""
    scale = 4  # drawn large and averaged down, so that edges are smooth

    def make(index: int) -> Pixels:
        rng = np.random.default_rng([seed, 1, index])
        ground = tuple(int(v) for v in rng.integers(225, 256, size=3))
        image = Image.new("RGB", (side * scale, side * scale), ground)
        pen = ImageDraw.Draw(image)
        width = max(1, side * scale // 16)
        for _ in range(rng.integers(2, 6)):
            ink = tuple(int(v) for v in rng.integers(0, 200, size=3))
            points = [(float(x), float(y)) for x, y in rng.uniform(0.1, 0.9, (4, 2)) * side * scale]
            kind = int(rng.integers(3))
            if kind == 0:
                pen.line(points, fill=ink, width=width, joint="curve")
            elif kind == 1:
                (x0, y0), (x1, y1) = points[:2]
                box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
                pen.ellipse(box, outline=ink, width=width)
            else:
                pen.polygon(points[:3], outline=ink, width=width)
        return np.asarray(image.resize((side, side), Image.Resampling.BOX))

    return OodSet(
        name="dev-drawings",
        description="Random strokes, ellipses and triangles in colour on a pale ground.",
        images=LazyImages(count=count, make=make),
    )


def textures(*, side: int, count: int = FULL_COUNT, seed: int = 0) -> OodSet:
    """Sums of three coloured plane waves and a blurred noise field."""
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")

    def make(index: int) -> Pixels:
        rng = np.random.default_rng([seed, 2, index])
        values = np.full((side, side, 3), 0.5)
        for _ in range(3):
            angle, phase = rng.uniform(0, 2 * np.pi, size=2)
            period_px = rng.uniform(3.0, 16.0)
            along = rows * np.sin(angle) + columns * np.cos(angle)
            wave = np.sin(2 * np.pi * along / period_px + phase)
            values += wave[..., None] * rng.uniform(-0.15, 0.15, size=3)
        field = Image.fromarray(to_8_bit(0.5 + 0.35 * rng.standard_normal((side, side))))
        soft = field.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.0)))
        values += (unit(np.asarray(soft)) - 0.5)[..., None] * rng.uniform(0.3, 1.0, size=3)
        return to_8_bit(values)

    return OodSet(
        name="dev-textures",
        description="Sums of coloured plane waves and blurred noise.",
        images=LazyImages(count=count, make=make),
    )


def street_digits(*, side: int, count: int = FULL_COUNT, seed: int = 0) -> OodSet:
    """A digit on a shaded ground with cut digits at its sides, slightly blurred."""
    digits = sklearn_digits()

    def make(index: int) -> Pixels:
        rng = np.random.default_rng([seed, 3, index])
        ground, ink = rng.uniform(0.05, 0.95, size=(2, 3))
        if np.abs(ground - ink).max() < 0.25:
            ink = np.where(ground > 0.5, ground - 0.4, ground + 0.4)
        slope = np.linspace(-0.1, 0.1, side)[None, :, None] * rng.choice([-1.0, 1.0])
        mask = np.zeros((side, side))
        size = int(side * rng.uniform(0.7, 0.95))
        top = int(rng.integers(0, side - size + 1))
        for shift in (-0.75, 0.0, 0.75):
            digit = digits[int(rng.integers(len(digits)))]
            drawn = unit(np.asarray(Image.fromarray(digit).resize((size, size))))
            left = round((side - size) / 2 + shift * side)
            low, high = max(0, left), min(side, left + size)
            if low < high:
                part = mask[top : top + size, low:high]
                np.maximum(part, drawn[:, low - left : high - left], out=part)
        scene = to_8_bit((1 - mask[..., None]) * (ground + slope) + mask[..., None] * ink)
        blur = ImageFilter.GaussianBlur(rng.uniform(0.0, 0.8) * side / 32)
        return np.asarray(Image.fromarray(scene).filter(blur))

    return OodSet(
        name="dev-street-digits",
        description="scikit-learn's digits as house numbers: coloured, shaded ground, cut "
        "neighbours, slight blur.",
        images=LazyImages(count=count, make=make),
    )


def blurred(images: Images, *, count: int = FULL_COUNT, seed: int = 0) -> OodSet:
    """Gaussian blur with a standard deviation of 1/20 of the image's side."""
    chosen = choose(len(images), count, seed=seed)

    def make(index: int) -> Pixels:
        pixels = np.asarray(images[chosen[index]])
        blur = ImageFilter.GaussianBlur(pixels.shape[0] / 20)
        return np.asarray(Image.fromarray(pixels).filter(blur))

    return OodSet(
        name="dev-blur",
        description="Validation images with a Gaussian blur of 1/20 of their side.",
        images=LazyImages(count=len(chosen), make=make),
    )


def flipped_contrast(images: Images, *, count: int = FULL_COUNT, seed: int = 0) -> OodSet:
    """Photographic negatives: k -> 255 - k."""
    chosen = choose(len(images), count, seed=seed)

    def make(index: int) -> Pixels:
        return 255 - np.asarray(images[chosen[index]], dtype=np.uint8)

    return OodSet(
        name="dev-negatives",
        description="Photographic negatives of validation images.",
        images=LazyImages(count=len(chosen), make=make),
    )
