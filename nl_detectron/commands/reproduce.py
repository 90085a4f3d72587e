"""Train a table of the paper, or evaluate the released weights, and compare the figures.

A row of a table is a subprocess of the train command with ``--resume`` in a separate folder, and
the ``metrics.json`` that it writes there.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from ..config import load_config
from ..data import check_datasets
from ..engine import Trainer
from ..model_zoo import METRICS, Entry, Figures, find_entry, get_config_file
from ..model_zoo.tables import SOURCES, as_csv, as_markdown, rows_of, sections_of
from ..utils.arguments import add_opts, add_traceback, at_least
from ..utils.errors import UserError, nearest
from ..utils.file_io import write_json, write_text

TRAIN = (sys.executable, "-m", "nl_detectron", "train")
TABLES = ("2", "2a", "2b", "2c", "2d", "2e", "2f", "2g", "3", "4", "5", "6")
REFERENCE_GPUS = 8  # of the batch, rate and schedule of every config
FINAL_MODEL = "model_final.pth"
SETTINGS = "reproduce.json"

# The authors' files, under CC-BY-NC 4.0; none comes with this project.
RELEASED = "https://dl.fbaipublicfiles.com/video-nonlocal"
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
_RELEASED_OPTS = {
    "Kinetics/i3d_R_50_NL5_128x1.yaml": ("MODEL.RESNETS.NON_LOCAL.GROUP_FRAMES", "[0, 4, 0, 0]")
}
# The paper's network with blocks starts on Charades from the one with blocks on Kinetics. Its
# config, which differs from the baseline's only in the blocks, names the one without.
_STARTS = {"Charades/i3d_R_101_NL5_128x1.yaml": "Kinetics/i3d_R_101_NL5_128x1.yaml"}

NOTES = """\
Results are in %. *NL - baseline* is the difference to the same model without blocks, trained with
the same schedule. This is the paper's claim. The paper gives no schedule for COCO's R50, R101 and
keypoints, and videos of Kinetics become unavailable. Two runs of one config differ by up to 0.3
points, so one run is no proof. A dash means that there is no result.
"""
RELEASED_NOTES = """\
Top-1 / top-5 accuracy on kinetics400_val, in %, of the authors' weights in this project's networks,
without training. The protocol is the official one: 10 clips x 3 crops of 256 pixels, mean of the
softmax. Some videos are no longer available, and decoding and resizing differ.
"""
EPILOG = """
Every recipe is for 8 GPUs. With another number, Detectron2's SOLVER.REFERENCE_WORLD_SIZE keeps the
images per GPU and scales rate and schedule. --accumulate keeps the recipe on 1, 2 or 4 GPUs.

Each row trains in a separate folder under --output, after the row whose final model it starts from:
networks for long clips start from those for short ones, and Charades from Kinetics. The same
command continues interrupted rows and skips finished ones. A row that fails does not stop the
others. The exit status is 0 only if every row is trained and evaluated.

--released evaluates the official Caffe2 files on kinetics400_val by the official protocol, without
training. It downloads the files unless a folder is given. They are under CC-BY-NC 4.0.

examples:
  print the commands and schedules:             %(prog)s --table 5 --num-gpus 8 --dry-run
  the paper's Table 5; its R50 rows only:       %(prog)s --table 5 --num-gpus 8 [--rows R50 R50-NL]
  keypoints on one GPU with the recipe for 8:   %(prog)s --table 6 --accumulate
  all of Table 2, each network once:            %(prog)s --table 2 --num-gpus 8
  the authors' weights, from your own files:    %(prog)s --released FOLDER --num-gpus 8
  the results so far:                           %(prog)s --table 5 --collect-only

--dry-run prints commands for a cluster too: add train_net.py's --num-machines, --machine-rank and
--dist-url to them, and report with --collect-only.
"""


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--table", choices=TABLES, help="table of the paper; 2 is 2a to 2g")
    source.add_argument(
        "--released",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="evaluate the released weights, in this folder or downloaded, instead of training",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        default=(),
        metavar="ROW",
        help="short names (R50-NL, C2D-R50-NL5, I3D-R50-128x1) or configs; default: the paper's",
    )
    parser.add_argument(
        "--num-gpus", type=at_least(1), default=1, help="GPUs, or processes (default: %(default)s)"
    )
    parser.add_argument(
        "--accumulate",
        action="store_true",
        help="with --table: keep the recipe's batch on fewer than 8 GPUs",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/reproduce"),
        help="folder of the runs and of the report, .md and .csv (default: %(default)s)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="only print commands and schedules")
    what.add_argument("--collect-only", action="store_true", help="only report existing results")
    add_traceback(parser)
    add_opts(parser)
    return parser


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training or an evaluation in a separate folder.

    Attributes:
        entry: entry of the model zoo.
        folder: folder of the run.
        opts: ``KEY VALUE ...`` of the train command.
        settings: settings of the user, which a run in the same folder must share.
        start: final model of another run, which must exist before.
    """

    entry: Entry
    folder: Path
    opts: tuple[str, ...]
    settings: Mapping[str, object]
    start: Path | None = None

    def load_config(self) -> CfgNode:
        return load_config(get_config_file(self.entry.config), self.opts)


def read_results(folder: Path, args: argparse.Namespace) -> dict[str, Figures]:
    """Return the figures of a run's final evaluation by metric; empty if it is not finished.

    They are those of the last iteration in ``metrics.json``. A training has the final model, too.
    """
    path = folder / "metrics.json"
    if not path.is_file() or (args.table and not (folder / FINAL_MODEL).is_file()):
        return {}
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:  # an incomplete line of a killed process
            continue
    last = max((line.get("iteration", 0) for line in lines), default=0)
    found: dict[str, float] = {}
    for line in lines:
        found |= line if line.get("iteration", 0) == last else {}
    return {
        metric.name: tuple(found.get(f"{metric.key}/{column}") for column in metric.columns)
        for metric in METRICS.values()
        if f"{metric.key}/{metric.columns[0]}" in found
    }


def select(args: argparse.Namespace) -> list[Entry]:
    """Return the rows of ``--rows``, in the order of the table.

    Raises:
        UserError: for a name that the table does not have, with the nearest one.
    """
    if args.table:
        rows = [entry for section in sections_of(args.table) for entry in rows_of(section)]
    else:
        rows = [entry for config in FILES if (entry := find_entry(config))]
    rows = list(dict.fromkeys(rows))
    if not args.rows:
        return [entry for entry in rows if entry.paper or not args.table]
    known = {name.lower(): entry for entry in rows for name in (entry.name, entry.config)}
    for name in args.rows:
        if name.lower() not in known:
            names = [entry.name for entry in rows]
            guess = nearest(name.upper(), names)
            raise UserError(f"--rows {name}: no such row.{guess} Rows: {', '.join(names)}")
    wanted = [known[name.lower()] for name in args.rows]
    return [entry for entry in rows if entry in wanted]


def start_of(entry: Entry) -> Entry | None:
    """Return the row whose final model this one starts from; None for pretrained weights."""
    weights = load_config(get_config_file(entry.config)).MODEL.WEIGHTS
    found = re.fullmatch(rf"output/(.+)/{re.escape(FINAL_MODEL)}", weights)
    return find_entry(_STARTS.get(entry.config, f"{found[1]}.yaml")) if found else None


def with_starts(entries: Sequence[Entry]) -> list[Entry]:
    """Return the rows, each once and after the one that it starts from, which is added."""
    ordered: list[Entry] = []
    for entry in entries:
        start = start_of(entry)
        ordered += [*(with_starts([start]) if start else ()), entry]
    return list(dict.fromkeys(ordered))


def run_folder(args: argparse.Namespace, entry: Entry) -> Path:
    """Return the folder of a row's run, named after the config, under the output."""
    output = args.output if args.table else args.output / "released"
    return output / Path(entry.config).with_suffix("")


def plan_training(entry: Entry, args: argparse.Namespace) -> Run:
    """Return the training of a row, scaled from 8 GPUs to the number of GPUs.

    Raises:
        UserError: for options or a number of GPUs that cannot work.
    """
    gpus = args.num_gpus
    opts = [*args.opts]
    if args.accumulate:
        solver = load_config(get_config_file(entry.config), opts).SOLVER
        steps = REFERENCE_GPUS // gpus
        if steps * gpus != REFERENCE_GPUS or solver.IMS_PER_BATCH % steps:
            raise UserError(
                f"--accumulate: expected 1, 2, 4 or 8 GPUs and a batch that they divide, got "
                f"{gpus} GPUs and SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH}"
            )
        opts += ["SOLVER.IMS_PER_BATCH", str(solver.IMS_PER_BATCH // steps)]
        opts += ["SOLVER.ACCUMULATE_STEPS", str(solver.ACCUMULATE_STEPS * steps)]
    else:  # first, so that the user's own value wins
        opts = ["SOLVER.REFERENCE_WORLD_SIZE", str(REFERENCE_GPUS), *opts]
    start = start_of(entry)
    weights = run_folder(args, start) / FINAL_MODEL if start else None
    if weights:
        opts += ["MODEL.WEIGHTS", str(weights)]
    return Run(
        entry=entry,
        folder=run_folder(args, entry),
        opts=tuple(opts),
        settings={"opts": args.opts, "gpus": gpus, "accumulate": args.accumulate},
        start=weights,
    )


def plan_evaluation(entry: Entry, args: argparse.Namespace) -> Run:
    """Return the evaluation of the weights that were released for a config.

    Raises:
        UserError: if the folder of ``--released`` does not have the file.
    """
    name = FILES[entry.config]
    weights = f"{RELEASED}/{name}"
    if args.released:
        path = Path(args.released).absolute() / name
        if not path.is_file():
            raise UserError(f"--released {args.released}: no {name}; download it from {weights}")
        weights = str(path)
    return Run(
        entry=entry,
        folder=run_folder(args, entry),
        opts=(*_RELEASED_OPTS.get(entry.config, ()), *args.opts, "MODEL.WEIGHTS", weights),
        settings={"opts": args.opts, "weights": weights},
    )


def train_command(run: Run, args: argparse.Namespace) -> list[str]:
    """Return the command line of a run."""
    mode = "--resume" if args.table else "--eval-only"
    line = [*TRAIN, "--config-file", get_config_file(run.entry.config), mode]
    line += ["--num-gpus", str(args.num_gpus), "OUTPUT_DIR", str(run.folder)]
    return [*line, *run.opts]


def describe(run: Run, args: argparse.Namespace) -> str:
    """Return the command of a run and, for a training, its schedule."""
    lines = [f"{run.entry.name}: {run.entry.model}, {run.entry.blocks or 'baseline'}"]
    lines.append(f"  {shlex.join(train_command(run, args))}")
    if args.table:
        cfg = run.load_config()
        solver = Trainer.auto_scale_workers(cfg, args.num_gpus).SOLVER
        lines.append(
            f"  batch {solver.IMS_PER_BATCH * solver.ACCUMULATE_STEPS}, learning rate "
            f"{solver.BASE_LR:g}, {solver.MAX_ITER:,} iterations, drops at {solver.STEPS}, "
            f"warm-up {solver.WARMUP_ITERS:,}"
        )
    return "\n".join(lines)


def check(run: Run, args: argparse.Namespace) -> None:
    """Raise `UserError` for a run that cannot be carried out."""
    cfg = run.load_config()
    check_datasets([*(cfg.DATASETS.TRAIN if args.table else ()), *cfg.DATASETS.TEST])
    # Other settings would mix results or checkpoints of two recipes.
    saved = run.folder / SETTINGS
    started = json.loads(saved.read_text(encoding="utf-8")) if saved.is_file() else run.settings
    if started != run.settings:
        raise UserError(
            f"{run.folder} was started with {started}, got {run.settings}; use the same values, or "
            "another --output"
        )


def carry_out(runs: Sequence[Run], args: argparse.Namespace) -> dict[str, str]:
    """Carry out the runs that are not finished, one after another.

    Returns:
        The reason by config, for each run that failed.
    """
    failed = {}
    for number, run in enumerate(runs, 1):
        head = f"[{number}/{len(runs)}] {run.entry.name}"
        status = "already done"
        if not read_results(run.folder, args):
            print(f"{head}: {run.folder}", flush=True)
            status = "done"
            if error := run_one(run, args):
                status = failed[run.entry.config] = f"failed: {error}"
        print(f"{head}: {status}", flush=True)
    return failed


def run_one(run: Run, args: argparse.Namespace) -> str | None:
    """Carry out a run and return the reason if it failed."""
    if run.start and not run.start.is_file():
        return f"it starts from {run.start}, which does not exist"
    write_json(run.folder / SETTINGS, run.settings)
    status = subprocess.run(train_command(run, args), check=False).returncode
    if status:
        return f"exit status {status}, see {run.folder / 'log.txt'}"
    if not read_results(run.folder, args):
        return f"no results of the final model in {run.folder / 'metrics.json'}"
    return None


def report(
    entries: Sequence[Entry], args: argparse.Namespace, failed: Mapping[str, str]
) -> tuple[str, list[dict[str, object]]]:
    """Return the figures next to the paper's, as Markdown and as rows of a table.

    Args:
        entries: rows to report.
        args: command line.
        failed: the reason by config, for runs that failed.
    """
    table: list[dict[str, object]] = []
    for entry, metric in ((row, metric) for row in entries for metric in row.metrics):
        figures = compare(entry, metric.name, args)
        state = "failed" if entry.config in failed else "done" if figures["measured"] else "open"
        head = {"row": entry.name, "blocks": entry.blocks or "none", "schedule": entry.schedule}
        for number, column in enumerate(metric.columns):
            title = {"config": entry.config, "metric": f"{metric.name} {column}"}
            values = {name: value and value[number] for name, value in figures.items()}
            table.append({**head, **title, **values, "state": state})
    mains = {f"{metric.name} {metric.columns[0]}" for metric in METRICS.values()}
    shown = [
        {key: "–" if cell is None else str(cell) for key, cell in row.items() if key != "config"}
        for row in table
        if row["metric"] in mains
    ]
    parts = [f"# Table {args.table}" if args.table else "# The released weights"]
    parts += [as_markdown(shown), NOTES if args.table else RELEASED_NOTES]
    parts += [f"- {Path(config).stem}: {reason}\n" for config, reason in failed.items()]
    if args.opts:
        parts.append(f"The configs were changed by `{shlex.join(args.opts)}`.\n")
    return "\n".join(parts), table


def compare(entry: Entry, metric: str, args: argparse.Namespace) -> dict[str, Figures | None]:
    """Return the published and the measured figures of a row, and their differences."""
    reference = "official" if entry.task == "video" else "detectron2"
    theirs = getattr(entry, reference).get(metric)

    def measured(row: Entry) -> Figures | None:
        return read_results(run_folder(args, row), args).get(metric)

    base = find_entry(entry.baseline)
    papers_base, own_base = (base.paper.get(metric), measured(base)) if base else (None, None)
    own = measured(entry)
    return {
        "paper": entry.paper.get(metric),
        reference: theirs,
        "measured": own,
        f"measured - {SOURCES[reference]}": minus(own, theirs),
        "NL - baseline, paper": minus(entry.paper.get(metric), papers_base),
        "NL - baseline, measured": minus(own, own_base),
    }


def minus(a: Figures | None, b: Figures | None) -> Figures | None:
    """Return the differences; None for a missing figure."""
    if a is None or b is None:
        return None
    pairs = zip(a, b, strict=True)
    return tuple(None if x is None or y is None else round(x - y, 4) for x, y in pairs)


def main() -> int:
    """Run the command line of this process and return the exit status."""
    args = argument_parser().parse_args()
    entries = select(args)
    if args.table:
        runs = [plan_training(entry, args) for entry in with_starts(entries)]
    else:
        runs = [plan_evaluation(entry, args) for entry in entries]
    if args.dry_run:
        print("\n\n".join(describe(run, args) for run in runs))
        return 0
    failed: dict[str, str] = {}
    if not args.collect_only:
        for run in runs:
            check(run, args)
        failed = carry_out(runs, args)
    path = args.output / (f"table_{args.table}.md" if args.table else "released/released.md")
    markdown, table = report(entries, args, failed)
    write_text(path, markdown)
    write_text(path.with_suffix(".csv"), as_csv(table))
    print(f"\n{markdown}\nwrote {path} and {path.with_suffix('.csv')}")
    return int(bool(failed) or any(row["state"] != "done" for row in table))
