#!/usr/bin/env python
"""Train a table of the paper, or evaluate the weights that its authors released, and compare."""

import argparse
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from nl_detectron.arguments import add_traceback
from nl_detectron.data import check_datasets
from nl_detectron.errors import UserError, run_script
from nl_detectron.reproduction import (
    TABLES,
    Machines,
    Run,
    as_csv,
    as_markdown,
    check_folders,
    collect,
    plan,
    plan_released,
    released_csv,
    released_markdown,
    run_all,
    save_measured,
    select,
    select_released,
    with_starts,
)

ROOT = Path(__file__).resolve().parent.parent
EPILOG = """
Every recipe is for 8 GPUs. On another number, Detectron2's SOLVER.REFERENCE_WORLD_SIZE keeps the
images per GPU and scales rate and schedule; --accumulate keeps the recipe itself on 1, 2 or 4.

A row is trained by train_net.py in a folder of its own under --output, after the row whose final
model it starts from: networks of long clips start from those of short ones, and those of Charades
from Kinetics. Started again, this goes on with rows that were cut off, and skips those that are
done. A row that fails does not stop the others. The exit status is 0 only if every row asked for
has been trained and evaluated, whether or not its figures are within the tolerance.

--released trains nothing: it evaluates the official Caffe2 files on kinetics400_val by the official
protocol. Without a folder they are downloaded; they are the authors', under CC-BY-NC 4.0.

examples:
  what would be done, and what it would cost:   %(prog)s --table 5 --num-gpus 8 --dry-run
  the paper's Table 5; its R50 rows only:       %(prog)s --table 5 --num-gpus 8 [--rows R50 R50-NL]
  keypoints on one GPU with the recipe for 8:   %(prog)s --table 6 --accumulate
  all of Table 2, each network once:            %(prog)s --table 2 --num-gpus 8
  the authors' weights, from files of yours:    %(prog)s --released FOLDER --num-gpus 8
  what there is by now:                         %(prog)s --table 5 --collect-only
  2 machines, one --output on a disk they share, the same command on each but for the rank:
    %(prog)s --table 5 --num-gpus 8 --num-machines 2 --machine-rank <0 or 1> \\
        --dist-url tcp://<first machine>:29500
  another batch, unscaled:
    %(prog)s --table 5 --opts SOLVER.REFERENCE_WORLD_SIZE 0 SOLVER.IMS_PER_BATCH 2
"""


def parser() -> argparse.ArgumentParser:
    new = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = new.add_mutually_exclusive_group(required=True)
    source.add_argument("--table", choices=tuple(TABLES), help="of the paper; 2 is 2a to 2g")
    source.add_argument(
        "--released",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="instead of training, evaluate the released weights, in this folder or downloaded",
    )
    new.add_argument(
        "--rows",
        nargs="+",
        default=(),
        metavar="ROW",
        help="short names (R50-NL, C2D-R50-NL5, I3D-R50-128x1) or configs; default: the paper's",
    )
    new.add_argument("--num-gpus", type=int, default=1, help="GPUs per machine, or CPU processes")
    new.add_argument("--num-machines", type=int, default=1)
    new.add_argument("--machine-rank", type=int, default=0, help="0 for the first machine")
    new.add_argument("--dist-url", default="auto", help="tcp://<first machine>:<port>")
    new.add_argument(
        "--accumulate",
        action="store_true",
        help="on fewer than 8 GPUs, keep the batch of the recipe",
    )
    new.add_argument(
        "--output",
        type=Path,
        default=Path("output/reproduce"),
        help="folder of the runs and of the report, .md and .csv (default: %(default)s); released "
        "weights get the subfolder released",
    )
    what = new.add_mutually_exclusive_group()
    what.add_argument(
        "--dry-run", action="store_true", help="only print commands, schedules and GPU-hours"
    )
    what.add_argument(
        "--collect-only", action="store_true", help="train nothing, report what the folders hold"
    )
    new.add_argument(
        "--save-measured",
        action="store_true",
        help="write finished rows into the model zoo, if they were trained without --opts",
    )
    add_traceback(new)
    new.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE ... for every row; last"
    )
    return new


def main() -> int:
    args = parser().parse_args()
    machines = Machines(
        num_gpus=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
    )
    if args.released is None:
        return reproduce(args, machines)
    for flag in ("accumulate", "save_measured"):
        if getattr(args, flag):
            raise UserError(f"--{flag.replace('_', '-')} is for trainings: it needs --table")
    return evaluate_released(args, machines)


def reproduce(args: argparse.Namespace, machines: Machines) -> int:
    table, entries = TABLES[args.table], select(args.table, args.rows)
    failed: dict[str, str] = {}
    if not args.collect_only:
        rows = [
            plan(
                entry,
                train_script=ROOT / "train_net.py",
                output=args.output,
                machines=machines,
                accumulate=args.accumulate,
                opts=args.opts,
            )
            for entry in with_starts(entries)
        ]
        if args.dry_run:
            print("\n\n".join(row.describe() for row in rows))
            print(f"\nall rows: about {sum(row.gpu_hours or 0 for row in rows):,.0f} GPU-hours")
            return 0
        failed = carry_out(rows, machines)
        if args.machine_rank != 0:  # the first machine reports
            return 1 if failed else 0
    elif not args.output.is_dir():
        raise UserError(f"nothing to collect: there is no folder {args.output}")
    states = collect(entries, args.output)
    report(
        args.output / f"table_{args.table}.md",
        as_markdown(table, entries, states, failed),
        as_csv(table, entries, states, failed),
    )
    if args.save_measured:
        path = Path(str(files("nl_detectron.model_zoo"))) / "measured.csv"
        count = save_measured(path, entries, states)
        print(f"wrote {count} rows into {path}; now run python tools/generate_model_zoo.py")
    done = [entry for entry in entries if states[entry.config].results]
    return 0 if len(done) == len(entries) and not failed else 1


def evaluate_released(args: argparse.Namespace, machines: Machines) -> int:
    entries, output = select_released(args.rows), args.output / "released"
    folder = Path(args.released) if args.released else None
    if folder and not folder.is_dir():
        raise UserError(f"--released {folder}: there is no such folder")
    runs = [
        plan_released(
            entry,
            weights_folder=folder,
            train_script=ROOT / "train_net.py",
            output=output,
            machines=machines,
            opts=args.opts,
        )
        for entry in entries
    ]
    if args.dry_run:
        print("\n\n".join(run.describe() for run in runs))
        return 0
    failed = {} if args.collect_only else carry_out(runs, machines)
    if args.machine_rank == 0:
        output.mkdir(parents=True, exist_ok=True)
        report(
            output / "released.md",
            released_markdown(entries, output, failed),
            released_csv(entries, output),
        )
    return 0 if all(run.state.results for run in runs) and not failed else 1


def carry_out(runs: Sequence[Run], machines: Machines) -> dict[str, str]:
    """Carry out what is not finished; by config, why a run failed."""
    check_folders(runs)
    check_datasets(name for run in runs if not run.state.results for name in run.datasets)
    return run_all(runs, machines)


def report(path: Path, markdown: str, table: str) -> None:
    """Print a report and write it beside the runs."""
    write(path, markdown)
    write(path.with_suffix(".csv"), table)
    print(f"\n{markdown}\nwrote {path} and {path.with_suffix('.csv')}")


def write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})") from error


if __name__ == "__main__":
    run_script(main)
