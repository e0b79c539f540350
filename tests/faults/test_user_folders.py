"""Caches and keys of users without a home folder, and XDG variables that say nothing."""

import pytest

from medclip.data.deidentify import key_path, make_key
from medclip.encode.feature_cache import open_store
from medclip.errors import UserError
from medclip.user_folders import cache_folder, config_folder


@pytest.fixture
def homeless(monkeypatch):
    """A user id without an entry, as containers start one, and without HOME."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)


@pytest.mark.parametrize(
    ("home", "xdg", "expected"),
    [
        ("/home/a", None, "/home/a/.cache/medclip"),
        ("/home/a", "/var/c", "/var/c/medclip"),
        ("/home/a", "", "/home/a/.cache/medclip"),  # the specification: empty is unset
        ("/home/a", "c", "/home/a/.cache/medclip"),  # and relative is ignored
        ("", "/var/c", "/var/c/medclip"),
        ("", "", None),
        ("a", None, None),
    ],
)
def test_the_cache_lies_where_the_xdg_specification_says(home, xdg, expected, monkeypatch):
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if xdg is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert (cache_folder() and str(cache_folder())) == expected


def test_a_user_without_a_home_has_no_folders(homeless, monkeypatch):
    assert (cache_folder(), config_folder()) == (None, None)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/x")
    assert str(key_path(None)) == "/etc/x/medclip/key"


def test_features_are_then_not_cached_and_a_sentence_says_so(homeless, monkeypatch, caplog):
    monkeypatch.setenv("MEDCLIP_FEATURE_CACHE_GB", "1")
    assert open_store(lambda: "tower", enabled=True).folder is None
    assert "no feature cache: this user has no home folder" in caplog.text


def test_a_key_is_then_asked_for(homeless):
    with pytest.raises(UserError, match="name its file with --pseudonym-key"):
        key_path(None)


def test_a_folder_that_no_key_can_be_made_in_is_named_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/medclip/key .*Not a directory.* --pseudonym-key"):
        make_key(None, tmp_path / "out")
