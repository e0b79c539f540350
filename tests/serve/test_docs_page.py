"""/docs says what /openapi.json says, to people, and asks no other host."""

import re
from html.parser import HTMLParser

import pytest

from support.served import open_client


@pytest.fixture(scope="module")
def client(index_folder):
    with open_client(index_folder, keys=[b"k" * 16], warm_up=False) as client:
        yield client


@pytest.fixture(scope="module")
def schema(client):
    return client.get("/openapi.json", headers={"X-API-Key": "k" * 16}).json()


class Tags(HTMLParser):
    """The tags of a page, each with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_operations_have_names_of_their_own(schema):
    names = [operation["operationId"] for methods in schema["paths"].values() for operation in methods.values()]
    assert sorted(names) == [
        *("classify", "embed_images", "embed_texts", "explain", "facets", "health", "info", "prometheus"),
        *("ready", "search_by_image", "search_by_text", "similar", "thumbnail"),
    ]


def test_the_page_shows_every_operation_field_and_form(client, schema):
    response = client.get("/docs")  # without the key: it says nothing of the index
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/html")
    page = response.text
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            start = page.index(f'<section id="{operation["operationId"]}">')
            section = page[start : page.index("</section>", start)]
            assert path in section
            for parameter in operation.get("parameters", []):
                assert f">{parameter['name']}<" in section
    for name, form in schema["components"]["schemas"].items():
        start = page.index(f'<section id="{name}">')
        section = page[start : page.index("</section>", start)]
        assert all(f">{field}<" in section for field in form.get("properties", {}))
    search = page[page.index('<section id="search_by_image">') :]
    assert re.search(r">images<.*?list of file.*?≤ 8 items.*?required", search, re.DOTALL)


def test_nothing_runs_and_nothing_is_fetched(client):
    response = client.get("/docs")
    assert response.headers["content-security-policy"] == (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    )
    for tag, attributes in Tags(response.text).tags:
        assert tag not in ("script", "link", "img", "iframe", "base")
        assert not any(name in ("src", "action") or name.startswith("on") for name in attributes)
        assert not attributes.get("href", "#").startswith(("http", "//"))
    assert "url(" not in response.text and "@import" not in response.text


def test_every_other_response_has_the_strict_policy(client):
    assert client.get("/health").headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
