"""Kinds of bad video, and what is said of each."""

import gzip
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from painted import paint, remux, write_video

FRAMES = 30


@dataclass(frozen=True)
class Kind:
    """A bad video.

    Args:
        name: of the kind.
        suffix: of the file.
        make: writes it to the path, from the folder of good ones.
        said: what the error says, a part of it; "" if the video can be used.
    """

    name: str
    suffix: str
    make: Callable[[Path, Path], object]
    said: str


def write_good(folder: Path) -> None:
    """Write the good videos that bad ones are made of."""
    options = {"g": "10", "bf": "2"}
    write_video(folder / "a.mp4", "libx264", FRAMES, options=options)
    write_video(folder / "a.mkv", "libx264", FRAMES, options=options)
    write_video(folder / "a.ts", "libx264", FRAMES, options=options)
    write_video(folder / "a.webm", "libvpx-vp9", FRAMES, options={"cpu-used": "8"})
    write_video(folder / "a.avi", "mjpeg", FRAMES, pixels="yuvj420p")
    with av.open(str(folder / "a.mp4")) as reader:
        options = {"movflags": "faststart"}
        with av.open(str(folder / "fast.mp4"), "w", options=options) as writer:
            copy = writer.add_stream_from_template(reader.streams.video[0])
            for packet in reader.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    writer.mux(packet)


def write_frames(folder: Path, numbers: range = range(FRAMES), name: str = "{:04d}.jpg") -> None:
    folder.mkdir()
    for i in numbers:
        cv2.imwrite(str(folder / name.format(i)), paint(i)[..., ::-1])


def cut(name: str, share: float) -> Callable[[Path, Path], None]:
    def make(path: Path, good: Path) -> None:
        content = (good / name).read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return make


def with_bytes(content: bytes) -> Callable[[Path, Path], object]:
    return lambda path, good: path.write_bytes(content)


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


def no_moov_samples(content: bytearray) -> None:
    for box in (b"stsz", b"stts", b"stsc", b"stco"):
        content[content.index(box) : content.index(box) + 4] = b"free"


def packets(name: str, change: Callable[[int, bytes], bytes]) -> Callable[[Path, Path], object]:
    return lambda path, good: remux(good / name, path, change)


def noise(number: int, packet: bytes) -> bytes:
    return np.random.default_rng(number).bytes(len(packet))


def huge(packet: bytes) -> bytes:
    """Change the size in a JPEG's frame header."""
    start = packet.index(b"\xff\xc0") + 5
    return packet[:start] + (16000).to_bytes(2, "big") * 2 + packet[start + 4 :]


def frames(change: Callable[[Path], object], **options: object) -> Callable[[Path, Path], None]:
    def make(path: Path, good: Path) -> None:
        write_frames(path, **options)  # type: ignore[arg-type]
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


def a_socket(path: Path, good: Path) -> None:
    # Its address is limited to about 100 characters, so it is made in the folder.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def a_jpeg(path: Path, good: Path) -> None:
    path.write_bytes(cv2.imencode(".jpg", paint(3))[1].tobytes())


def a_png(path: Path, good: Path) -> None:
    path.write_bytes(cv2.imencode(".png", paint(3))[1].tobytes())


def halves_swapped(path: Path, good: Path) -> None:
    content = (good / "a.mp4").read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[middle:] + content[:middle])


def empty_file(folder: Path) -> None:
    (folder / "0003.jpg").write_bytes(b"")


def cut_image(folder: Path) -> None:
    file = folder / "0003.jpg"
    file.write_bytes(file.read_bytes()[:400])


def folder_for_image(folder: Path) -> None:
    (folder / "0003.jpg").unlink()
    (folder / "0003.jpg").mkdir()


def pipe_for_image(folder: Path) -> None:
    (folder / "0003.jpg").unlink()
    os.mkfifo(folder / "0003.jpg")


def other_size(folder: Path) -> None:
    cv2.imwrite(str(folder / "0003.jpg"), cv2.resize(paint(3), (200, 20)))


INVALID = "Invalid data found"
KINDS = [
    Kind("a file without a byte", ".mp4", with_bytes(b""), "it has no bytes"),
    Kind("text", ".mp4", with_bytes(b"no video\n" * 50), INVALID),
    Kind("an error page of a web server", ".mp4", with_bytes(b"<html>404</html>" * 9), INVALID),
    Kind("random bytes", ".mp4", with_bytes(np.random.default_rng(3).bytes(9999)), INVALID),
    Kind("a megabyte of zeros", ".mp4", with_bytes(bytes(1 << 20)), INVALID),
    Kind(
        "a compressed video",
        ".mp4",
        lambda p, g: p.write_bytes(gzip.compress((g / "a.mp4").read_bytes())),
        INVALID,
    ),
    Kind("a PNG image", ".mp4", a_png, "its format is png_pipe, which is not read"),
    Kind("a JPEG image", ".mp4", a_jpeg, "its format is jpeg_pipe, which is not read"),
    Kind("sound alone", ".mp4", audio, "no video stream"),
    Kind(
        "a playlist that names a video", ".mp4", with_bytes(b"#EXTM3U\n#EXTINF:1\na.mp4\n"), INVALID
    ),
    Kind(
        "a list for FFmpeg that names a video",
        ".mp4",
        with_bytes(b"ffconcat version 1.0\nfile /etc/hostname\n"),
        "its format is concat, which is not read",
    ),
    Kind("MP4, cut off in its first box", ".mp4", cut("fast.mp4", 0.002), INVALID),
    Kind("MP4, cut off in its header", ".mp4", cut("fast.mp4", 0.08), "no video stream"),
    Kind("MP4, cut off in the middle", ".mp4", cut("fast.mp4", 0.7), "cut off after"),
    Kind(
        "MP4 with its header at the end, cut off", ".mp4", cut("a.mp4", 0.3), "moov atom not found"
    ),
    Kind("MP4, its halves swapped", ".mp4", halves_swapped, INVALID),
    Kind(
        "MP4 without an entry of a frame", ".mp4", patched("fast.mp4", no_moov_samples), "no frames"
    ),
    Kind(
        "MP4 with a codec that nobody knows",
        ".mp4",
        patched("fast.mp4", lambda c: field(b"stsd", 12, b"zzzz")(c)),
        "decoder",
    ),
    Kind("MP4 with noise in every packet", ".mp4", packets("a.mp4", noise), INVALID),
    Kind(
        "MP4 with noise from frame 10 on",
        ".mp4",
        packets("a.mp4", lambda i, p: noise(i, p) if i >= 10 else p),
        INVALID,
    ),
    Kind(
        "MP4 without its second key frame",
        ".mp4",
        packets("a.mp4", lambda i, p: b"" if i == 10 else p),
        "",
    ),
    Kind(
        "MP4 with garbage after its end",
        ".mp4",
        lambda p, g: p.write_bytes((g / "a.mp4").read_bytes() + bytes(range(256)) * 9),
        "",
    ),
    Kind(
        "MP4 with a time scale of 0",
        ".mp4",
        patched("fast.mp4", field(b"mdhd", 12, bytes(4))),
        "but its header says",
    ),
    Kind(
        "MP4 whose frames last no time",
        ".mp4",
        patched("fast.mp4", field(b"stts", 12, bytes(4))),
        "but its header says 30",
    ),
    Kind(
        "MP4 turned by 45 degrees",
        ".mp4",
        patched(
            "fast.mp4", field(b"tkhd", 40, bytes.fromhex("0000b504 0000b504 00000000 ffff4afc"))
        ),
        "",
    ),
    Kind("Matroska, cut off in its header", ".mkv", cut("a.mkv", 0.02), "Truncating packet"),
    Kind(
        "Matroska, cut off before the first frame", ".mkv", cut("a.mkv", 0.15), "Truncating packet"
    ),
    Kind("Matroska, cut off in the middle", ".mkv", cut("a.mkv", 0.6), "File ended prematurely"),
    Kind("WebM, cut off in the middle", ".webm", cut("a.webm", 0.6), "File ended prematurely"),
    Kind(
        "WebM without its first bytes",
        ".webm",
        lambda p, g: p.write_bytes((g / "a.webm").read_bytes()[40:]),
        "which is not read",
    ),
    Kind("MPEG-TS, cut off in the middle", ".ts", cut("a.ts", 0.6), ""),
    Kind("AVI, cut off in its header", ".avi", cut("a.avi", 0.002), INVALID),
    Kind("AVI, cut off in the middle", ".avi", cut("a.avi", 0.6), "but its header says 30"),
    Kind(
        "AVI whose header says 9999 frames",
        ".avi",
        patched("a.avi", field(b"strh", 36, (9999).to_bytes(4, "little"))),
        "it holds 30 frames, but its header says 9999",
    ),
    Kind(
        "AVI whose header says 3 frames",
        ".avi",
        patched("a.avi", field(b"strh", 36, (3).to_bytes(4, "little"))),
        "",
    ),
    Kind("AVI with a rate of 0", ".avi", patched("a.avi", field(b"strh", 24, bytes(8))), ""),
    Kind(
        "AVI whose header says 60000 x 60000 pixels",
        ".avi",
        patched("a.avi", field(b"strf", 8, (60000).to_bytes(4, "little") * 2)),
        "",
    ),
    Kind(
        "AVI whose frames are 16000 x 16000 pixels",
        ".avi",
        packets("a.avi", lambda _, p: huge(p)),
        INVALID,
    ),
    Kind(
        "AVI whose header says 0 x 0 pixels",
        ".avi",
        patched("a.avi", field(b"strf", 8, bytes(8))),
        "",
    ),
    Kind(
        "a video of one frame",
        ".mp4",
        lambda p, g: write_video(p, "libx264", 1),
        "",
    ),
    Kind("an empty folder", "", lambda p, g: p.mkdir(), "a folder without images"),
    Kind("a folder with a video in it", "", lambda p, g: shutil.copytree(g, p), "without images"),
    Kind("a named pipe", ".mp4", lambda p, g: os.mkfifo(p), "it is a named pipe"),
    Kind("a socket", ".mp4", a_socket, "it is a socket"),
    Kind("a device", ".mp4", lambda p, g: p.symlink_to("/dev/zero"), "it is a device"),
    Kind("a link to nothing", ".mp4", lambda p, g: p.symlink_to("gone"), "a link to nothing"),
    Kind("a link to itself", ".mp4", lambda p, g: p.symlink_to(p), "a link to nothing"),
    Kind(
        "a folder of frames with a gap",
        "",
        frames(lambda folder: (folder / "0003.jpg").unlink()),
        "frame 0003.jpg is missing",
    ),
    Kind(
        "a folder whose frame is text",
        "",
        frames(lambda folder: (folder / "0003.jpg").write_text("no image")),
        "frame 0003.jpg cannot be read",
    ),
    Kind("a folder whose frame has no byte", "", frames(empty_file), "frame 0003.jpg has no bytes"),
    Kind("a folder whose frame is cut off", "", frames(cut_image), "frame 0003.jpg cannot be read"),
    Kind(
        "a folder whose frame is a folder",
        "",
        frames(folder_for_image),
        "frame 0003.jpg cannot be read (Is a directory)",
    ),
    Kind(
        "a folder whose frame is a named pipe",
        "",
        frames(pipe_for_image),
        "frame 0003.jpg is a named pipe",
    ),
    Kind(
        "a folder whose frame links to nothing",
        "",
        frames(
            lambda folder: ((folder / "0003.jpg").unlink(), (folder / "0003.jpg").symlink_to("x"))
        ),
        "frame 0003.jpg cannot be read (No such file or directory)",
    ),
    Kind("a folder with a frame of another size", "", frames(other_size), ""),
    Kind(
        "a folder of two videos' frames",
        "",
        frames(lambda folder: shutil.copy(folder / "0003.jpg", folder / "b_0031.jpg")),
        "more than one name",
    ),
    Kind(
        "a folder with a frame without a number",
        "",
        frames(lambda folder: shutil.copy(folder / "0003.jpg", folder / "last.jpg")),
        "frame last.jpg has no number in its name",
    ),
]
