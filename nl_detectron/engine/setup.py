"""From a command line to a checked config: what a user can get wrong is found here, in one line."""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser
from omegaconf import DictConfig, OmegaConf

from ..arguments import add_traceback
from ..config import add_nonlocal_config, check_config
from ..dataset_check import Run
from ..errors import ConfigError, UserError, nearest
from ..loading import check_metadata

_PACKAGE_CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_CONFIG_SUFFIXES = (".yaml", ".py")
_DEVICE_NOT_SET = "not set"


def argument_parser() -> argparse.ArgumentParser:
    """Return Detectron2's parser with examples of our own."""
    program = sys.argv[0]
    parser = default_argument_parser(
        epilog=f"""
examples:
  train on the data set that needs no download:
    {program} --config-file configs/quickstart.yaml
  other values, as KEY VALUE (for a .py config: key=value):
    {program} --config-file configs/quickstart.yaml SOLVER.BASE_LR 0.01 OUTPUT_DIR output/mine
  go on after an interruption:
    {program} --config-file configs/quickstart.yaml --resume
  evaluate a checkpoint:
    {program} --config-file configs/quickstart.yaml --eval-only MODEL.WEIGHTS model_final.pth
  8 GPUs; 2 processes on the CPU:
    {program} --config-file FILE --num-gpus 8
    {program} --config-file FILE --num-gpus 2 MODEL.DEVICE cpu
  2 machines with 8 GPUs each, by hand, by torchrun, by SLURM:
    {program} --config-file FILE --num-gpus 8 --num-machines 2 --machine-rank <0 or 1> \\
        --dist-url tcp://<first machine>:29500
    torchrun --nnodes 2 --nproc-per-node 8 --node-rank <0 or 1> --master-addr <first machine> \\
        {program} --config-file FILE
    srun --nodes 2 --ntasks-per-node 8 {program} --config-file FILE
"""
    )
    parser.description = "Train and evaluate a detector from a YAML or LazyConfig (.py) file."
    add_traceback(parser)
    for action in parser._actions:
        if action.dest == "config_file":
            action.help = "a .yaml or a LazyConfig .py file"
        elif action.dest == "resume":
            action.help = "go on from the last checkpoint in OUTPUT_DIR, if there is one"
        elif action.dest == "num_gpus":
            action.help = "processes per machine: GPUs, or CPU processes where there is no GPU"
    return parser


def prepare(args: argparse.Namespace) -> CfgNode | DictConfig:
    """Load and check the config that the command line asks for, before any process starts."""
    if str(args.config_file).endswith(".py"):
        lazy = load_lazy_config(args.config_file, args.opts)
        parts = ("test",) if args.eval_only else ("train", "test")
        names: list[str] = []
        for part in parts:
            found = OmegaConf.select(lazy, f"dataloader.{part}.dataset.names", default=())
            names += [found] if isinstance(found, str) else list(found)
        check_datasets(names)
        check_metadata(Run.from_lazy_config(lazy))
        return lazy
    cfg = load_config(args.config_file, args.opts)
    cfg.freeze()
    check_datasets(cfg.DATASETS.TEST if args.eval_only else cfg.DATASETS.TRAIN + cfg.DATASETS.TEST)
    check_metadata(Run.from_config(cfg))
    return cfg


def load_config(config_file: str | os.PathLike[str], opts: Sequence[str] = ()) -> CfgNode:
    """Return Detectron2's defaults with our keys, the YAML file and then `opts` merged in.

    ``MODEL.DEVICE`` becomes ``cuda`` or ``cpu``, whichever there is, unless the file or `opts`
    set it. Raises :class:`UserError` for a missing or unreadable file, an unknown key (with the
    nearest known one), and a value that cannot work.
    """
    cfg = get_cfg()
    add_nonlocal_config(cfg)
    cfg.MODEL.DEVICE = _DEVICE_NOT_SET
    path = _existing_config(config_file)
    opts = list(opts or ())
    if opts[:1] == ["--"]:
        opts = opts[1:]
    try:
        cfg.merge_from_file(str(path))
    except (KeyError, AssertionError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: {_config_complaint(error, cfg)}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise UserError(
            f"{path}: its _BASE_ cannot be read: {error.filename} ({error.strerror})"
        ) from error
    except RecursionError:
        raise UserError(f"{path}: its _BASE_ files go round in a circle") from None
    try:
        cfg.merge_from_list(opts)
    except (KeyError, AssertionError, ValueError) as error:
        raise ConfigError(f"on the command line: {_config_complaint(error, cfg)}") from error
    has_gpu = torch.cuda.is_available()
    if cfg.MODEL.DEVICE == _DEVICE_NOT_SET:
        cfg.MODEL.DEVICE = "cuda" if has_gpu else "cpu"
    _check_device("MODEL.DEVICE", cfg.MODEL.DEVICE, "MODEL.DEVICE cpu")
    check_config(cfg)
    return cfg


def load_lazy_config(config_file: str | os.PathLike[str], opts: Sequence[str] = ()) -> DictConfig:
    """Return a LazyConfig file with ``key=value`` overrides in `opts`; errors as `load_config`."""
    path = _existing_config(config_file)
    opts = list(opts or ())
    cfg = LazyConfig.load(str(path))
    for part in ("model", "optimizer", "dataloader", "train"):
        if part not in cfg:
            raise ConfigError(f"{path}: '{part}' is missing; a LazyConfig for training defines it")
    cfg.train.setdefault("accumulate_steps", 1)  # not among the keys of Detectron2's own configs
    for option in opts:
        key, equals, _ = option.lstrip("+~").partition("=")
        if not equals:
            raise ConfigError(f"on the command line: '{option}' is not of the form key=value")
        _check_lazy_key(cfg, key)
    LazyConfig.apply_overrides(cfg, opts)
    chosen = any(option.startswith("train.device=") for option in opts)
    if not chosen and not torch.cuda.is_available():
        cfg.train.device = "cpu"
    _check_device("train.device", cfg.train.device, "train.device=cpu")
    return cfg


def check_datasets(names: Iterable[str]) -> None:
    """Raise :class:`UserError` for the first data set that is not registered or not on disk."""
    known = list(DatasetCatalog.keys())
    for name in names:
        if name not in known:
            raise UserError(f"data set '{name}' is not registered.{nearest(name, known)}")
        metadata = MetadataCatalog.get(name)
        for path in (metadata.get("json_file"), metadata.get("image_root")):
            if path and "://" not in path and not os.path.exists(path):
                root = os.environ.get("DETECTRON2_DATASETS")
                where = f"is '{root}'" if root else "is not set, so ./datasets is used"
                raise UserError(
                    f"data set '{name}' is not there: no {os.path.abspath(path)}. "
                    f"DETECTRON2_DATASETS {where}; point it at the folder that holds the data "
                    "sets, or use nl_shapes_train and nl_shapes_val, which need no download"
                )


def _existing_config(config_file: str | os.PathLike[str]) -> Path:
    path = Path(config_file)
    if not str(config_file):
        raise UserError("no config file given: --config-file FILE, e.g. configs/quickstart.yaml")
    if path.is_file():
        return path
    beside = [p for p in path.parent.glob("*") if p.suffix in _CONFIG_SUFFIXES]
    ours = [p for p in _PACKAGE_CONFIGS.rglob("*") if p.suffix in _CONFIG_SUFFIXES]
    by_name = {p.name: p for p in [*ours, *beside]}
    match = get_close_matches(path.name, list(by_name), n=1)
    hint = f" Did you mean '{by_name[match[0]]}'?" if match else ""
    raise UserError(f"no config file {config_file}.{hint}")


def _config_complaint(error: Exception, cfg: CfgNode) -> str:
    message = str(error.args[0] if error.args else error)
    for start in ("Non-existent config key: ", "Non-existent key: "):
        if message.startswith(start):
            key = message.removeprefix(start)
            return f"unknown key '{key}'.{nearest(key, list(_keys(cfg)))}"
    return " ".join(message.split())


def _keys(node: CfgNode, prefix: str = "") -> Iterable[str]:
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")


def _check_lazy_key(cfg: DictConfig, key: str) -> None:
    """A new key is fine only as an argument of a lazy call, whose signature will check it."""
    node, parts = cfg, key.split(".")
    for position, part in enumerate(parts):
        if not isinstance(node, DictConfig):
            return  # an index into a list, or a plain value: OmegaConf checks those
        if part not in node:
            if "_target_" in node:
                return
            known = [".".join([*parts[:position], str(k)]) for k in node]
            wrong = ".".join(parts[: position + 1])
            raise ConfigError(f"on the command line: unknown key '{wrong}'.{nearest(wrong, known)}")
        node = node[part]


def _check_device(key: str, device: str, way_out: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"{key} is '{device}', which is no device (cpu, cuda, ...)") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{key} is '{device}', but torch sees no GPU; {way_out} works")
