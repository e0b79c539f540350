"""The command line of the app's process, before anything is served."""

import subprocess
from pathlib import Path

import pytest

from medclip.app.run import Address, AppConfig, IndexLocation, launch, streamlit_flags
from medclip.errors import UserError, WorkError


def test_what_is_served_comes_through_the_command_line():
    for config in (
        AppConfig((Path("/a"),)),
        AppConfig((Path("/a b"), Path("/-c")), (Path("/m"), Path("/--index")), Path("/e")),
    ):
        assert AppConfig.from_json(config.to_json()) == config


def test_names_are_as_short_as_tells_indexes_apart():
    assert list(AppConfig((Path("/x/one"), Path("/x/two"))).locations()) == ["one", "two"]
    assert list(AppConfig((Path("/x/a/index"), Path("/x/b/index"))).locations()) == ["a/index", "b/index"]
    assert AppConfig((Path("/x/a"),), (Path("/m"),)).locations() == {"a": IndexLocation(Path("/x/a"), Path("/m"))}


@pytest.mark.parametrize(
    ("indexes", "models", "sentence"),
    [((), (), "give an index"), (("a", "b"), ("m",), "1 times for 2 indexes"), (("a", "../x/a"), (), "twice")],
)
def test_what_cannot_be_served_is_one_sentence(tmp_path, monkeypatch, indexes, models, sentence):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    with pytest.raises(UserError, match=sentence):
        AppConfig(tuple(map(Path, indexes)), tuple(map(Path, models))).locations()


def test_only_this_machine_is_answered_unless_the_address_says_otherwise():
    flags = streamlit_flags(Address())
    assert "--server.address=127.0.0.1" in flags
    assert {"--server.allowedHosts=127.0.0.1", "--server.allowedHosts=localhost"} <= set(flags)
    assert "--server.enableXsrfProtection=true" in flags and "--browser.gatherUsageStats=false" in flags


def test_behind_a_proxy_it_knows_its_name_and_path():
    flags = streamlit_flags(Address("0.0.0.0", 80, "/radiology/", "search.example.org"))
    hosts = [flag for flag in flags if flag.startswith("--server.allowedHosts")]
    assert hosts == ["--server.allowedHosts=search.example.org"]
    assert "--server.baseUrlPath=radiology" in flags and "--browser.serverAddress=search.example.org" in flags


def test_every_flag_is_one_that_streamlit_has():
    from streamlit import config

    for flag in streamlit_flags(Address(server_name="x")):
        config.get_option(flag[2:].partition("=")[0])


def test_an_app_that_a_signal_ends_says_so(index_folder, monkeypatch):
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: popen(["sh", "-c", "kill -BUS $$"]))
    with pytest.raises(WorkError, match=r"ended by a signal \(Bus error\), as where a file of an index is cut"):
        launch(AppConfig((index_folder,)))


def test_an_evaluation_that_is_not_there_is_one_sentence(index_folder, tmp_path):
    for folder, remark in ((tmp_path / "none", ""), (index_folder, " It is an index, as --index takes.")):
        with pytest.raises(UserError, match=f"holds no evaluation; medclip evaluate … --out DIR writes one.{remark}$"):
            launch(AppConfig((index_folder,), evaluation=folder))


@pytest.mark.parametrize("address", [Address("0.0.0.0"), Address(server_name="search.example.org")])
def test_nobody_from_elsewhere_changes_an_index(index_folder, address):
    with pytest.raises(UserError, match="--edit lets whoever opens the page change the index"):
        launch(AppConfig((index_folder,), edit=True), address)
