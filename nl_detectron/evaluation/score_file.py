"""Scores of the videos that an evaluation has finished, kept to continue after an interruption."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import nn


def weights_digest(model: nn.Module) -> str:
    """Return a digest of all parameters and buffers."""
    digest = hashlib.sha256()
    model = getattr(model, "module", model)  # of a distributed one
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        values = tensor.detach().cpu().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


class ScoreFile:
    """A file of records of one size for each process, written one by one.

    The files are in a subfolder named after `identity`, so results of other weights or settings
    are never read.

    Args:
        folder: folder of all identities, without other files.
        identity: everything that the scores depend on.
        dtype: type of a record.
        rank, world_size: number of this process, and of processes.
    """

    def __init__(
        self, folder: Path, *, identity: str, dtype: np.dtype, rank: int, world_size: int
    ) -> None:
        self.folder = folder
        self.dtype = dtype
        self.rank, self.world_size = rank, world_size
        self._own = folder / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._path = self._own / f"{rank}.bin"

    def open(self) -> None:
        """Create the file, or remove an incomplete last record of an earlier run."""
        self._own.mkdir(parents=True, exist_ok=True)
        with open(self._path, "ab") as file:
            file.truncate(file.tell() // self.dtype.itemsize * self.dtype.itemsize)

    def append(self, record: np.ndarray) -> None:
        with open(self._path, "ab") as file:
            file.write(record.tobytes())

    def read(self) -> np.ndarray:
        """Return this process's records, and those of its share of an earlier run's processes.

        Its share are the processes whose numbers modulo `world_size` are its own.
        """
        found = [np.zeros(0, self.dtype)]
        for path in self._own.glob("*.bin"):
            if int(path.stem) % self.world_size == self.rank:
                whole = path.stat().st_size // self.dtype.itemsize
                found.append(np.fromfile(path, self.dtype, whole))
        return np.concatenate(found)

    def remove_others(self) -> None:
        """Remove the files of other identities."""
        for path in self.folder.glob("*"):
            if path != self._own:
                shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove all files of all processes."""
        shutil.rmtree(self.folder, ignore_errors=True)
