"""What the tests of faults share: the words of commands that write."""

import pytest

from medclip.data.corrections import pair_keys, write_corrections
from medclip.data.dataset import Split
from support.faults import WRITERS


@pytest.fixture(scope="session")
def words(run, data, index_folder, tmp_path_factory):
    """The words of a command of WRITERS, with the suite's own data and model."""
    from medclip.evaluation.config import EvalConfig
    from medclip.evaluation.retrieval import evaluate_retrieval

    folder = tmp_path_factory.mktemp("inputs")
    evaluate_retrieval(EvalConfig(model=str(run), data=str(data), out=folder / "evaluation"))
    (folder / "image.jpg").write_bytes(Split(data, "validation").image(0))
    corrections = write_corrections({pair_keys(Split(data, "validation").table)[0]: None})
    (folder / "corrections.json").write_text(corrections)
    paths = {"DATA": data, "RUN": run, "INDEX": index_folder, "EVALUATION": folder / "evaluation"}
    paths |= {"IMAGE": folder / "image.jpg", "CORRECTIONS": folder / "corrections.json"}
    return lambda command: [str(paths.get(word, word)) for word in WRITERS[command].split()]
