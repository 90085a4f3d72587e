"""Reading: whatever the codec and the container, the frames that were asked for."""

import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    not_coded,
    paint,
    read_number,
    remux,
    set_edits,
    set_matrix,
    write_video,
)

from nl_detectron.data.video import probing, reading
from nl_detectron.data.video.info import Stamps, VideoError, VideoInfo
from nl_detectron.data.video.probing import probe, probe_all
from nl_detectron.data.video.reading import read_frames
from nl_detectron.data.video.streaming import VideoStream

FRAMES = 200
LONG = {"g": "90", "bf": "3", "x264-params": "scenecut=0"}
VARIABLE = np.cumsum(random.Random(5).choices((9, 21, 40, 95), k=FRAMES)).tolist()


def write_h264(path: Path) -> None:
    write_video(path, "libx264", FRAMES, options=LONG)


def write_open_gops(path: Path) -> None:
    """Key frames that earlier frames refer to."""
    options = {"g": "20", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-pyramid=normal"}
    write_video(path, "libx264", FRAMES, options=options)


def write_late(path: Path) -> None:
    """The first stamp is far from 0."""
    whole = path.with_name("whole.mp4")
    write_video(whole, "libx264", FRAMES, options={"g": "40", "bf": "2"})
    remux(whole, path, lambda _, packet: packet, shift=123456)


def write_with_hidden_frames(path: Path) -> None:
    """VP8 frames that are references and never shown."""
    whole = path.with_name("whole.webm")
    write_video(whole, "libvpx", FRAMES + 10, options={"g": "30", "cpu-used": "8"})

    def hide(number: int, packet: bytes) -> bytes:
        return bytes([packet[0] & ~0x10]) + packet[1:] if number >= FRAMES else packet

    remux(whole, path, hide)


KINDS: dict[str, Callable[[Path], object]] = {
    "h264.mp4": write_h264,
    "h264_open_gops.mkv": write_open_gops,
    "h264_late.mp4": write_late,
    "h264.ts": lambda path: write_video(path, "libx264", FRAMES, options={"g": "30", "bf": "2"}),
    "h264_variable_rate.mp4": lambda path: write_video(
        path, "libx264", FRAMES, stamps=VARIABLE, options={"g": "50", "bf": "2"}
    ),
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
    "vp8_hidden.webm": write_with_hidden_frames,
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


@pytest.fixture(scope="module")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, write in KINDS.items():
        write(folder / name)
    frames = folder / "frames"
    frames.mkdir()
    for i in range(FRAMES):
        cv2.imwrite(str(frames / f"f-{i + 1:06d}.png"), paint(i)[..., ::-1])
    return folder


@pytest.mark.parametrize("name", [*KINDS, "frames"])
def test_each_of_200_requests_returns_the_very_frames(video_folder: Path, name: str) -> None:
    path = video_folder / name
    info = probe(path)
    assert info.num_frames == FRAMES
    draw = random.Random(name)
    for _ in range(200):
        kind = draw.randrange(3)
        if kind == 0:  # a clip that may go round
            start, stride = draw.randrange(FRAMES), draw.choice((1, 2, 8))
            indices = [(start + stride * i) % FRAMES for i in range(draw.randint(1, 5))]
        elif kind == 1:
            indices = [draw.randrange(FRAMES) for _ in range(draw.randint(1, 3))]
        else:  # twice the same, not in order
            indices = [draw.randrange(FRAMES)] * 2 + [0]
        frames = read_frames(path, indices, info, size=(24, 32))
        assert frames.shape == (len(indices), 24, 32, 3)
        assert [read_number(frame) for frame in frames] == indices


@pytest.mark.parametrize("name", list(KINDS))
def test_frames_are_those_of_a_full_sequential_decoding(video_folder: Path, name: str) -> None:
    with av.open(str(video_folder / name)) as container:
        stamps, whole = [], []
        for frame in container.decode(video=0):
            stamps.append(frame.pts)
            whole.append(frame.to_ndarray(format="rgb24"))
            unit = frame.time_base
    info = probe(video_folder / name)
    assert (info.num_frames, info.height, info.width) == (len(whole), painted.HEIGHT, painted.WIDTH)
    indices = [FRAMES - 1, 0, 117, 118, 3]
    frames = read_frames(video_folder / name, indices, info)
    assert all(np.array_equal(frame, whole[i]) for frame, i in zip(frames, indices, strict=True))
    if None not in stamps:
        expected = [float((stamps[i] - stamps[0]) * unit) for i in indices]
        assert info.seconds(indices) == pytest.approx(expected, abs=1e-9)


# Files whose time stamps, packets or headers do not tell which frames there are

SHORT = {"g": "10", "bf": "2", "x264-params": "scenecut=0"}
OPEN = {"g": "10", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
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


def with_empty_pictures(path: Path, frames: str) -> None:
    """Insert packets of MPEG-4 that give no picture."""
    whole = write_video(path.with_name("w.mp4"), "mpeg4", 40, options={"bf": frames, "g": "10"})

    def change(number: int, packet: av.Packet) -> list[av.Packet]:
        delay(packet, number // 7 * FRAME)
        return [packet] if number % 7 < 6 else [packet, not_coded(packet)]

    copy_packets(whole, path, change)


def with_gaps(path: Path, frames: str) -> None:
    """Drop frames, in whose places AVI has empty chunks."""
    whole = write_video(path.with_name("whole.mp4"), "mpeg4", 40, options={"bf": frames, "g": "10"})

    def change(number: int, packet: av.Packet) -> list[av.Packet]:
        delay(packet, number // 3 * FRAME)
        packet.pts = packet.dts
        return [packet]

    copy_packets(whole, path, change)


def cut_bytes(path: Path) -> None:
    write_video(path, "mpeg2video", 60, options={"bf": "2", "g": "15"})
    path.write_bytes(path.read_bytes()[188 * 20 + 5 :])


def joined(path: Path) -> None:
    """Append a recording, whose clock starts again."""
    part = write_video(path, "libx264", 30, options=SHORT).read_bytes()
    path.write_bytes(part * 2)


def stamped_in_decoding_order(path: Path) -> None:
    whole = write_video(path.with_name("whole.mp4"), "libx264", 40, options=SHORT)

    def change(_: int, packet: av.Packet) -> list[av.Packet]:
        packet.pts = packet.dts
        return [packet]

    copy_packets(whole, path, change)


ODD: dict[str, Callable[[Path], object]] = {
    "h264.avi": lambda path: write_video(path, "libx264", 40, options=SHORT),
    "open_gops.avi": lambda path: write_video(path, "libx264", 40, options=OPEN),
    "gaps.avi": lambda path: with_gaps(path, "0"),
    "gaps_and_b_frames.avi": lambda path: with_gaps(path, "2"),
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
    "empty_pictures.mp4": lambda path: with_empty_pictures(path, "0"),
    "empty_pictures.avi": lambda path: with_empty_pictures(path, "2"),
    "joined.ts": joined,
    "decoding_order.mkv": stamped_in_decoding_order,
    "interlaced.mp4": lambda path: write_video(
        path, "libx264", 40, options=SHORT | {"flags": "+ildct+ilme"}
    ),
}


@pytest.mark.parametrize("name", list(ODD))
def test_frames_of_odd_files_are_those_of_a_full_sequential_decoding(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    ODD[name](path)
    with av.open(str(path)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    info = probe(path)
    count = info.num_frames
    assert count == len(whole) > 0
    draw = random.Random(name)
    requests = [[draw.randrange(count) for _ in range(draw.randint(1, 5))] for _ in range(20)]
    for indices in [[i] for i in range(count)] + [list(range(count))[::-1]] + requests:
        frames = read_frames(path, indices, info)
        assert all(
            np.array_equal(frame, whole[i]) for frame, i in zip(frames, indices, strict=True)
        )
    streamed = list(VideoStream(path))
    assert all(np.array_equal(s.pixels, frame) for s, frame in zip(streamed, whole, strict=True))
    starts = [float(frame.start) for frame in streamed]
    assert np.diff(starts).min() > 0
    assert info.seconds(range(count)) == pytest.approx(starts)
    assert starts[-1] < 2 * count / 25  # about a frame each, whatever the stamps say


@pytest.mark.parametrize("frames", ["0", "2"])
def test_a_cut_file_with_dropped_frames_is_refused(tmp_path: Path, frames: str) -> None:
    path = tmp_path / "gaps.avi"
    with_gaps(path, frames)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"idx1") - 300])
    with pytest.raises(VideoError):
        probe(path)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_packets_before_the_first_key_frame_are_skipped(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.webm"
    without_start(path, codec, {"g": "20", "cpu-used": "8"}, ".webm")
    info = probe(path)
    assert info.num_frames == 20
    assert [read_number(frame) for frame in read_frames(path, [19, 0], info)] == [39, 20]


def references_of(path: Path) -> set[int]:
    """The numbers of the frames that others refer to."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.skip_frame = "NONREF"
        frames = container.decode(video=0)
        return {read_number(frame.to_ndarray(format="rgb24")) for frame in frames}


def test_decoding_starts_at_the_nearest_key_frame_and_ends_at_the_last_wanted(
    video_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video_folder / "h264.mp4"
    info = probe(path)
    assert info.key_frames == (0, 90, 180)
    references = references_of(path)
    assert {0, 90, 180} < references < set(range(FRAMES))
    decoded: list[int] = []
    decode = reading._decode_needed

    def counting(*args: Any) -> Iterator:
        for frame in decode(*args):
            decoded.append(read_number(frame.to_ndarray(format="rgb24")))
            yield frame

    monkeypatch.setattr(reading, "_decode_needed", counting)

    def needed(first: int, last: int, wanted: set[int]) -> list[int]:
        return [n for n in range(first, last + 1) if n in references | wanted]

    read_frames(path, [192, 190], info)
    assert decoded == needed(180, 192, {190, 192})
    decoded.clear()
    read_frames(path, [5, 185], info)
    assert decoded == needed(0, 5, {5}) + needed(180, 185, {185})
    decoded.clear()
    read_frames(path, [85, 95], info)
    assert decoded == needed(0, 95, {85, 95})


class SeeksLate:
    """A container whose index leads to `stamp`, which is no key frame."""

    def __init__(self, container: Any, stamp: int) -> None:
        self.container, self.stamp = container, stamp

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)

    def seek(self, offset: int, *, stream: Any) -> None:
        self.container.seek(self.stamp, stream=stream, any_frame=True)


def test_an_index_that_leads_behind_the_key_frame_is_not_believed(
    video_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video_folder / "mpeg4.mp4"
    info = probe(path)
    assert info.key_frame(118) < 117
    stamp = info.stamps.values(FRAMES)[117]
    real = reading.opened

    @contextmanager
    def opened(path: Path) -> Iterator[tuple]:
        with real(path) as (container, log):
            yield SeeksLate(container, stamp), log

    monkeypatch.setattr(reading, "opened", opened)
    assert [read_number(frame) for frame in read_frames(path, [118], info)] == [118]


def test_a_frame_that_the_decoder_calls_corrupt_is_decoded_again_from_the_start(
    video_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video_folder / "mpeg4.mp4"
    info = probe(path)
    assert info.key_frame(118) > 0
    real, decoded = reading._decode_needed, []

    class Corrupt:
        """A frame in which another's number is seen."""

        is_corrupt = True

        def __init__(self, frame: Any) -> None:
            self.pts = frame.pts

    def decode(*args: Any) -> Iterator:
        decoded.append(args)
        return map(Corrupt, real(*args))

    monkeypatch.setattr(reading, "_decode_needed", decode)
    assert [read_number(frame) for frame in read_frames(path, [118], info)] == [118]
    assert len(decoded) == 1


@pytest.mark.parametrize("name", ["h264.mp4", "av1.mp4"])  # of FFmpeg, and of a library of its own
def test_one_thread_decodes(video_folder: Path, name: str) -> None:
    with reading.opened(video_folder / name) as (container, _):
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


def test_a_turned_frame_is_shown_as_by_a_player(tmp_path: Path) -> None:
    path = set_matrix(write_video(tmp_path / "a.mp4", "libx264", 10), 0, -1, 1, 0)
    turned = read_frames(path, [3], probe(path))[0]
    reader = cv2.VideoCapture(str(path))  # turns frames by itself
    shown = [reader.read()[1] for _ in range(4)][3][..., ::-1]
    assert shown.shape == turned.shape
    assert np.abs(shown.astype(int) - turned).mean() < 3


def test_frames_come_out_scaled(video_folder: Path) -> None:
    path = video_folder / "mjpeg.avi"
    info = probe(path)
    whole = read_frames(path, [77], info)[0]
    half = read_frames(path, [77], info, size=(24, 32))[0]
    blocks = whole.reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(blocks - half).mean() < 8
    assert np.abs(blocks - half[::-1]).mean() > 50


def test_frames_of_a_folder_are_its_images(video_folder: Path) -> None:
    path = video_folder / "frames"
    info = probe(path)
    assert np.array_equal(read_frames(path, [3], info)[0], paint(3))
    half = read_frames(path, [3], info, size=(24, 32))[0]
    means = paint(3).reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - means).max() <= 0.5


def test_sound_is_left_alone(tmp_path: Path) -> None:
    path = write_video(tmp_path / "sound.mp4", "libx264", 20, audio=True)
    info = probe(path)
    assert info.num_frames == 20
    assert [read_number(f) for f in read_frames(path, [19, 7], info)] == [19, 7]


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = painted.WIDTH, painted.HEIGHT, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(paint(1), format="rgb24")))
        container.mux(cover.encode())
    with pytest.raises(VideoError):
        probe(path)


@pytest.mark.parametrize("name", ["mpeg4.mp4", "raw.h264", "frames"])
def test_frames_that_are_not_there_are_an_error(video_folder: Path, name: str) -> None:
    info = probe(video_folder / name)
    for indices in ([FRAMES], [-1, 4]):
        with pytest.raises(IndexError):
            read_frames(video_folder / name, indices, info)
    assert read_frames(video_folder / name, [], info).shape[0] == 0


@pytest.mark.parametrize("name", ["h264.ts", "vp9.webm", "raw.h264"])
def test_frames_that_have_gone_since_probing_are_an_error(
    video_folder: Path, tmp_path: Path, name: str
) -> None:
    info = probe(video_folder / name)
    content = (video_folder / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError):
        read_frames(tmp_path / name, [1, FRAMES - 2, FRAMES - 1], info)


def test_short_forms_of_time_stamps_are_exact() -> None:
    rounded = [round(Fraction(1000, 24) * i) for i in range(50)]
    stamps = Stamps.of(rounded, Fraction(1, 1000), Fraction(24))
    assert (stamps.others, stamps.step) == ((), Fraction(125, 3))
    assert stamps.values(50) == rounded
    uneven = Stamps.of([5, 6, 9], Fraction(1, 1000), Fraction(24))
    assert (uneven.values(3), uneven.step) == ([5, 6, 9], None)
    assert Stamps.of([7], Fraction(1, 9), None).values(1) == [7]


# Probing many


def test_probing_is_done_once_and_again_where_a_file_has_changed(
    video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = probing.probe

    def counting(path: str, **options: float) -> VideoInfo:
        calls.append(os.path.basename(path))
        return real(path, **options)

    monkeypatch.setattr(probing, "probe", counting)
    for name in ("h264.mp4", "vp9.webm", "h264_variable_rate.mkv"):
        (tmp_path / name).write_bytes((video_folder / name).read_bytes())
    (tmp_path / "bad.mp4").write_text("no video")
    os.symlink(video_folder / "frames", tmp_path / "frames")
    names = ["h264.mp4", "vp9.webm", "h264_variable_rate.mkv", "frames", "bad.mp4", "missing.mp4"]
    paths = [str(tmp_path / name) for name in names]
    first = probe_all(paths, beside=tmp_path / "list.txt")
    assert sorted(calls) == sorted(names[:5])
    assert all(isinstance(first[path], VideoInfo) for path in paths[:4])
    assert isinstance(first[paths[4]], VideoError)
    assert first[paths[5]] is None
    calls.clear()
    second = probe_all(paths, beside=tmp_path / "list.txt")
    assert calls == ["bad.mp4"]  # it may have been put right where size and time do not tell
    assert [second[path] for path in paths[:4]] == [first[path] for path in paths[:4]]
    calls.clear()
    write_video(tmp_path / "h264.mp4", "libx264", 12)
    third = probe_all(paths, beside=tmp_path / "list.txt")
    assert sorted(calls) == ["bad.mp4", "h264.mp4"]
    assert third[paths[0]].num_frames == 12


def test_where_the_list_is_cannot_be_written(
    video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NL_DETECTRON_CACHE", str(tmp_path / "cache"))
    path = str(video_folder / "mjpeg.avi")
    beside = tmp_path / "no folder" / "list.txt"  # root may write anywhere, but not here
    probe_all([path], beside=beside)
    kept = list((tmp_path / "cache" / "videos").iterdir())
    assert len(kept) == 1
    monkeypatch.setattr(probing, "probe", lambda *_, **__: pytest.fail("probed again"))
    assert probe_all([path], beside=beside)[path].num_frames == FRAMES


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 2, "folder_rate": 24.0, "videos": {"mjpeg.avi": 5}}']
)
def test_a_broken_file_of_results_is_written_anew(
    video_folder: Path, tmp_path: Path, content: str
) -> None:
    (tmp_path / "mjpeg.avi").write_bytes((video_folder / "mjpeg.avi").read_bytes())
    file = tmp_path / "list.txt.videos.json"
    file.write_text(content)
    path = str(tmp_path / "mjpeg.avi")
    assert probe_all([path], beside=tmp_path / "list.txt")[path].num_frames == FRAMES
    assert "mjpeg.avi" in json.loads(file.read_text())["videos"]


def test_frames_of_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "frame_1.png"), np.full((8, 9), 999, np.uint16))
    with pytest.raises(VideoError, match=r"frame_1\.png"):
        probe(tmp_path)
