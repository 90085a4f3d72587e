"""No tool overwrites its input, or writes two results into one file."""

from pathlib import Path

import pytest

from nl_detectron.utils.errors import UserError
from nl_detectron.utils.file_io import output_files

VIDEOS = (".mp4", ".webm")


def test_every_source_has_a_file_of_its_own(tmp_path: Path) -> None:
    sources = [Path(name) for name in ("a.avi", "b/a.mp4", "a_1.mp4", "A.mkv", "a", "x/../a.gif")]
    for endings in (VIDEOS, ()):
        files = output_files(sources, tmp_path / "drawn", ".mp4", endings=endings)
        assert len({file.name.lower() for file in files}) == len(sources)
        assert {file.parent for file in files} == {tmp_path / "drawn"}


def test_single_source_accepts_output_file_name(tmp_path: Path) -> None:
    source = [Path("photo.webp")]
    assert output_files(source, tmp_path / "new" / "b.jpg", ".png", endings=[".jpg"]) == [
        tmp_path / "new" / "b.jpg"
    ]
    assert output_files(source, tmp_path, ".png", endings=[".jpg"]) == [tmp_path / "photo.png"]
    assert output_files(source, tmp_path / "b.jpg", ".png") == [tmp_path / "b.jpg" / "photo.png"]
    with pytest.raises(UserError, match=r"b\.xyz"):
        output_files(source, tmp_path / "b.xyz", ".png", endings=[".jpg"])


def test_output_never_overwrites_input(tmp_path: Path) -> None:
    source, output = tmp_path / "in" / "a.mp4", tmp_path / "link"
    source.parent.mkdir()
    source.touch()
    output.symlink_to(source.parent)
    with pytest.raises(UserError, match=r"a\.mp4"):
        output_files([source], output, ".mp4")
    with pytest.raises(UserError, match=r"a\.mp4"):  # a folder of videos
        output_files([source.parent], output / "a.mp4", ".mp4", endings=VIDEOS)
    assert output_files([source], output, ".png") == [output / "a.png"]


def test_unwritable_output_is_refused_early(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "drawn"):
        with pytest.raises(UserError) as error:
            output_files([Path("a.jpg"), Path("b.jpg")], output, ".png")
        assert str(tmp_path) in str(error.value)
