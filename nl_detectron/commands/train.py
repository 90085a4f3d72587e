"""Train and evaluate: Detectron2's command line, for YAML and LazyConfig files."""

from ..engine import argument_parser
from ..engine import main as train
from ..utils.errors import run_script


def main() -> None:
    """Run the command line of this process."""
    train(argument_parser().parse_args())


if __name__ == "__main__":
    run_script(main)
