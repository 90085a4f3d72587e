"""Kinds of bad video."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from painted import copy_packets, paint, remux, write_video

FRAMES = 30


@dataclass(frozen=True)
class Kind:
    """A bad video.

    Args:
        name: of the kind.
        suffix: of the file.
        make: writes it to the path, from the folder of good ones.
        is_usable: whether it can be read all the same.
    """

    name: str
    suffix: str
    make: Callable[[Path, Path], object]
    is_usable: bool = False


def write_good(folder: Path) -> Path:
    """Write the good videos that bad ones are made of."""
    for suffix in ("mp4", "mkv", "ts"):
        write_video(folder / f"a.{suffix}", "libx264", FRAMES, options={"g": "10", "bf": "2"})
    write_video(folder / "a.webm", "libvpx-vp9", FRAMES, options={"cpu-used": "8"})
    write_video(folder / "a.avi", "mjpeg", FRAMES, pixels="yuvj420p")
    fast = folder / "fast.mp4"
    copy_packets(folder / "a.mp4", fast, lambda _, packet: [packet], movflags="faststart")
    return folder


def write_frames(folder: Path) -> None:
    folder.mkdir()
    for i in range(FRAMES):
        cv2.imwrite(str(folder / f"{i:04d}.jpg"), paint(i)[..., ::-1])


def cut(name: str, share: float) -> Callable[[Path, Path], None]:
    def shorten(content: bytearray) -> None:
        del content[int(len(content) * share) :]

    return patched(name, shorten)


def patched(name: str, change: Callable[[bytearray], object]) -> Callable[[Path, Path], None]:
    def make(path: Path, good: Path) -> None:
        content = bytearray((good / name).read_bytes())
        change(content)
        path.write_bytes(content)

    return make


def field(after: bytes, offset: int, value: bytes) -> Callable[[bytearray], None]:
    """Return a change of the bytes `offset` behind the first occurrence of `after`."""

    def change(content: bytearray) -> None:
        start = content.index(after) + len(after) + offset
        content[start : start + len(value)] = value

    return change


def noise(number: int, packet: bytes) -> bytes:
    return np.random.default_rng(number).bytes(len(packet))


def late_noise(number: int, packet: bytes) -> bytes:
    return noise(number, packet) if number >= 10 else packet


def frames(change: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def make(path: Path, good: Path) -> None:
        write_frames(path)
        change(path)

    return make


def audio(path: Path, good: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        tone = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        tone.sample_rate, tone.pts = 8000, 0
        container.mux(stream.encode(tone))
        container.mux(stream.encode())


def cut_image(folder: Path) -> None:
    file = folder / "0003.jpg"
    file.write_bytes(file.read_bytes()[:400])


def other_size(folder: Path) -> None:
    cv2.imwrite(str(folder / "0003.jpg"), cv2.resize(paint(3), (200, 20)))


KINDS = [
    Kind(
        "an error page of a web server", ".mp4", lambda p, g: p.write_bytes(b"<html>404</html>" * 9)
    ),
    Kind("sound alone", ".mp4", audio),
    Kind(
        "a playlist that names a video",
        ".mp4",
        lambda p, g: p.write_bytes(b"#EXTM3U\n#EXTINF:1\na.mp4\n"),
    ),
    Kind("MP4, cut off in its header", ".mp4", cut("fast.mp4", 0.08)),
    Kind("MP4, cut off in the middle", ".mp4", cut("fast.mp4", 0.7)),
    Kind("MP4 with its header at the end, cut off", ".mp4", cut("a.mp4", 0.3)),
    Kind(
        "MP4 with a codec that nobody knows",
        ".mp4",
        patched("fast.mp4", field(b"stsd", 12, b"zzzz")),
    ),
    Kind(
        "MP4 with noise from frame 10 on",
        ".mp4",
        lambda path, good: remux(good / "a.mp4", path, late_noise),
    ),
    Kind(
        "MP4 with a time scale of 0",
        ".mp4",
        patched("fast.mp4", field(b"mdhd", 12, bytes(4))),
        is_usable=True,
    ),
    Kind(
        "MP4 turned by 45 degrees",
        ".mp4",
        patched(
            "fast.mp4", field(b"tkhd", 40, bytes.fromhex("0000b504 0000b504 00000000 ffff4afc"))
        ),
        is_usable=True,
    ),
    Kind("Matroska, cut off in the middle", ".mkv", cut("a.mkv", 0.6)),
    Kind("MPEG-TS, cut off in the middle", ".ts", cut("a.ts", 0.6), is_usable=True),
    Kind("AVI, cut off in the middle", ".avi", cut("a.avi", 0.6)),
    Kind(
        "AVI whose header says 9999 frames",
        ".avi",
        patched("a.avi", field(b"strh", 36, (9999).to_bytes(4, "little"))),
        is_usable=True,
    ),
    Kind(
        "AVI with a rate of 0",
        ".avi",
        patched("a.avi", field(b"strh", 24, bytes(8))),
        is_usable=True,
    ),
    Kind(
        "a video of one frame",
        ".mp4",
        lambda p, g: write_video(p, "libx264", 1),
        is_usable=True,
    ),
    Kind("a folder with a video in it", "", lambda p, g: shutil.copytree(g, p)),
    Kind("a named pipe", ".mp4", lambda p, g: os.mkfifo(p)),
    Kind("a link to nothing", ".mp4", lambda p, g: p.symlink_to("gone")),
    Kind(
        "a folder of frames with a gap",
        "",
        frames(lambda folder: (folder / "0003.jpg").unlink()),
    ),
    Kind("a folder whose frame is cut off", "", frames(cut_image)),
    Kind("a folder with a frame of another size", "", frames(other_size), is_usable=True),
    Kind(
        "a folder of two videos' frames",
        "",
        frames(lambda folder: shutil.copy(folder / "0003.jpg", folder / "b_0031.jpg")),
    ),
    Kind(
        "a folder with a frame without a number",
        "",
        frames(lambda folder: shutil.copy(folder / "0003.jpg", folder / "last.jpg")),
    ),
]
