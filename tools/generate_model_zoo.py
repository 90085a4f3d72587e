"""Write model_zoo/README.md and model_zoo/results.csv from the table in nl_detectron.model_zoo."""

import argparse
from pathlib import Path

from nl_detectron.model_zoo import tables

FOLDER = Path(__file__).resolve().parent.parent / "model_zoo"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, text in (("README.md", tables.readme()), ("results.csv", tables.results_csv())):
        path = FOLDER / name
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
