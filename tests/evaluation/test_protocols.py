"""Zero-shot protocols: AUROC and accuracy of fixed embeddings are those of each project's published computation.

The references are written here from what their repositories compute, one image or class at a time as they do, and
judged with scikit-learn: rajpurkarlab/CheXzero `run_softmax_eval`, the notebook of BiomedCLIP, marshuang80/gloria
`zero_shot_classification` (global similarity) and RyanWangZf/MedCLIP `PromptClassifier`.
"""

import hashlib
import json
import zlib

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from medclip.data.sources.labeled_sets import LabeledImage
from medclip.evaluation import zero_shot
from medclip.evaluation.compare import compare
from medclip.evaluation.config import EvalConfig, LabelConfig
from medclip.evaluation.labeled import Labeled
from medclip.evaluation.protocols import PROTOCOLS, ClassTexts, own_texts, protocol_scores, protocol_texts
from medclip.evaluation.result_tables import result_notes, result_tables
from medclip.evaluation.results import Kind, read_results
from medclip.evaluation.zero_shot import evaluate_zero_shot, split_digest
from medclip.prompts import read_prompts
from support.labels import split_rows, write_table

WIDTH = 6
FINDINGS = ["Cardiomegaly", "Mass", "No Finding", "Pleural Effusion"]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def embedding(text):
    """A direction of its own for each text."""
    return unit(np.random.default_rng(zlib.crc32(text.encode())).normal(size=WIDTH)).astype(np.float32)


def patch_embeddings(monkeypatch, images):
    """Directions that no model made; `images` collects those of the images, in their order."""

    def encode_rows(labeled, backends, project):
        vectors = unit(np.random.default_rng(3).normal(size=(len(labeled), WIDTH))).astype(np.float32)
        images.extend(vectors)
        return labeled, [vectors for _ in backends]

    monkeypatch.setattr(zero_shot, "encode_labeled", encode_rows)
    monkeypatch.setattr(zero_shot, "embed_captions", lambda _, texts: np.stack([embedding(text) for text in texts]))


@pytest.fixture
def fixed_embeddings(monkeypatch):
    patch_embeddings(monkeypatch, [])


def chexzero(images, prompts, scale):
    probabilities = np.empty((len(images), len(prompts)))
    for i, image in enumerate(images):
        for c, (affirmed, denied) in enumerate(prompts):
            a, d = np.exp(image @ embedding(affirmed)), np.exp(image @ embedding(denied))
            probabilities[i, c] = a / (a + d)
    return probabilities


def biomedclip(images, prompts, scale):
    rows = []
    for image in images:
        logits = scale * np.array([image @ embedding(text) for (text,) in prompts], np.float64)
        rows.append(np.exp(logits) / np.exp(logits).sum())
    return np.array(rows)


def prompt_similarities(images, prompts, reduce):
    return np.array([[reduce([image @ embedding(text) for text in texts]) for texts in prompts] for image in images])


def gloria(images, prompts, scale):
    values = prompt_similarities(images, prompts, max)
    return (values - values.mean(axis=0)) / values.std(axis=0)


def medclip(images, prompts, scale):
    return scale * prompt_similarities(images, prompts, np.mean)


def medclip_max(images, prompts, scale):
    return scale * prompt_similarities(images, prompts, max)


REFERENCES = dict(zip(PROTOCOLS, (chexzero, biomedclip, gloria, medclip, medclip_max), strict=True))


def evaluate(run, folder, protocol="all", **settings):
    config = EvalConfig(model=str(run), data=str(folder), **settings)
    return evaluate_zero_shot(config, LabelConfig(random_weights=False), protocol=protocol)


def finding_rows(n=24):
    random = np.random.default_rng(5)
    names = np.array(FINDINGS)
    return [f"dark_{i}.jpg,{';'.join(names[random.random(4) < 0.4])}" for i in range(n)]


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("findings") / "set", finding_rows(), "file,label")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("classes") / "set", split_rows(("dark", "middle", "bright"), 0, 12))


@pytest.fixture(scope="module")
def evaluations(run, findings, classes, tmp_path_factory):
    """Results, items and image embeddings by all protocols, of findings and of classes."""
    by_task = {}
    for name, folder in {"findings": findings, "classes": classes}.items():
        images, out = [], tmp_path_factory.mktemp("out")
        with pytest.MonkeyPatch.context() as monkeypatch:
            patch_embeddings(monkeypatch, images)
            evaluate(run, folder, out=out)
        by_task[name] = (*read_results(out, Kind.ZERO_SHOT), np.float64(images), out)
    return by_task


def expected_scores(protocol, results, names, images, model):
    prompts = [results.facts[f"protocols/{protocol}/prompts/{name}"] for name in names]
    return REFERENCES[protocol](images, prompts, np.exp(float(model.params["logit_scale"])))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_findings_have_the_auroc_of_the_published_computation(evaluations, model, protocol):
    results, _, images, _ = evaluations["findings"]
    truth = np.array([[name in row.split(",")[1].split(";") for name in FINDINGS] for row in finding_rows()])
    scores = expected_scores(protocol, results, FINDINGS, images, model)
    expected = roc_auc_score(truth, scores, average=None)
    areas = [results[f"protocols/{protocol}/classes/{name}/auroc"].value for name in FINDINGS]
    np.testing.assert_allclose(areas, expected, atol=1e-6)
    mean = results[f"protocols/{protocol}/auroc"]
    assert mean.value == pytest.approx(expected.mean(), abs=1e-6)
    assert mean.low < mean.value < mean.high
    accuracy = results.get("protocols", protocol, "accuracy")
    if protocol == "chexzero":  # the only one that says of a single finding whether it is there
        assert accuracy.value == pytest.approx(((scores > 0.5) == truth).mean(), abs=1e-6)
    else:
        assert accuracy is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_classes_have_the_accuracy_and_auroc_of_the_published_computation(evaluations, model, protocol):
    results, items, images, _ = evaluations["classes"]
    names = ["bright", "dark", "middle"]
    truth = np.array([names.index(label) for label in items.column("label").to_pylist()])
    scores = expected_scores(protocol, results, names, images, model)
    path = f"protocols/{protocol}"
    assert results[f"{path}/accuracy"].value == pytest.approx(accuracy_score(truth, scores.argmax(axis=1)))
    expected = [roc_auc_score(truth == c, scores[:, c]) for c in range(3)]
    assert [results[f"{path}/classes/{n}/auroc"].value for n in names] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("task", "protocol"), [("findings", "chexzero"), ("classes", "medclip")])
def test_one_protocol_alone_stands_at_the_top(fixed_embeddings, evaluations, run, findings, classes, task, protocol):
    results, *_ = evaluations[task]
    alone = evaluate(run, {"findings": findings, "classes": classes}[task], protocol)
    assert alone.facts["protocol"] == protocol
    assert alone.below("protocols") == []
    beside = [metric for metric in results.metrics if metric.name.startswith(f"protocols/{protocol}/")]
    assert len(beside) >= 4
    for metric in beside:
        same = alone[metric.name.removeprefix(f"protocols/{protocol}/")]
        assert (same.value, same.low, same.high) == (metric.value, metric.low, metric.high)


def test_scores_of_confident_models_are_not_tied(model):
    """At a scale of 100 the probabilities of single precision are all 1."""
    random = np.random.default_rng(0)
    images = unit(random.normal(size=(200, 3)))
    texts = [unit(random.normal(size=(2, 3))) for _ in range(2)]
    for protocol in ("chexzero", "gloria", "medclip", "medclip-max"):
        values = protocol_scores(protocol, images, texts, texts[::-1], 100.0).values
        assert len(np.unique(values[:, 0])) == 200


def test_a_single_image_is_scored_by_gloria_as_it_is():
    """Its standardization needs others; a class that all images fit alike is told by none."""
    texts = [np.eye(2)[:1], np.eye(2)[1:]]
    assert protocol_scores("gloria", np.eye(2)[:1], texts, (), 1.0).values.tolist() == [[1, 0]]
    assert protocol_scores("gloria", np.eye(2)[[0, 0]], texts, (), 1.0).values.tolist() == [[0, 0], [0, 0]]


def test_prompts_are_those_of_the_protocol(evaluations):
    facts = evaluations["findings"][0].facts
    assert facts["protocols/chexzero/prompts/Mass"] == ("mass", "no mass")
    assert facts["protocols/chexzero/prompts/No Finding"] == ("no finding", "finding")
    assert facts["protocols/biomedclip/prompts/Mass"] == ("this is a photo of a mass",)
    assert facts["protocols/biomedclip/prompts/No Finding"] == ("this is a photo with no finding",)
    drawn = [facts[f"protocols/{name}/prompts/Pleural Effusion"] for name in ("gloria", "medclip")]
    assert [len(set(texts)) for texts in drawn] == [5, 10]
    assert all("pleural effusion" in text for texts in drawn for text in texts)


def test_prompts_are_drawn_by_the_seed():
    prompts = read_prompts(None, "findings", True)
    first, again, other = (protocol_texts("medclip", prompts, "Pneumonia", seed) for seed in (0, 0, 1))
    assert first == again
    assert set(first.affirmed) != set(other.affirmed)


def test_names_of_the_users_prompts_are_those_of_every_protocol(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        '[finding]\ntemplates = ["see {}"]\nnegated_templates = ["no {}"]\n[finding.names]\nMASS = ["tumor"]\n'
    )
    prompts = read_prompts(path, "findings", True)
    assert own_texts(prompts, "Mass", True) == ClassTexts(("see a tumor",), ("no tumor",))
    assert protocol_texts("chexzero", prompts, "Mass", 0) == ClassTexts(("tumor",), ("no tumor",))
    assert protocol_texts("gloria", prompts, "Mass", 0) == ClassTexts(("tumor",))


def test_the_split_is_known_by_its_ids_and_labels(evaluations):
    results, items, *_ = evaluations["findings"]
    lines = [f"{row['id']}\t{row['label']}" for row in items.to_pylist()]
    assert results.facts["split_sha256"] == hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    rows = [LabeledImage(b"", "", name, name) for name in "ab"]
    truth = np.array([[True, False], [True, True]])
    digests = [
        split_digest(Labeled(tuple(images), "all", "label", {}), labels, ["x", "y"])
        for images, labels in ((rows, truth), (rows[::-1], truth[::-1]), (rows, truth[::-1]))
    ]
    assert digests[0] == digests[1] == hashlib.sha256(b"a\tx\nb\tx;y").hexdigest()
    assert digests[2] != digests[0]


def test_one_protocol_is_compared_with_itself_and_never_with_another(
    fixed_embeddings, evaluations, run, classes, tmp_path
):
    evaluate(run, classes, "gloria", out=tmp_path)
    contrasts = {row.name for row in compare([tmp_path, tmp_path]).rows if row.contrasts}
    assert contrasts == {"accuracy", "balanced_accuracy"}
    assert not any(row.contrasts for row in compare([evaluations["classes"][3], tmp_path]).rows)
    document = json.loads((tmp_path / "zero_shot.json").read_text())
    assert {"accuracy", "auroc", "protocol", "split_sha256", "confusion_matrices"} <= document.keys()


def test_the_page_holds_every_metric_of_every_protocol(evaluations):
    for results, *_ in evaluations.values():
        tables = result_tables(results)
        cells = {id(cell) for table in tables for row in table.rows for cell in row}
        assert [m.name for m in results.metrics if m.value is not None and id(m) not in cells] == []
        assert any(table.title == "Published protocols" and len(table.rows) == 5 for table in tables)
        assert results.facts["split_sha256"] in " ".join(result_notes(results))


def test_a_protocol_that_is_not_known_is_refused(medclip, run, classes):
    status, _, err = medclip("evaluate", "zero-shot", "--model", run, "--data", classes, "--protocol", "clip")
    assert status == 2
    assert "chexzero" in err
