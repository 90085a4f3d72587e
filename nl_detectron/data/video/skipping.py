"""Skipped videos, which are unreadable, by ``DATALOADER.SKIP_BAD_VIDEOS``."""

import logging
from pathlib import Path

from ...utils.errors import DataError
from .mapper import BadVideoError

logger = logging.getLogger(__name__)


class SkippedVideos:
    """The skipped videos of one part of a run, in a file that all processes append to.

    A line is ``dataset <tab> file <tab> reason``. Loader workers of all processes, and a resumed
    run, use the same file, so the limit holds for all of them together. A run that is not resumed
    starts without the file.

    Args:
        file: `skipped_file` of the run.
        dataset: name of the dataset, or the names of several.
        num_videos: number of its videos.
        limit: largest share of skipped videos, ``DATALOADER.MAX_BAD_VIDEOS``.
    """

    def __init__(self, file: Path, dataset: str, *, num_videos: int, limit: float) -> None:
        self.file, self.dataset = file, dataset
        self.num_videos, self.limit = num_videos, limit

    def add(self, error: BadVideoError, path: str) -> None:
        """Count a video and log a warning, once for each video.

        Raises:
            DataError: too many videos are skipped.
        """
        if path not in self.videos():
            logger.warning("Skipping unreadable video %r: %s", path, error.reason)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            line = "\t".join((self.dataset, path, error.reason))
            # One unbuffered write at the end: lines of several processes do not mix.
            with open(self.file, "ab", buffering=0) as file:
                file.write(f"{line}\n".encode(errors="surrogateescape"))
        count = len(self.videos())
        if count > self.limit * self.num_videos or count == self.num_videos:
            raise DataError(
                f"{count} of the {self.num_videos} videos of {self.dataset} are unreadable, the "
                f"last is {path!r} ({error.reason}); DATALOADER.MAX_BAD_VIDEOS allows a share of "
                f"{self.limit:g}; {self.file} lists them"
            )

    def videos(self) -> set[str]:
        """Return the skipped files."""
        return {path for name, path, _ in read_skipped(self.file) if name == self.dataset}


def skipped_file(output_dir: str) -> Path:
    """Return the path of a run's list of skipped videos."""
    return Path(output_dir) / "skipped_videos.txt"


def read_skipped(file: Path) -> list[tuple[str, str, str]]:
    """Return dataset, file and reason of each video in the list."""
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return []
    rows = (line.split("\t") for line in text.split("\n"))
    return [(row[0], "\t".join(row[1:-1]), row[-1]) for row in rows if len(row) >= 3]
