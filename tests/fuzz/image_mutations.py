"""Changes to encoded images: of any bytes, and of the fields that decoders steer by."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence

MAX_BYTES = 2**16

_TELLING = (
    *(0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255, 256, 257),
    *(0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
)
_MARKERS = bytes((0xC0, 0xC2, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE))


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """The data with one to eight changes, `MAX_BYTES` at most.

    Args:
        data: An encoded image.
        rng: Decides.
        others: Images that pieces may be taken from.
    """
    changed = bytearray(data)
    for _ in range(1 + min(int(rng.expovariate(0.6)), 7)):
        if not changed:
            changed = bytearray(rng.randbytes(rng.randrange(1, 64)))
        change = rng.choice(_CHANGES)
        change(changed, rng, others)
        del changed[MAX_BYTES:]
    if changed.startswith(b"\x89PNG") and rng.random() < 0.8:
        changed = bytearray(with_checksums(bytes(changed)))  # else the checksum refuses it all
    return bytes(changed)


def with_checksums(png: bytes) -> bytes:
    """A PNG file with every chunk's checksum made right, as far as its lengths lead."""
    parts, position = [png[:8]], 8
    while position + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, position)
        end = position + 8 + length
        if end + 4 > len(png):
            break
        parts.append(png[position:end])
        parts.append(struct.pack(">I", zlib.crc32(png[position + 4 : end])))
        position = end + 4
    return b"".join((*parts, png[position:]))


def _flip_bit(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_byte(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def _set_number(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    """A number that decoders compare with or compute from, in one of the usual widths."""
    width, value = rng.choice((1, 2, 3, 4)), rng.choice(_TELLING)
    position = rng.randrange(len(data))
    encoded = (value % 256**width).to_bytes(width, rng.choice(("big", "little")))
    data[position : position + width] = encoded


def _set_header_number(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    """The same, where widths, heights and lengths stand."""
    width, value = rng.choice((1, 2, 4)), rng.choice(_TELLING)
    position = rng.randrange(min(len(data), 64))
    encoded = (value % 256**width).to_bytes(width, rng.choice(("big", "little")))
    data[position : position + width] = encoded


def _cut_off(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data)) :]


def _delete(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 4, 16, 64))]


def _repeat(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 4, 16, 64, 256, 1024))]
    data[start:start] = piece * rng.choice((1, 2, 8, 64))


def _insert(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.randbytes(rng.choice((1, 2, 4, 32)))


def _blank(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    start, size = rng.randrange(len(data)), rng.choice((2, 8, 32, 128))
    data[start : start + size] = bytes([rng.choice((0, 255))]) * len(data[start : start + size])


def _splice(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """Goes on as another image does."""
    other = rng.choice(others)
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other) + 1) :]


def _borrow(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """Takes a piece of another image in."""
    other = rng.choice(others)
    start = rng.randrange(len(other) + 1)
    position = rng.randrange(len(data))
    data[position:position] = other[start : start + rng.choice((4, 16, 64, 512))]


def _marker(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    """A marker of JPEG files, with any length."""
    position = rng.randrange(len(data))
    segment = bytes((0xFF, rng.choice(_MARKERS)))
    data[position:position] = segment + struct.pack(">H", rng.choice(_TELLING) & 0xFFFF)


_CHANGES: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    *(_flip_bit, _set_byte, _set_number, _set_number, _set_header_number, _set_header_number),
    *(_cut_off, _delete, _repeat, _insert, _blank, _splice, _borrow, _marker),
)
