"""DIR/report.html shows every metric that its folder holds, and needs nothing but itself."""

import re

import pytest

from medclip import NOT_CLINICAL
from medclip.errors import UserError
from medclip.evaluation.charts import dots
from medclip.evaluation.report import write_report
from medclip.evaluation.results import Kind, Results, read_results, write_results
from medclip.named_metrics import format_value
from support.handmade_results import PROVENANCE, classes, metric, retrieval
from support.pages import check

HOSTILE = '</table><script>alert("x")</script><img src=https://evil.example/x> & mass'


def page_of(folder):
    return check(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    retrieval(tmp_path, [1, 2, 30, 4], [9, 11, 3, 1])
    return classes(tmp_path, ["ct", "mri", "ct", "us"], [1, 0, 1, 0])


def test_every_metric_of_every_evaluation_is_on_the_page(folder):
    page = page_of(folder)
    for kind in (Kind.RETRIEVAL, Kind.ZERO_SHOT):
        for own in read_results(folder, kind)[0].metrics:
            assert format_value(own, own.value) in page.text, own.name


def test_it_says_where_the_numbers_come_from(folder):
    page = page_of(folder)
    assert page.text.count(NOT_CLINICAL) == 2
    text = " ".join(page.text.split())
    for words in ("data made-up", "split validation", "synthetic no", "d" * 64, "a" * 64, "seed 0"):
        assert words in text
    assert "candidates retrieval: 4" in text
    assert "1000 resamples of whole articles" in text
    assert "Excluded: without label (3)." in text


def test_each_kind_has_its_charts(folder):
    page = page_of(folder)
    assert page.tags.count("svg") == 3  # recalls, AUROC by class, reliability
    assert "Confusion matrix" in page.text
    few_shot = [metric(f"few_shot/{n}/balanced_accuracy", 0.3 + n / 100, 0.2, 0.6) for n in (1, 4, 16)]
    write(folder, Kind.PROBE, *few_shot, label="x", num_draws=2)
    assert page_of(folder).tags.count("svg") == 4


def test_synthetic_data_are_called_so(tmp_path):
    assert "Measured on synthetic phantoms" in page_of(retrieval(tmp_path, [1, 2], [1, 2], synthetic=True)).text


def test_evaluations_of_different_models_are_pointed_out(folder):
    retrieval(folder, [1, 2], [1, 2], model="b" * 64)
    text = " ".join(page_of(folder).text.split())
    assert "of 2 different models" in text
    assert f"retrieval: {'b' * 64}; zero-shot: {'a' * 64}" in text


def test_names_are_text_never_markup(tmp_path):
    classes(tmp_path, [HOSTILE, "ct", HOSTILE, "ct"], [1, 0, 1, 1], excluded={HOSTILE: HOSTILE}, data=HOSTILE)
    page = page_of(tmp_path)
    assert page.text.count("alert(") > 5
    assert not {"script", "img"} & set(page.tags)


def write(folder, kind, *metrics, **facts):
    results = Results(kind=kind, metrics=metrics, facts=facts, provenance=PROVENANCE)
    write_results(folder, results, {"id": ["a"], "article": ["b"]})


@pytest.mark.parametrize(
    "metrics",
    [
        (),
        (metric("logistic_regression/accuracy", None),),
        (metric("logistic_regression/accuracy", 0.5, 0.6, 0.7),),
        (metric("few_shot/1/balanced_accuracy", None), metric("few_shot/4/balanced_accuracy", 0.5)),
        (metric("few_shot/1/accuracy", 0.1),),
    ],
    ids=["nothing", "undefined", "beside itself", "no value", "one of a line"],
)
def test_results_that_hold_little_have_a_page(tmp_path, metrics):
    write(tmp_path, Kind.PROBE, *metrics, label="modality", num_draws=2)
    assert "Frozen features" in page_of(tmp_path).text


def test_a_folder_without_results_is_a_mistake_in_words(tmp_path):
    with pytest.raises(UserError, match="holds no evaluation"):
        write_report(tmp_path)


def test_the_page_is_whole_or_absent(folder, monkeypatch):
    before = write_report(folder).read_bytes()
    monkeypatch.setattr("medclip.html_page.render", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert not list(folder.glob(".*partial"))


@pytest.mark.parametrize("kind", [Kind.ROBUSTNESS, Kind.PROBE])
def test_results_without_the_facts_of_their_kind_are_refused(tmp_path, kind):
    write(tmp_path, kind, metric("corruptions/noise/1/R@10", 0.5))
    with pytest.raises(UserError, match="holds results that lack"):
        write_report(tmp_path)


def text_spans(svg):
    """Where each text of a chart begins and ends, of letters that are half as wide as high, and the chart's width."""
    width = float(svg.partition('viewBox="0 0 ')[2].partition(" ")[0])
    shares = {"start": 0, "middle": 0.5, "end": 1}
    texts = re.findall(r'<text[^>]*text-anchor: (\w+)[^>]* x="([-\d.]+)"[^>]*>([^<]*)', svg)
    spans = [(float(x) - shares[anchor] * 5.5 * len(text), 5.5 * len(text)) for anchor, x, text in texts]
    return [(start, start + length) for start, length in spans], width


def test_a_legend_of_long_names_stays_within_the_chart():
    names = [f"a model with a rather long name, number {i}" for i in range(4)]
    auroc = {"ct": metric("auroc", 0.7, 0.6, 0.8, chance=0.5), "a class of a long name " * 9: metric("auroc", 0.6)}
    svg = dots("AUROC", dict.fromkeys(names, auroc))
    spans, width = text_spans(svg)
    assert len(spans) > 8 and all(0 <= start < end <= width for start, end in spans)
    assert "number 3" in svg  # whole in the description
