#!/usr/bin/env python
"""Train all models of docs/experiments.md, and write that page from the raw results."""

import argparse
from fnmatch import fnmatch
from pathlib import Path

from nl_detectron.arguments import add_traceback
from nl_detectron.errors import UserError, run_script
from nl_detectron.experiments.plan import SETTINGS, plan
from nl_detectron.experiments.run import run

ROOT = Path(__file__).resolve().parent.parent
EPILOG = """
Results are kept after each trial: started again, this goes on with what is missing. A trial that
was cut off goes on from its last checkpoint.

examples:
  what would be run:                 %(prog)s --plan
  all of it, 2 trials at a time:     %(prog)s --jobs 2
  the larger setting, on a GPU:      %(prog)s --setting gpu
  one trial again, beside the rest:  %(prog)s --only 'cpu/crates_d384/res4/seed1' \\
                                         --results output/again --output output/again/runs
  only write the page again:         %(prog)s --report
"""


def parser() -> argparse.ArgumentParser:
    new = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    new.add_argument("--setting", choices=list(SETTINGS), default="cpu")
    new.add_argument("--jobs", type=int, default=1, help="trials at a time (default: %(default)s)")
    new.add_argument("--only", default="*", metavar="PATTERN", help="trials, by name")
    new.add_argument("--output", type=Path, default=Path("output/experiments"), help="of the runs")
    new.add_argument(
        "--results",
        type=Path,
        default=ROOT / "docs" / "experiments",
        help="folder of the raw results (default: docs/experiments)",
    )
    new.add_argument("--plan", action="store_true", help="only print the plan")
    add_traceback(new)
    return new


def main() -> int:
    args = parser().parse_args()
    trials = [trial for trial in plan(args.setting) if fnmatch(str(trial), args.only)]
    if not trials:
        raise UserError(f"--only '{args.only}' matches no trial; --plan lists them")
    print(f"{SETTINGS[args.setting].description}: {len(trials)} trials", flush=True)
    for trial in trials:
        print(f"  {trial}", flush=True)
    if args.plan:
        return 0
    _, failed = run(trials, output=args.output, folder=args.results, jobs=args.jobs)
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
