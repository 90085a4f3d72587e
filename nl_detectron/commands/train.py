"""Train and evaluate a model from a YAML or LazyConfig (.py) file."""

from ..engine import Trainer, argument_parser
from ..engine import main as train
from ..utils.errors import run_script


def main(trainer: type[Trainer] = Trainer) -> None:
    """Run the command line of this process."""
    train(argument_parser().parse_args(), trainer)


def run(trainer: type[Trainer] = Trainer) -> None:
    """Run the command line of this process, and exit with its status.

    A custom script registers its datasets, then calls this under ``if __name__ == "__main__"``.

    Args:
        trainer: replaces `Trainer`. Define the class at the top of a module, so that every process
            finds it.
    """
    run_script(lambda: main(trainer))
