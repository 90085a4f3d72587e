"""The raw results on clips: three CSV files, written whole after every trial."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from nl_detectron.errors import UserError

from .. import tables
from ..trial import BlockUse
from .plan import VideoTrial
from .trial import Score, VideoOutcome

SCORES, CURVES, BLOCKS = "video.csv", "video_curves.csv", "video_blocks.csv"
_TRIAL = tables.names(VideoTrial)
_SCORE = tables.names(Score)
_COST = ["seconds", "parameters", "multiply_adds"]

VideoResults = dict[VideoTrial, VideoOutcome]


def save(folder: Path, results: Mapping[VideoTrial, VideoOutcome]) -> None:
    """Write `results` into `folder`, sorted; a file is there whole or as it was.

    Raises:
        UserError: the folder cannot be written.
    """
    done = sorted(results, key=str)
    scores = [
        asdict(t)
        | {"kind": kind}
        | asdict(score)
        | {name: getattr(results[t], name) for name in _COST}
        for t in done
        for kind, score in results[t].scores.items()
    ]
    curves = [
        asdict(t) | {"iteration": iteration} | asdict(score)
        for t in done
        for iteration, score in results[t].curve.items()
    ]
    blocks = [asdict(t) | asdict(use) for t in done for use in results[t].blocks]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tables.write(folder / CURVES, [*_TRIAL, "iteration", *_SCORE], curves)
        tables.write(folder / BLOCKS, [*_TRIAL, *tables.names(BlockUse)], blocks)
        tables.write(folder / SCORES, [*_TRIAL, "kind", *_SCORE, *_COST], scores)
    except OSError as error:
        raise UserError(f"cannot write {error.filename} ({error.strerror})") from error


def load(folder: Path) -> VideoResults:
    """Return what `save` wrote; nothing if it never did.

    Raises:
        UserError: a file is damaged.
    """
    if not (folder / SCORES).is_file():
        return {}
    try:
        curves: dict[VideoTrial, dict[int, Score]] = {}
        for row in tables.read(folder / CURVES):
            curve = curves.setdefault(tables.parse(VideoTrial, row), {})
            curve[int(row["iteration"])] = tables.parse(Score, row)
        blocks: dict[VideoTrial, list[BlockUse]] = {}
        for row in tables.read(folder / BLOCKS):
            uses = blocks.setdefault(tables.parse(VideoTrial, row), [])
            uses.append(tables.parse(BlockUse, row))
        found: VideoResults = {}
        for row in tables.read(folder / SCORES):
            trial = tables.parse(VideoTrial, row)
            scores = found[trial].scores if trial in found else {}
            found[trial] = tables.parse(
                VideoOutcome,
                row,
                scores={**scores, row["kind"]: tables.parse(Score, row)},
                curve=curves[trial],
                blocks=blocks.get(trial, []),
            )
        return found
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"cannot read the results in {folder} ({error!r})") from error


def values(
    results: VideoResults,
    *,
    arm: str,
    kind: str,
    measure: str = "accuracy",
    setting: str = "cpu",
) -> list[float]:
    """Return a measure of an arm's trials on clips of a kind, in the order of their seeds."""
    found = {
        trial.seed: getattr(outcome.scores[kind], measure)
        for trial, outcome in results.items()
        if (trial.setting, trial.arm) == (setting, arm) and kind in outcome.scores
    }
    return [found[seed] for seed in sorted(found)]
