#!/usr/bin/env python
"""Train the networks of docs/experiments.md, and write that page from the results."""

import argparse
from fnmatch import fnmatch
from pathlib import Path

from experiments.plan import Trial
from experiments.report import write_page
from experiments.results import load
from experiments.run import PLANS, run
from nl_detectron.utils.arguments import add_traceback
from nl_detectron.utils.errors import UserError, run_script

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "experiments"
EPILOG = """
Results are saved after each trial. Started again, this continues with the missing ones.

examples:
  list the default trials:           %(prog)s --plan
  all of them, 2 at a time:          %(prog)s --jobs 2 --results output/again
  one arm of one experiment:         %(prog)s --only 'video/all/i3d/*' --results output/again
  write the page again:              %(prog)s --report
"""


def parser() -> argparse.ArgumentParser:
    new = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    new.add_argument("--jobs", type=int, default=1, help="trials at a time (default: %(default)s)")
    new.add_argument(
        "--only",
        metavar="PATTERN",
        help="trials by name, of all in docs/experiments (default: five seeds of the main arms)",
    )
    new.add_argument(
        "--output",
        type=Path,
        default=Path("output/experiments"),
        help="folder of the runs (default: %(default)s)",
    )
    new.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help="folder of the results, next to the page (default: docs/experiments)",
    )
    what = new.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="only list the trials")
    what.add_argument("--report", action="store_true", help="only write the page")
    add_traceback(new)
    return new


def main() -> int:
    args = parser().parse_args()
    failed: dict[Trial, str] = {}
    if not args.report:
        trials = choose(args.only)
        print("\n".join(map(str, trials)), flush=True)
        if args.plan:
            return 0
        failed = run(trials, output=args.output, folder=args.results, jobs=args.jobs)
    if all(load(args.results, name).runs.empty for name in PLANS):
        raise UserError(f"--results must be a folder with results, got {args.results}")
    page = args.results.with_suffix(".md")
    write_page(args.results, page)
    print(f"wrote {page}")
    return 1 if failed else 0


def choose(pattern: str | None) -> list[Trial]:
    """Return the default trials, or those of the published results that match `pattern`."""
    default = [trial for plan in PLANS.values() for trial in plan.trials()]
    if pattern is None:
        return default
    known = [trial for name in PLANS for trial in load(RESULTS, name).trials(name)]
    chosen = [trial for trial in dict.fromkeys(default + known) if fnmatch(str(trial), pattern)]
    if not chosen:
        raise UserError(f"--only must match a trial, got '{pattern}': --plan lists some")
    return chosen


if __name__ == "__main__":
    run_script(main)
