"""Command-line arguments that several scripts share."""

import argparse
from collections.abc import Callable


def script_parser(description: str | None, epilog: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments of all scripts that run a model.

    They are ``--config-file``, ``--class-names`` and ``--traceback``. `add_opts` comes last.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a .yaml config")
    parser.add_argument(
        "--class-names",
        metavar="FILE",
        help="names of the classes: a text file with a name per line, a JSON object of names and "
        "numbers, or a COCO file; default: those in the checkpoint, or of a dataset of the config",
    )
    add_traceback(parser)
    return parser


def add_traceback(parser: argparse.ArgumentParser) -> None:
    """Add ``--traceback``, which `errors.run_script` handles."""
    parser.add_argument(
        "--traceback", action="store_true", help="show the traceback of an error, not one line"
    )


def add_opts(parser: argparse.ArgumentParser) -> None:
    """Add ``--opts KEY VALUE ...``, which takes the rest of the line."""
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config keys to change, last on the line",
    )


def add_confidence_threshold(parser: argparse.ArgumentParser) -> None:
    """Add ``--confidence-threshold`` of a `Predictor`."""
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        default=0.5,
        metavar="SCORE",
        help="only instances with at least this score (default: %(default)s)",
    )


def at_least(minimum: int) -> Callable[[str], int]:
    """Return the type of an argument that is an integer of at least `minimum`."""

    def integer(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, got {value}")
        return value

    return integer
