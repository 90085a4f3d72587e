"""List the configs of the model zoo, with published and measured figures."""

import argparse

from tabulate import tabulate

from ..model_zoo import ENTRIES
from ..model_zoo.tables import NOT_RUN, SOURCES, written
from ..utils.arguments import add_traceback
from ..utils.errors import UserError, nearest


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""
Figures are in %%: AP / AP50 / AP75 of boxes, masks or keypoints on COCO, top-1 / top-5 accuracy on
Kinetics, mAP on Charades. The first column is the name that --config-file and _BASE_ take.

examples:
  %(prog)s
  %(prog)s Kinetics i3d
  %(prog)s NL_1x""",
    )
    parser.add_argument(
        "filter", nargs="*", metavar="TEXT", help="list the configs whose names contain every TEXT"
    )
    add_traceback(parser)
    return parser


def main() -> None:
    """Run the command line of this process."""
    args = argument_parser().parse_args()
    found = [e for e in ENTRIES if all(t.lower() in e.config.lower() for t in args.filter)]
    if not found:
        guess = nearest(args.filter[-1], [entry.config for entry in ENTRIES])
        raise UserError(f"no config has '{' '.join(args.filter)}' in its name.{guess}")
    rows = [
        {
            "config": entry.config,
            "blocks": entry.blocks or "none",
            "metric": metric.name,
            **{
                title: written(
                    getattr(entry, source).get(metric.name),
                    missing=NOT_RUN if source == "measured" else "–",
                )
                for source, title in SOURCES.items()
            },
        }
        for entry in found
        for metric in entry.metrics
    ]
    print(tabulate(rows, headers="keys", disable_numparse=True))
