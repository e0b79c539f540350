"""What the command tells the app's process, before anything is served."""

from pathlib import Path

import pytest

from medclip.app.config import Served, from_words
from medclip.app.run import Address, flags, launch
from medclip.errors import UserError


def test_what_is_served_comes_through_the_command_line():
    for served in (
        Served((Path("a"),)),
        Served((Path("a b"), Path("-c")), (Path("m"), Path("--index")), Path("e")),
    ):
        assert from_words(served.words()) == served


def test_names_are_as_short_as_tells_indexes_apart():
    assert list(Served((Path("/x/one"), Path("/x/two"))).places()) == ["one", "two"]
    assert list(Served((Path("/x/a/index"), Path("/x/b/index"))).places()) == ["a/index", "b/index"]
    assert Served((Path("/x/a"),), (Path("/m"),)).places() == {"a": ("/x/a", "/m")}


@pytest.mark.parametrize(
    ("indexes", "models", "sentence"),
    [((), (), "give an index"), (("a", "b"), ("m",), "1 times for 2 indexes"), (("a", "../x/a"), (), "twice")],
)
def test_what_cannot_be_served_is_one_sentence(tmp_path, monkeypatch, indexes, models, sentence):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    with pytest.raises(UserError, match=sentence):
        Served(tuple(map(Path, indexes)), tuple(map(Path, models))).places()


def test_only_this_machine_is_answered_unless_told_otherwise():
    said = flags(Address())
    assert "--server.address=127.0.0.1" in said
    assert {"--server.allowedHosts=127.0.0.1", "--server.allowedHosts=localhost"} <= set(said)
    assert "--server.enableXsrfProtection=true" in said and "--browser.gatherUsageStats=false" in said


def test_behind_a_proxy_it_knows_its_name_and_path():
    said = flags(Address("0.0.0.0", 80, "/radiology/", "search.example.org"))
    hosts = [flag for flag in said if flag.startswith("--server.allowedHosts")]
    assert hosts == ["--server.allowedHosts=search.example.org"]
    assert "--server.baseUrlPath=radiology" in said and "--browser.serverAddress=search.example.org" in said


def test_every_flag_is_one_that_streamlit_has():
    from streamlit import config

    for flag in flags(Address(name="x")):
        config.get_option(flag[2:].partition("=")[0])


def test_an_evaluation_that_is_not_there_is_one_sentence(index_folder, tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        launch(Served((index_folder,), evaluation=tmp_path / "none"))
