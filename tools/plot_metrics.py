#!/usr/bin/env python
"""Draw loss and AP curves of one or several runs over each other, from their metrics.json."""

import argparse
import sys

from nl_detectron.utils.arguments import add_traceback
from nl_detectron.utils.errors import UserError, run_script
from nl_detectron.visualization.curves import DEFAULT_KEYS, plot_runs, read_runs


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""
A panel for each quantity, a line for each run. The losses in metrics.json are medians over 20
iterations already. nonlocal/<block>/residual_ratio is what a block adds, relative to its input:
0 is the identity.

examples:
  plot_metrics.py output/quickstart --output curves.png
  plot_metrics.py output/baseline output/nonlocal --smooth 5 --output curves.png
  plot_metrics.py output/* --keys total_loss bbox/AP lr --output curves.pdf""",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder or metrics.json")
    parser.add_argument("--output", required=True, metavar="FILE", help=".png, .pdf or .svg")
    parser.add_argument(
        "--keys",
        nargs="+",
        default=list(DEFAULT_KEYS),
        metavar="KEY",
        help="what to draw, with * for any text; default: %(default)s",
    )
    parser.add_argument(
        "--smooth",
        type=int,
        default=1,
        metavar="N",
        help="draw the mean of the last N points of everything but AP (default: %(default)s, off)",
    )
    add_traceback(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.smooth < 1:
        raise UserError(f"--smooth must be at least 1 (off), got {arguments.smooth}")
    runs = read_runs(arguments.runs)
    for run in runs:
        if run.damaged_lines:
            print(f"{run.name}: {run.damaged_lines} damaged line(s) skipped", file=sys.stderr)
    figure = plot_runs(runs, keys=arguments.keys, smooth=arguments.smooth)
    try:
        figure.savefig(arguments.output, dpi=150)
    except (OSError, ValueError) as error:  # a missing folder, an unknown image format
        raise UserError(f"cannot write --output {arguments.output}: {error}") from error
    print(f"{arguments.output}: {len(runs)} run(s)")


if __name__ == "__main__":
    run_script(main)
