"""What is known of one model of the zoo, whatever its task."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Figures = tuple[float | None, ...]
"""Of one metric, one for each of its columns; None where the source does not give it."""

Results = dict[str, Figures]
"""What a model scores, by the name of the metric; without those for which there is no figure."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Figures of one kind, the first of which is the one to compare.

    Args:
        name: in the tables.
        key: the figures are called ``<key>/<column>`` in a run's ``metrics.json``.
        columns: the figures' names.
    """

    name: str
    key: str
    columns: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.name} {self.columns[0]}"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model: where it is, and the SHA-256 (hexadecimal) of the file."""

    url: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of the zoo. A task's own class says what follows from the config's name.

    Attributes:
        config: file name relative to ``configs/``, with ``.yaml``; a ``.py`` of the same name is
            the same model.
        section: the table of the README that it belongs to.
        blocks: its non-local blocks, in words; empty for a baseline.
        baseline: config of the same model without them; None for a baseline.
        paper: the paper's figures, given to the config whose recipe is nearest to the paper's.
        detectron2: the figures of Detectron2's own model with the same recipe, without blocks.
        official: the figures of the authors' own code with the same recipe.
        measured: our figures; empty where nobody has run it yet.
        parameters: learned and frozen weights of the whole model.
        multiply_adds: of one forward pass, on the input that ``complexity.csv`` states.
        checkpoint: a model trained with this config; None where there is none.
    """

    config: str
    section: str
    blocks: str = ""
    baseline: str | None = None
    paper: Mapping[str, Figures] = field(default_factory=dict)
    detectron2: Mapping[str, Figures] = field(default_factory=dict)
    official: Mapping[str, Figures] = field(default_factory=dict)
    measured: Mapping[str, Figures] = field(default_factory=dict)
    parameters: int | None = None
    multiply_adds: int | None = None
    checkpoint: Checkpoint | None = None

    @property
    def task(self) -> str:
        """What the tables call what is predicted."""
        raise NotImplementedError

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What the model is measured by."""
        raise NotImplementedError

    @property
    def model(self) -> str:
        """The network, without blocks and schedule."""
        raise NotImplementedError

    @property
    def schedule(self) -> str:
        """Its name, which the README explains."""
        raise NotImplementedError

    @property
    def row_name(self) -> str:
        """A short name, unique in its section."""
        raise NotImplementedError
