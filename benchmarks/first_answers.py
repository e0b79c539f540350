"""How often the first answer is right, for every query that the labels of an index of phantoms make.

    medclip quickstart --out Q --no-app
    python benchmarks/first_answers.py --index Q/index

A query is written as the captions are; there is one for every combination of labels that an image of the index has. The
first hit is right where it has all labels that the query names.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from medclip import jax_setup

jax_setup.start()

from medclip.data.phantoms.cases import WORDINGS  # noqa: E402
from medclip.search.index import Index  # noqa: E402

FORMS = (
    "{modality} of the {organ}",
    "{plane} {modality} of the {organ}",
    "{modality} of the {organ} with a {finding} on the {side}",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    index = Index.open(parser.parse_args().index)
    images = [dict(pairs) for pairs in index.reader.table.column("labels").to_pylist()]
    for form in FORMS:
        names = [name for name in images[0] if f"{{{name}}}" in form]
        cases = sorted({tuple(image[name] for name in names) for image in images if all(map(image.get, names))})
        wrong: dict[str, int] = dict.fromkeys((*names, "any"), 0)
        for case in cases:
            wanted = dict(zip(names, case, strict=True))
            words = {name: WORDINGS[value][0] if value in WORDINGS else value for name, value in wanted.items()}
            (hit,) = index.search(form.format(**words), k=1)
            for name in names:
                wrong[name] += hit.labels.get(name) != wanted[name]
            wrong["any"] += any(hit.labels.get(name) != wanted[name] for name in names)
        print(json.dumps({"form": form, "queries": len(cases), "first hit wrong": wrong}), flush=True)


if __name__ == "__main__":
    main()
