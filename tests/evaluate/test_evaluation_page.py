"""DIR/report.html shows every figure that its folder holds, and needs nothing but itself."""

import pytest

from medclip import NOT_CLINICAL
from medclip.errors import UserError
from medclip.evaluate.metric import figures, form
from medclip.evaluate.report import write_report
from medclip.evaluate.results import read_results, write_results
from support.handmade_results import classes, figure, retrieval
from support.pages import check

HOSTILE = '</table><script>alert("x")</script><img src=https://evil.example/x> & mass'


def page_of(folder):
    return check(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    retrieval(tmp_path, [1, 2, 30, 4], [9, 11, 3, 1])
    return classes(tmp_path, ["ct", "mri", "ct", "us"], [1, 0, 1, 0])


def test_every_figure_of_every_measure_is_on_the_page(folder):
    page = page_of(folder)
    for measure in ("retrieval", "zero-shot"):
        for name, one in figures(read_results(folder, measure)[0]).items():
            assert form(name, one["value"]) in page.text, name


def test_it_says_where_the_figures_come_from(folder):
    page = page_of(folder)
    assert page.text.count(NOT_CLINICAL) == 2
    said = " ".join(page.text.split())
    for what in ("data made-up", "split validation", "pool retrieval: 4", "synthetic no", "d" * 64, "a" * 64, "seed 0"):
        assert what in said
    assert "1000 resamples of whole articles" in said
    assert "Left out: without label (3)." in said


def test_what_the_shapes_call_for_is_drawn(folder):
    page = page_of(folder)
    # recalls, AUROC by class, few-shot, reliability
    assert page.tags.count("svg") == 4
    assert "Confusions" in page.text


def test_synthetic_data_are_called_so(tmp_path):
    assert "Measured on synthetic phantoms" in page_of(retrieval(tmp_path, [1, 2], [1, 2], synthetic=True)).text


def test_measures_of_different_models_are_told_of(folder):
    retrieval(folder, [1, 2], [1, 2], model="b" * 64)
    said = " ".join(page_of(folder).text.split())
    assert "made with 2 different models" in said
    assert f"retrieval: {'b' * 64}; zero-shot: {'a' * 64}" in said


def test_names_are_text_never_markup(tmp_path):
    classes(tmp_path, [HOSTILE, "ct", HOSTILE, "ct"], [1, 0, 1, 1], data=HOSTILE, left_out={HOSTILE: HOSTILE})
    page = page_of(tmp_path)
    assert page.text.count("alert(") > 5
    assert not {"script", "img"} & set(page.tags)


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"accuracy": None},
        {"accuracy": figure(None)},
        {"accuracy": figure(float("nan"))},
        {"model": None, "confusion": [[1]], "classes": ["a", "b"], "curve": [], "left_out": 7},
        {"corruptions": {n: {"severities": [{"severity": 1, "R@10": figure(0.1)}]} for n in "abcdefg"}},
        {"few_shot": {"1": {"accuracy": figure(None)}, "4": {"accuracy": figure(0.5)}}},
        {"majority": "ct", "chance": "low", "accuracy": figure(0.5, 0.6, 0.7)},
    ],
    ids=["nothing", "undefined", "no number", "NaN", "odd", "severities", "no value", "beside itself"],
)
def test_any_results_have_a_page(tmp_path, results):
    write_results(tmp_path, "probe", results, {"id": ["a"], "article": ["b"]})
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
