"""Generate model_zoo/README.md and model_zoo/results.csv from model_zoo.csv of the package.

With --count, count the parameters and multiply-adds of every model instead, and write them into
model_zoo.csv.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from nl_detectron import model_zoo
from nl_detectron.analysis.cost import analyze, build_on_meta
from nl_detectron.commands.analyze import count_clip
from nl_detectron.model_zoo import tables
from nl_detectron.model_zoo.model_zoo import TABLE, read_rows
from nl_detectron.modeling import VideoClassifier

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", action="store_true", help="count every model (minutes)")
    if parser.parse_args().count:
        write(TABLE, tables.as_csv(count()))
        print("now run it without --count")
        return
    write(ROOT / "model_zoo" / "README.md", tables.readme())
    write(ROOT / "model_zoo" / "results.csv", tables.results_csv())


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")


def count() -> list[dict[str, str]]:
    """Return the rows of the zoo's table with counts of this code's models."""
    rows = read_rows()
    for row in tqdm(rows, unit="config"):
        cfg = model_zoo.get_config(row["config"])
        model = build_on_meta(cfg)
        result = count_clip(cfg, model) if isinstance(model, VideoClassifier) else analyze(model)
        row |= {
            "input": f"{result.frames}x{result.height}x{result.width}",
            "parameters": str(result.total.parameters),
            "multiply_adds": str(result.total.multiply_adds),
        }
    return rows


if __name__ == "__main__":
    main()
