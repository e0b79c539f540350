"""Who has a key is answered, and a server that cannot tell is not opened."""

import pytest

from medclip.errors import UserError
from medclip.serve import gate, run
from support.served import open_client


def test_a_key_opens_everything_but_health(index_folder):
    keys = [b"0123456789abcdef", "schlüssel-schlüssel".encode()]
    with open_client(index_folder, keys) as client:
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        for headers in ({}, {"X-API-Key": "0123456789abcdeX"}, {"X-API-Key": ""}, {"Authorization": "Bearer"},
                        {"Authorization": "Basic 0123456789abcdef"}, {"X-API-Key": "ÿ" * 16}):  # fmt: skip
            headers = {name: value.encode("latin-1") for name, value in headers.items()}
            for path in ("/", "/metrics", "/openapi.json", "/nowhere", "/facets", "/health/"):
                response = client.get(path, headers=headers)
                assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
        for headers in ({"X-API-Key": keys[0]}, {"X-API-Key": keys[1]}, {"Authorization": b"bearer " + keys[0]}):
            assert client.get("/", headers=headers).status_code == 200
        schemes = client.get("/openapi.json", headers={"X-API-Key": keys[0]}).json()["components"]["securitySchemes"]
        assert {scheme["type"] for scheme in schemes.values()} == {"apiKey", "http"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("", "holds no key"), ("short", "at least 16 characters"), (None, "cannot be read"), (b"\xff\xfe", "cannot be")],
)
def test_a_file_without_keys_is_refused(tmp_path, content, sentence):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=sentence):
        gate.read_keys(file)


@pytest.mark.parametrize(
    ("value", "sentence"), [("", "holds no key"), (" ", "holds no key"), ("\udcff" * 16, "cannot be")]
)
def test_a_variable_without_keys_does_not_open_the_server(monkeypatch, value, sentence):
    monkeypatch.setenv("MEDCLIP_API_KEY", value)
    with pytest.raises(UserError, match=f"MEDCLIP_API_KEY {sentence}"):
        gate.read_keys(None)


def test_keys_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDCLIP_API_KEY", "of-the-environment")
    assert gate.read_keys(None) == [b"of-the-environment"]
    (tmp_path / "keys").write_text("the-first-of-two-keys\nthe-second-of-two-keys\n")
    assert gate.read_keys(tmp_path / "keys") == [b"the-first-of-two-keys", b"the-second-of-two-keys"]


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_an_open_address_without_a_key_is_warned_of(medclip, index_folder, monkeypatch, host, warned):
    monkeypatch.setattr(run, "_run", lambda *_: None)
    monkeypatch.setenv("MEDCLIP_SERVE", "")
    code, _, message = medclip("serve", "--index", index_folder, "--host", host, "--port", "0")
    assert code == 0 and ("give --api-key-file" in message) == warned
    monkeypatch.setenv("MEDCLIP_API_KEY", "a key of sixteen".replace(" ", "-"))
    assert "give --api-key-file" not in medclip("serve", "--index", index_folder, "--host", host, "--port", "0")[2]
