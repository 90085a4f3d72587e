#!/usr/bin/env python
"""Train all models of docs/experiments.md, and write that page from the raw results."""

import argparse
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from experiments.page import write_page
from experiments.plan import SETTINGS
from experiments.registry import EXPERIMENTS
from experiments.run import run
from nl_detectron.arguments import add_traceback
from nl_detectron.errors import UserError, run_script

ROOT = Path(__file__).resolve().parent.parent
EPILOG = """
Results are kept after each trial: started again, this goes on with what is missing.

examples:
  what would be run:                 %(prog)s --plan
  all of it, 2 trials at a time:     %(prog)s --jobs 2
  also what was replaced, all seeds: %(prog)s --jobs 2 --only '*'
  the larger setting, on a GPU:      %(prog)s --setting gpu
  one question of one experiment:    %(prog)s --only 'cpu/clips_matching/*'
  one trial again, beside the rest:  %(prog)s --only 'cpu/clips_matching/spacetime/seed1' \\
                                         --results output/again --output output/again/runs
  only write the page again:         %(prog)s --report
"""


def parser() -> argparse.ArgumentParser:
    new = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    new.add_argument("--setting", choices=SETTINGS, default="cpu")
    new.add_argument("--jobs", type=int, default=1, help="trials at a time (default: %(default)s)")
    new.add_argument(
        "--only",
        metavar="PATTERN",
        help="trials, by name (default: five seeds of every arm but what was trained again, for "
        "longer, with a larger batch or with the hat in the first row)",
    )
    new.add_argument("--output", type=Path, default=Path("output/experiments"), help="of the runs")
    new.add_argument(
        "--results",
        type=Path,
        default=ROOT / "docs" / "experiments",
        help="folder of the raw results, beside the page (default: docs/experiments)",
    )
    what = new.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="only print the plan")
    what.add_argument("--report", action="store_true", help="run nothing, only write the page")
    add_traceback(new)
    return new


def main() -> int:
    args = parser().parse_args()
    failed = {} if args.report else train(args)
    if args.plan:
        return 0
    results = {name: one.load(args.results) for name, one in EXPERIMENTS.items()}
    if not any(results.values()):
        raise UserError(f"there are no results in {args.results}")
    page = args.results.with_suffix(".md")
    write_page(results, args.results, page, output=args.output)
    print(f"wrote {page}")
    for trial, why in failed.items():
        print(f"failed: {trial}: {why}")
    return 1 if failed else 0


def train(args: argparse.Namespace) -> dict[Any, str]:
    """Print the plan and, unless that is all, train what is missing; return what failed."""
    chosen = {
        name: [
            trial
            for trial in one.plan(args.setting)
            if (fnmatch(str(trial), args.only) if args.only else one.by_default(trial))
        ]
        for name, one in EXPERIMENTS.items()
    }
    trials = [trial for some in chosen.values() for trial in some]
    if not trials:
        raise UserError(f"--only '{args.only}' matches no trial; --plan lists them")
    print(f"{args.setting}: {len(trials)} trials")
    print("".join(f"  {trial}\n" for trial in trials), end="", flush=True)
    if args.plan:
        return {}
    failed: dict[Any, str] = {}
    for name, some in chosen.items():
        failed |= run(
            EXPERIMENTS[name], some, output=args.output, folder=args.results, jobs=args.jobs
        )
    return failed


if __name__ == "__main__":
    run_script(main)
