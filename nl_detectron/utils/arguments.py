"""Command-line arguments that more than one script has."""

import argparse

DEFAULT_CONFIDENCE = 0.5


def add_traceback(parser: argparse.ArgumentParser) -> None:
    """``--traceback``, which `errors.run_script` acts on."""
    parser.add_argument(
        "--traceback", action="store_true", help="show where an error comes from, not one line"
    )


def add_opts(parser: argparse.ArgumentParser) -> None:
    """``--opts KEY VALUE ...``, which takes the rest of the line."""
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config keys to change, last on the line",
    )


def add_confidence_threshold(parser: argparse.ArgumentParser) -> None:
    """``--confidence-threshold``, which a `Predictor` takes."""
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        default=DEFAULT_CONFIDENCE,
        metavar="SCORE",
        help="only instances with at least this score (default: %(default)s)",
    )


def add_class_names(parser: argparse.ArgumentParser) -> None:
    """``--class-names``, which predictors take."""
    parser.add_argument(
        "--class-names",
        metavar="FILE",
        help="names of the classes: a name a line, a JSON object of names and numbers, or a COCO "
        "file; default: those in the checkpoint, or else of a data set of the config",
    )
