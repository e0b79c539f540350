"""What the tests of faults share: the words of commands that write."""

import pytest

from medclip.data.dataset import Split
from support.faults import WRITERS


@pytest.fixture(scope="session")
def words(run, data, tmp_path_factory):
    """The words of a command of WRITERS, with the suite's own data and model."""
    from medclip.evaluation.config import EvalConfig
    from medclip.evaluation.retrieval import evaluate_retrieval

    folder = tmp_path_factory.mktemp("inputs")
    evaluate_retrieval(EvalConfig(model=str(run), data=str(data), out=folder / "evaluation"))
    (folder / "image.jpg").write_bytes(Split(data, "validation").image(0))
    paths = {"DATA": data, "RUN": run, "EVALUATION": folder / "evaluation", "IMAGE": folder / "image.jpg"}
    return lambda command: [str(paths.get(word, word)) for word in WRITERS[command].split()]
