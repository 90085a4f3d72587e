"""The weights that the paper's authors released, evaluated and set beside their README's table."""

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from fvcore.common.checkpoint import _IncompatibleKeys
from tabulate import tabulate

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.config import load_config
from nl_detectron.engine import Trainer
from nl_detectron.errors import UserError
from nl_detectron.model_zoo import Entry, find_entry, get_config_file
from nl_detectron.model_zoo.entry import Figures
from nl_detectron.model_zoo.tables import SOURCES
from nl_detectron.model_zoo.video_entries import ACCURACY

from .plan import Machines, Run, run_folder, train_command
from .report import minus, written
from .state import State, read_evaluation
from .tables import find_rows

ADDRESS = "https://dl.fbaipublicfiles.com/video-nonlocal"

# By config. The files are the authors', under CC-BY-NC 4.0; none comes with this project.
FILES = {
    "Kinetics/c2d_R_50_32x2.yaml": "c2d_baseline_32x2_IN_pretrain_400k.pkl",
    "Kinetics/c2d_R_50_NL5_32x2.yaml": "c2d_nonlocal_32x2_IN_pretrain_400k.pkl",
    "Kinetics/i3d_R_50_32x2.yaml": "i3d_baseline_32x2_IN_pretrain_400k.pkl",
    "Kinetics/i3d_R_50_NL5_32x2.yaml": "i3d_nonlocal_32x2_IN_pretrain_400k.pkl",
    "Kinetics/i3d_R_50_128x1.yaml": "i3d_baseline_128x1_I3D_pretrain_400k.pkl",
    "Kinetics/i3d_R_50_NL5_128x1.yaml": "i3d_nonlocal_128x1_I3D_pretrain_400k.pkl",
    "Kinetics/c2d_R_50_8x8.yaml": "c2d_baseline_8x8_IN_pretrain_400k.pkl",
    "Kinetics/c2d_R_50_NL5_8x8.yaml": "c2d_nonlocal_8x8_IN_pretrain_400k.pkl",
    "Kinetics/i3d_R_50_8x8.yaml": "i3d_baseline_8x8_IN_pretrain_400k.pkl",
    "Kinetics/i3d_R_50_NL5_8x8.yaml": "i3d_nonlocal_8x8_IN_pretrain_400k.pkl",
    "Kinetics/i3d_R_50_32x4.yaml": "i3d_baseline_32x4_I3D_pretrain_400k.pkl",
    "Kinetics/i3d_R_50_NL5_32x4.yaml": "i3d_nonlocal_32x4_I3D_pretrain_400k.pkl",
}

# The official code's blocks in res3 see groups of 4 time steps in clips of 128 frames.
_OPTS = {
    "Kinetics/i3d_R_50_NL5_128x1.yaml": ("MODEL.RESNETS.NON_LOCAL.GROUP_FRAMES", "[0, 4, 0, 0]")
}

_NOTES = """\
Top-1 / top-5 accuracy in per cent on kinetics400_val. Nothing was trained: these are the authors'
weights in this project's networks, by the official protocol, 10 clips x 3 crops of 256 pixels, the
mean of the softmax. *Official code* is its README. What the difference can come from: videos that
have vanished since, and how they were decoded and resized.
"""


@dataclass(frozen=True, kw_only=True)
class Evaluation(Run):
    """The evaluation of a released file.

    Attributes:
        weights: its path or address.
        cfg: of the network.
    """

    weights: str
    cfg: CfgNode

    @property
    def state(self) -> State:
        return read_evaluation(self.folder)

    def check(self) -> None:
        """Raise `UserError` if the file cannot be read or is of another network.

        An evaluation would only log that, and stand beside the official figures.
        """
        if "://" in self.weights:
            return  # it is downloaded by its name
        cfg = self.cfg.clone()
        cfg.MODEL.DEVICE = "cpu"
        _StrictCheckpointer(Trainer.build_model(cfg)).load(self.weights)

    def describe(self) -> str:
        """The lines that a dry run prints."""
        figures = written(_official(self.entry))
        return "\n".join(
            (
                f"{self.entry.row_name}: {self.entry.model}, {self.entry.blocks or 'baseline'}",
                f"  command: {shlex.join(self.command)}",
                f"  weights: {self.weights}, {figures} in the official README",
            )
        )


class _StrictCheckpointer(Checkpointer):
    """Refuses a file that does not have all of a network's layers and no others."""

    def _log_incompatible_keys(self, incompatible: _IncompatibleKeys) -> None:
        shapes = {key for key, _, _ in incompatible.incorrect_shapes}
        missing = {k for k in incompatible.missing_keys if not k.endswith("num_batches_tracked")}
        # What else an official file may hold belongs to its training.
        unknown = [k for k in incompatible.unexpected_keys if k.startswith(("res", "nonlocal"))]
        if missing or shapes or unknown:
            raise UserError(
                f"{self._path} is of another network: {len(missing - shapes)} weights are missing "
                f"in it, {len(shapes)} have another shape, {len(unknown)} are unknown; download it "
                "again"
            )


def select_released(names: Sequence[str] = ()) -> list[Entry]:
    """Return the entries of which the authors released weights; without names, all of them.

    Raises:
        UserError: see `select`.
    """
    entries = [entry for config in FILES if (entry := find_entry(config))]
    return find_rows(entries, names, of="the official README") if names else entries


def plan_released(
    entry: Entry,
    *,
    weights_folder: Path | None,
    train_script: Path,
    output: Path,
    machines: Machines,
    opts: Sequence[str] = (),
) -> Evaluation:
    """Return the evaluation of the file that was released for a config.

    Args:
        entry: one of `select_released`.
        weights_folder: where the files are; None for their addresses, from which Detectron2
            downloads them.
        train_script, output, machines, opts: as for `plan`.

    Raises:
        UserError: the folder does not have the file, or for options that cannot work.
    """
    machines.check()
    name = FILES[entry.config]
    weights = f"{ADDRESS}/{name}"
    if weights_folder is not None:
        path = weights_folder / name
        if not path.is_file():
            raise UserError(
                f"--released {weights_folder} has no {name}, the weights of {entry.row_name}; "
                f"download it from {weights}, or choose other --rows"
            )
        weights = str(path.absolute())
    folder, config_file = run_folder(output, entry.config), get_config_file(entry.config)
    all_opts = [*_OPTS.get(entry.config, ()), *opts, "MODEL.WEIGHTS", weights]
    cfg = load_config(config_file, all_opts)
    return Evaluation(
        entry=entry,
        folder=folder,
        weights=weights,
        cfg=cfg,
        command=train_command(
            train_script,
            config_file,
            "--eval-only",
            machines=machines,
            folder=folder,
            opts=all_opts,
        ),
        settings={"opts": list(opts), "weights": weights},
        datasets=tuple(cfg.DATASETS.TEST),
    )


def released_markdown(entries: Sequence[Entry], output: Path, failed: Mapping[str, str]) -> str:
    """Return the official README's table with what was measured.

    Args:
        entries: rows that were asked for.
        output: folder of the evaluations.
        failed: by config, why one failed.
    """
    rows = []
    changed = []
    for entry in entries:
        state, official = read_evaluation(run_folder(output, entry.config)), _official(entry)
        measured = (state.results or {}).get(ACCURACY.name)
        rows.append(
            {
                "row": entry.row_name,
                "blocks": entry.blocks or "none",
                "file": FILES[entry.config],
                SOURCES["paper"]: written(entry.paper.get(ACCURACY.name)),
                SOURCES["official"]: written(official),
                SOURCES["measured"]: written(measured),
                "measured - official": written(minus(measured, official), sign="+"),
                "state": "failed" if entry.config in failed else str(state),
            }
        )
        if state.opts:
            changed.append(f"- {entry.row_name}: `{shlex.join(state.opts)}`\n")
    text = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    parts = ["# The released weights", f"{text}\n", _NOTES]
    if failed:
        names = {entry.config: entry.row_name for entry in entries}
        parts.append("".join(f"- {names[config]}: {error}\n" for config, error in failed.items()))
    if changed:
        parts.append("Not the official protocol; options were given:\n\n" + "".join(changed))
    return "\n".join(parts)


def released_csv(entries: Sequence[Entry], output: Path) -> str:
    """Return one line per row; arguments as for `released_markdown`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ACCURACY.columns
    names = [f"{source}_{column}" for source in ("official", "measured") for column in columns]
    writer.writerow(["config", "row", "file", *names, "state"])
    for entry in entries:
        state = read_evaluation(run_folder(output, entry.config))
        measured = (state.results or {}).get(ACCURACY.name) or ("",) * len(columns)
        figures = (*_official(entry), *measured)
        head = (entry.config, entry.row_name, FILES[entry.config])
        writer.writerow([*head, *figures, str(state)])
    return text.getvalue()


def _official(entry: Entry) -> Figures:
    return entry.official[ACCURACY.name]
