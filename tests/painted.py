"""Video files whose frames have their number painted in, as blocks that survive any codec."""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 64, 48
BITS = 8  # so at most 256 frames


def paint(number: int, *, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return a gray image, RGB uint8, with `number` in two rows of four black or white blocks.

    The upper left quarter is red in part, so that it can be told how an image is turned.
    """
    image = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, 4)
        y, x = height // 4 + row * height // 4, column * width // 4
        image[y : y + height // 4, x : x + width // 4] = 255 * (number >> bit & 1)
    image[: height // 5, : width // 2] = (220, 20, 20)
    return image


def read_number(image: np.ndarray) -> int:
    """Return the number that is painted in an image, also a scaled one."""
    height, width = image.shape[:2]
    number = 0
    for bit in range(BITS):
        row, column = divmod(bit, 4)
        y, x = (height * (3 + 2 * row)) // 8, (width * (1 + 2 * column)) // 8
        number |= int(image[y, x].mean() > 128) << bit
    return number


def write_video(
    path: Path,
    codec: str,
    num_frames: int = 60,
    *,
    rate: int = 25,
    stamps: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    audio: bool = False,
) -> Path:
    """Encode painted frames.

    Args:
        stamps: of the frames, in thousandths of a second; constant rate by default.
        size: width and height.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        if stamps is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=8000, layout="mono") if audio else None
        for i in range(num_frames):
            image = paint(i, width=size[0], height=size[1])
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            samples = np.zeros((1, 1024), np.float32)
            for start in range(0, num_frames * 8000 // rate, 1024):
                silence = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                silence.sample_rate, silence.pts = 8000, start
                container.mux(sound.encode(silence))
            container.mux(sound.encode())
    return path


def copy_packets(
    source: Path,
    path: Path,
    change: Callable[[int, "av.Packet"], Sequence["av.Packet"]],
    **options: str,
) -> Path:
    """Copy a video packet by packet, in the order of decoding, as `change` has them by number.

    Args:
        options: of the muxer.
    """
    with av.open(str(source)) as reader, av.open(str(path), "w", options=options) as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        copy.time_base = stream.time_base
        packets = (packet for packet in reader.demux(stream) if packet.dts is not None)
        for number, packet in enumerate(packets):
            for new in change(number, packet):
                new.stream = copy
                writer.mux(new)
    return path


def remux(source: Path, path: Path, change: Callable[[int, bytes], bytes]) -> Path:
    """Copy a video packet by packet, with the bytes of `change`; b"" leaves one out."""

    def changed(number: int, packet: "av.Packet") -> list["av.Packet"]:
        content = change(number, bytes(packet))
        if not content:
            return []
        new = av.Packet(content)
        new.pts, new.dts = packet.pts, packet.dts
        new.time_base, new.is_keyframe = packet.time_base, packet.is_keyframe
        return [new]

    return copy_packets(source, path, changed)


def delay(packet: "av.Packet", seconds: Fraction) -> list["av.Packet"]:
    """Return the packet with later time stamps."""
    packet.pts += int(seconds / packet.time_base)
    packet.dts += int(seconds / packet.time_base)
    return [packet]


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write the display matrix into an MP4's header: (x, y) is shown at (ax + cy, bx + dy)."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    matrix = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(bytes(content))
    return path


def set_edits(path: Path, edits: Sequence[tuple[int, int]]) -> Path:
    """Write the edit list of an MP4 of one track that ends with its header.

    Args:
        edits: duration in thousandths of a second, and first time in the track's units or -1.
    """
    content = bytearray(path.read_bytes())
    items = b"".join(struct.pack(">IiI", *edit, 1 << 16) for edit in edits)
    elst = struct.pack(">I4sII", 16 + len(items), b"elst", 0, len(edits)) + items
    edts = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    old = content.index(b"edts") - 4
    (size,) = struct.unpack_from(">I", content, old)
    content[old : old + size] = edts
    for box in (b"moov", b"trak"):
        start = content.index(box) - 4
        (whole,) = struct.unpack_from(">I", content, start)
        struct.pack_into(">I", content, start, whole + len(edts) - size)
    path.write_bytes(content)
    return path
