"""Reading: whatever the codec and the container, the frames that were asked for."""

import os
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import painted
import pytest
from painted import (
    copy_packets,
    delay,
    paint,
    read_number,
    remux,
    set_edits,
    set_matrix,
    write_video,
)

from nl_detectron.data.video import probing, reading
from nl_detectron.data.video.info import VideoError, VideoInfo
from nl_detectron.data.video.probing import probe, probe_all
from nl_detectron.data.video.reading import read_frames
from nl_detectron.data.video.streaming import VideoStream

FRAMES = 60
LONG = {"g": "45", "bf": "3", "x264-params": "scenecut=0"}
# Key frames that earlier frames refer to
OPEN = {"g": "10", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-pyramid=normal"}
VARIABLE = np.cumsum(random.Random(5).choices((9, 21, 40, 95), k=FRAMES)).tolist()


KINDS: dict[str, Callable[[Path], object]] = {
    "h264.mp4": lambda path: write_video(path, "libx264", FRAMES, options=LONG),
    "h264_open_gops.mkv": lambda path: write_video(path, "libx264", FRAMES, options=OPEN),
    "h264.ts": lambda path: write_video(path, "libx264", FRAMES, options={"g": "30", "bf": "2"}),
    "h264_variable_rate.mkv": lambda path: write_video(
        path, "libx264", FRAMES, stamps=VARIABLE, options={"g": "50", "bf": "2"}
    ),
    "mpeg4.mp4": lambda path: write_video(path, "mpeg4", FRAMES, options={"bf": "2", "g": "25"}),
    "mpeg4.avi": lambda path: write_video(path, "mpeg4", FRAMES, options={"bf": "2", "g": "25"}),
    "mpeg2.mpg": lambda path: write_video(path, "mpeg2video", FRAMES, options={"bf": "2"}),
    "flv1.flv": lambda path: write_video(path, "flv", FRAMES, options={"g": "30"}),
    "wmv2.wmv": lambda path: write_video(path, "wmv2", FRAMES, options={"g": "30"}),
    "vp8.webm": lambda path: write_video(
        path, "libvpx", FRAMES, rate=24, options={"g": "40", "cpu-used": "8"}
    ),
    "vp9.webm": lambda path: write_video(
        path, "libvpx-vp9", FRAMES, rate=30, options={"g": "64", "cpu-used": "8"}
    ),
    "mjpeg.avi": lambda path: write_video(path, "mjpeg", FRAMES, pixels="yuvj420p"),
    "hevc.mp4": lambda path: write_video(
        path, "libx265", FRAMES, options={"x265-params": "keyint=60:bframes=3:log-level=none"}
    ),
    "av1.mp4": lambda path: write_video(path, "libsvtav1", FRAMES, options={"preset": "12"}),
    "raw.h264": lambda path: write_video(path, "libx264", FRAMES, options={"g": "30", "bf": "2"}),
}


# Files whose time stamps, packets or headers do not tell which frames there are

SHORT = {"g": "10", "bf": "2", "x264-params": "scenecut=0"}
FRAME = Fraction(1, 25)


def trimmed(path: Path, codec: str, options: dict[str, str], count: int) -> None:
    """Hide frames before an edit list's start, as trimming without encoding does."""
    whole = write_video(path.with_name("whole.mp4"), codec, 40, options=options)
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    copy_packets(whole, path, lambda _, packet: delay(packet, -count * FRAME), **options)


def edited(path: Path, *edits: tuple[int, int]) -> None:
    """Write edits: a number of frames, and the first of them or -1 for an empty edit."""
    write_video(path, "libx264", 40, options=SHORT)
    unit = 512  # of the track, a frame; decoding is two frames ahead of presentation
    set_edits(path, [(40 * n, first if first < 0 else unit * (first + 2)) for n, first in edits])


def without_start(path: Path, codec: str, options: dict[str, str], suffix: str = ".mkv") -> None:
    """Begin inside a group of pictures."""
    whole = write_video(path.with_name(f"whole{suffix}"), codec, 40, options=options)
    copy_packets(whole, path, lambda i, packet: [packet] if i >= 7 else [])


def with_gaps(path: Path, frames: str) -> None:
    """Drop frames, in whose places AVI has empty chunks."""
    whole = write_video(path.with_name("whole.mp4"), "mpeg4", 40, options={"bf": frames, "g": "10"})

    copy_packets(whole, path, lambda i, packet: in_decoding_order(packet, i // 3 * FRAME))


def with_vops_not_coded(path: Path) -> None:
    """Put packets that give no picture in the places of frames."""
    whole = write_video(path.with_name("whole.mp4"), "mpeg4", 40, options={"g": "10"})
    # A VOP's start code, P, the same second, a marker, five bits of time, a marker, not coded.
    vop = bytes([0, 0, 1, 0xB6, 0b01010000, 0b01001111])
    remux(whole, path, lambda number, content: vop if number % 7 == 6 else content)


def cut_bytes(path: Path) -> None:
    write_video(path, "mpeg2video", 60, options={"bf": "2", "g": "15"})
    path.write_bytes(path.read_bytes()[188 * 20 + 5 :])


def joined(path: Path) -> None:
    """Append a recording, whose clock starts again."""
    write_video(path, "libx264", 30, options=SHORT)
    path.write_bytes(path.read_bytes() * 2)


def in_decoding_order(packet: av.Packet, seconds: Fraction = FRAME) -> list[av.Packet]:
    """Return a later packet whose stamps are those of decoding."""
    delay(packet, seconds)
    packet.pts = packet.dts
    return [packet]


def stamped_in_decoding_order(path: Path) -> None:
    whole = write_video(path.with_name("whole.mp4"), "libx264", 40, options=SHORT)
    copy_packets(whole, path, lambda _, packet: in_decoding_order(packet))


ODD: dict[str, Callable[[Path], object]] = {
    "h264.avi": lambda path: write_video(path, "libx264", 40, options=SHORT),
    "open_gops.avi": lambda path: write_video(path, "libx264", 40, options=OPEN),
    "gaps.avi": lambda path: with_gaps(path, "0"),
    "gaps_and_b_frames.avi": lambda path: with_gaps(path, "2"),
    "not_coded.mp4": with_vops_not_coded,
    "trimmed.mp4": lambda path: trimmed(path, "libx264", SHORT, 5),
    "trimmed.mov": lambda path: trimmed(path, "mpeg4", {"g": "10", "bf": "2"}, 13),
    "edit_of_part.mp4": lambda path: edited(path, (25, 4)),
    "empty_edit.mp4": lambda path: edited(path, (12, -1), (20, 4)),
    "two_edits.mp4": lambda path: edited(path, (8, 4), (12, 24)),
    "edits_back.mp4": lambda path: edited(path, (12, 24), (12, 4)),
    "same_edit_twice.mov": lambda path: edited(path, (12, 4), (5, -1), (12, 4)),
    "no_start.ts": lambda path: without_start(path, "libx264", SHORT, ".ts"),
    "no_start_mpeg2.mpg": lambda path: without_start(path, "mpeg2video", {"g": "10", "bf": "2"}),
    "no_start_mpeg4.mp4": lambda path: without_start(path, "mpeg4", {"g": "10", "bf": "2"}),
    "no_start_open_gops.mkv": lambda path: without_start(path, "libx264", OPEN),
    "no_start_bytes.ts": cut_bytes,
    "joined.ts": joined,
    "decoding_order.mkv": stamped_in_decoding_order,
    "interlaced.mp4": lambda path: write_video(
        path, "libx264", 40, options=SHORT | {"flags": "+ildct+ilme"}
    ),
}


@pytest.mark.parametrize("name", [*KINDS, *ODD])
def test_frames_match_sequential_decoding(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    (KINDS | ODD)[name](path)
    with av.open(str(path)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    info = probe(path)
    count = info.num_frames
    assert count == len(whole) > 0
    if name in KINDS:
        assert list(map(read_number, whole)) == list(range(FRAMES))
    draw = random.Random(name)
    requests = [[draw.randrange(count) for _ in range(draw.randint(1, 5))] for _ in range(20)]
    for indices in [[i] for i in range(0, count, 3)] + [list(range(count))[::-1]] + requests:
        frames = read_frames(path, indices, info)
        assert all(
            np.array_equal(frame, whole[i]) for frame, i in zip(frames, indices, strict=True)
        )
    streamed = list(VideoStream(path))
    assert all(np.array_equal(s.pixels, frame) for s, frame in zip(streamed, whole, strict=True))
    starts = [float(frame.start) for frame in streamed]
    assert np.diff(starts).min() > 0
    assert info.seconds(range(count)) == pytest.approx(starts)
    if "variable_rate" in name:
        assert starts == pytest.approx([(t - VARIABLE[0]) / 1000 for t in VARIABLE], abs=2e-3)
    assert starts[-1] < 2 * count / 24  # about a frame each, whatever the stamps say


def test_packets_before_the_first_key_frame_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    without_start(path, "libvpx", {"g": "20", "cpu-used": "8"}, ".webm")
    assert list(map(read_number, read_frames(path, [19, 0], probe(path)))) == [39, 20]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of key frames 0 and 45."""
    return write_video(tmp_path_factory.mktemp("long") / "a.mp4", "libx264", FRAMES, options=LONG)


def test_decoding_spans_key_frame_to_last_requested(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = probe(long)
    assert info.key_frames == (0, 45)
    decoded: list[int] = []
    decode = reading._decode_needed

    def counting(*args: Any) -> Iterator:
        for frame in decode(*args):
            decoded.append(read_number(frame.to_ndarray(format="rgb24")))
            yield frame

    monkeypatch.setattr(reading, "_decode_needed", counting)
    read_frames(long, [5, 50], info)
    assert {0, 5, 45, 50} <= set(decoded) < {*range(6), *range(45, 51)}  # less than all of them


def test_seek_past_key_frame_is_corrected(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(long)
    late = info.stamps.values(FRAMES)[55:]

    def decode_from_55(*_: Any) -> Iterator[av.VideoFrame]:
        for stamp in late:  # black, as frame 55 is no key frame
            frame = av.VideoFrame.from_ndarray(0 * paint(0))
            frame.pts = stamp
            yield frame

    monkeypatch.setattr(reading, "_decode_needed", decode_from_55)
    assert [read_number(frame) for frame in read_frames(long, [56], info)] == [56]


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])  # of FFmpeg; a library of its own
def test_one_thread_decodes(tmp_path: Path, codec: str) -> None:
    with reading.opened(write_video(tmp_path / "a.mp4", codec, 9)) as (container, _):
        stream = reading.video_stream(container)
        next(container.decode(stream))
        assert (stream.codec_context.thread_count, stream.thread_type.name) == (1, "NONE")


@pytest.mark.parametrize(
    "matrix",
    [
        *((1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)),
        *((0, 1, 1, 0), (0, -1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0)),
    ],
)
def test_frames_are_turned_and_mirrored_as_the_header_says(
    tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", 10)
    upright = read_frames(path, [3], probe(path))[0]
    set_matrix(path, *matrix)
    info = probe(path)
    (found,) = read_frames(path, [3], info)
    assert found.shape == (info.height, info.width, 3)
    a, b, c, d = matrix
    y, x = np.mgrid[: painted.HEIGHT, : painted.WIDTH]
    column, row = a * x + c * y, b * x + d * y
    assert np.array_equal(found[row - row.min(), column - column.min()], upright)
    assert np.array_equal(list(VideoStream(path))[3].pixels, found)
    small = read_frames(path, [3], info, size=(info.height // 2, info.width // 2))[0]
    half = found.reshape(info.height // 2, 2, info.width // 2, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - small).mean() < 8


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    (folder := tmp_path / "frames").mkdir()
    for i in range(12):
        cv2.imwrite(str(folder / f"f-{i + 1:06d}.png"), paint(i)[..., ::-1])
    return folder


def test_frames_of_a_folder_are_its_images(frames: Path) -> None:
    info = probe(frames)
    assert info.num_frames == 12
    assert np.array_equal(read_frames(frames, [11, 3], info), [paint(11), paint(3)])
    half = read_frames(frames, [3], info, size=(24, 32))[0]
    means = paint(3).reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - means).max() <= 0.5


def test_frames_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    # The end of this format does not tell that it is cut off.
    path = write_video(tmp_path / "a.ts", "libx264", FRAMES)
    info, content = probe(path), path.read_bytes()
    for indices in ([FRAMES], [-1, 4]):
        with pytest.raises(IndexError):
            read_frames(path, indices, info)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError):
        read_frames(path, [1, FRAMES - 1], info)


# Probing many


def test_probe_cache_is_updated_for_changed_files(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = probing.probe

    def counting(path: str, **options: float) -> VideoInfo:
        calls.append(os.path.basename(path))
        return real(path, **options)

    monkeypatch.setattr(probing, "probe", counting)
    names = ["h264.mp4", "h264_variable_rate.mkv", "frames", "bad.mp4", "missing.mp4"]
    for name in names[:2]:
        KINDS[name](tmp_path / name)
    (tmp_path / "bad.mp4").write_text("no video")
    paths = [str(tmp_path / name) for name in names]
    monkeypatch.setenv("NL_DETECTRON_CACHE", str(tmp_path / "cache"))
    first = probe_all(paths, list_file=tmp_path / "list.txt")
    assert sorted(calls) == sorted(names[:4])
    assert isinstance(first[paths[3]], VideoError)
    assert first[paths[4]] is None
    calls.clear()
    write_video(tmp_path / "h264.mp4", "libx264", 12)
    second = probe_all(paths, list_file=tmp_path / "list.txt")
    # A bad one may have been put right where size and time do not tell.
    assert sorted(calls) == ["bad.mp4", "h264.mp4"]
    assert [second[path] for path in paths[1:3]] == [first[path] for path in paths[1:3]]
    assert second[paths[0]].num_frames == 12


def test_probing_works_without_writable_cache(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setenv("NL_DETECTRON_CACHE", str(tmp_path / "cache"))
    found = probe_all([str(frames)], list_file=tmp_path / "list.txt")
    assert found[str(frames)].num_frames == 12
    assert "Cannot keep the results" in caplog.text
