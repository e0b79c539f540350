"""Agents get what the API gives: the same hits, limits and silence, over the protocol's own client."""

import asyncio
import base64
import io
import json
import logging
import os
import sys

import pytest
from PIL import Image

from medclip import NOT_CLINICAL
from medclip.data import images as data_images
from medclip.data.dataset import Split
from medclip.errors import WorkError
from medclip.search.reader import IndexReader
from medclip.serve.schemas import MAX_IMAGES, MAX_K, MAX_LABELS, MAX_TEXT_LENGTH, MAX_TEXTS
from support.material import draw_image, image_bytes
from support.served import open_client, service_of

SECRET = "Secretova"


@pytest.fixture(scope="module")
def mcp():
    return pytest.importorskip("mcp", reason="medclip mcp needs the extra [mcp]")


@pytest.fixture(scope="module")
def http(index_folder):
    with open_client(index_folder, warm_up=False) as client:
        yield client


@pytest.fixture
def call(mcp, http):
    """Calls a tool of a server around the service of `http`."""
    from medclip.serve.mcp_server import make_server

    async def ask(name, arguments):
        async with mcp.Client(make_server(service_of(http))) as client:
            return await client.call_tool(name, arguments)

    return lambda name, **arguments: asyncio.run(ask(name, arguments))


def to_base64(content):
    return base64.b64encode(content).decode()


def images(result):
    """The images of a result, which are JPEG files."""
    blocks = [block for block in result.content if block.type == "image"]
    assert all(block.mime_type == "image/jpeg" for block in blocks)
    return [base64.b64decode(block.data) for block in blocks]


def sizes(result):
    """The sizes of the images in a result."""
    return [Image.open(io.BytesIO(image)).size for image in images(result)]


def test_a_search_gives_the_apis_hits_with_their_images(call, http):
    result = call("search", texts=["CT of the left chest"], k=3, filter=["added=2020-01-01.."])
    body = {"queries": [{"texts": ["CT of the left chest"]}], "k": 3, "filter": {"added": ["2020-01-01.."]}}
    assert not result.is_error
    assert result.structured_content == http.post("/search", json=body).json()["results"][0]
    notice, text = (block.text for block in result.content[:2])
    assert notice == NOT_CLINICAL and json.loads(text) == result.structured_content
    assert len(sizes(result)) == 3 and all(max(size) <= 256 for size in sizes(result))


def test_an_image_is_that_of_its_hit_and_a_damaged_one_a_sentence(call, monkeypatch):
    """Two datasets may use one id, as `1`."""
    image = IndexReader._image_or_nothing
    monkeypatch.setattr(IndexReader, "id", lambda reader, row: "1")
    shown = images(call("search", texts=["chest"], k=12))
    assert len(set(shown)) == len(shown) == 10

    def damage_odd_rows(reader, row):
        return b"\xff\xd8\xff" if row % 2 else image(reader, row)

    monkeypatch.setattr(IndexReader, "_image_or_nothing", damage_odd_rows)
    result = call("search", texts=["chest"], k=12)
    assert not result.is_error and 0 < len(images(result)) < 10
    sentences = [block.text for block in result.content if block.type == "text"][2:]
    assert sentences == ["the image of 1: image unreadable."] * (10 - len(images(result)))


def test_images_of_hits_are_decoded_by_workers(call, monkeypatch):
    monkeypatch.setattr(data_images, "_open_image", None)  # of this process alone
    assert len(images(call("search", texts=["chest"], k=3))) == 3


def test_images_are_searched_and_classified_as_content(call, http, data):
    image = image_bytes(draw_image(3))
    result = call("search", texts=["knee"], images=[to_base64(image)], negative_texts=["chest"], group_by="article")
    files, form = [("images", ("x", image))], {"texts": ["knee"], "negative_texts": ["chest"], "group_by": "article"}
    assert result.structured_content == http.post("/search/image", data=form, files=files).json()
    labels = {"labels": ["chest", "knee"]}
    result = call("classify", image=to_base64(image), **labels)
    assert result.structured_content == http.post("/classify", data=labels, files=[("image", ("x", image))]).json()
    id = Split(data, "validation").column("id")[2]
    assert call("similar", id=id, k=2).structured_content == http.get(f"/similar/{id}", params={"k": 2}).json()
    assert call("classify", id=id, **labels).structured_content["best"] in labels["labels"]


def test_an_explanation_is_the_apis(call, http, data):
    split = Split(data, "validation")
    of_index = call("explain", text="chest", id=split.column("id")[2])
    of_upload = call("explain", text="chest", image=to_base64(image_bytes(draw_image(1, (48, 24)))))
    answer = http.post("/explain", data={"text": "chest", "id": split.column("id")[2]})
    assert images(of_index) == [answer.content]
    size = Image.open(io.BytesIO(split.image(2))).size
    assert sizes(of_index) == [size] and sizes(of_upload) == [(48, 24)]
    assert [block.text for block in of_index.content if block.type == "text"] == [NOT_CLINICAL]


@pytest.mark.parametrize(
    ("tool", "arguments", "sentence"),
    [
        ("search", {}, "the query is empty"),
        ("search", {"texts": [f"{SECRET} " * MAX_TEXT_LENGTH]}, "at most 1000 characters"),
        ("search", {"texts": ["x"] * (MAX_TEXTS + 1)}, "at most 32 items"),
        ("search", {"images": [to_base64(b"x")] * (MAX_IMAGES + 1)}, "at most 8 items"),
        ("search", {"texts": [SECRET], "k": MAX_K + 1}, "less than or equal to 100"),
        ("search", {"texts": [SECRET], "filter": ["nothing"]}, "nothing"),
        ("search", {"images": [to_base64(b"no image")]}, "the image: image unreadable."),
        ("search", {"images": ["/etc/passwd"]}, "Base64 decoding error"),
        ("classify", {"labels": ["a"], "id": "x"}, "at least 2 items"),
        ("classify", {"labels": [str(n) for n in range(MAX_LABELS + 1)], "id": "x"}, "at most 64 items"),
        ("classify", {"labels": ["a", "b"]}, "give either an image or the id"),
        ("explain", {"text": SECRET}, "give either an image or the id"),
        ("explain", {"text": SECRET, "id": "none"}, "the index has no such image."),
        ("classify", {"labels": ["a", "b"], "image": ""}, "the image: image unreadable."),
        ("similar", {"id": SECRET}, "the index has no such image."),
        ("search", {"texts": ["x"], "filters": ["modality=CT"]}, "Extra inputs are not permitted"),
        ("classify", {"labels": ["a", "b"], "image_id": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_the_limits_are_the_apis_and_nothing_is_logged(call, caplog, index_folder, tool, arguments, sentence):
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    with caplog.at_level(logging.INFO, "medclip"):
        result = call(tool, **arguments)
    assert result.is_error and sentence in result.content[0].text
    assert str(index_folder) not in result.content[0].text and SECRET not in caplog.text


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (WorkError("the store at 10.0.0.1 is down"), "the index does not answer now"),
        (TimeoutError(), "no answer in time."),
        (RuntimeError(f"/home/x {SECRET}"), "this service failed"),
    ],
)
def test_faults_tell_an_agent_nothing_of_the_machine(call, http, monkeypatch, caplog, error, sentence):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(service_of(http), "similar", fail)
    result = call("similar", id="x")
    assert result.is_error and sentence in result.content[0].text
    assert "10.0.0.1" not in result.content[0].text and "/home" not in result.content[0].text + caplog.text


@pytest.mark.slow
def test_the_command_speaks_over_standard_input_and_output(mcp, index_folder, tmp_path):
    from mcp.client.stdio import StdioServerParameters, stdio_client

    arguments = ["-m", "medclip.cli.main", "mcp", "--index", str(index_folder)]

    async def ask(log):
        server = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
        async with mcp.Client(stdio_client(server, errlog=log)) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            return client.instructions, tools, await client.call_tool("search", {"texts": [SECRET], "k": 2})

    with (tmp_path / "log").open("w") as log:
        instructions, tools, result = asyncio.run(ask(log))
    assert NOT_CLINICAL in instructions and tools == ["search", "similar", "classify", "explain"]
    assert len(result.structured_content["hits"]) == 2 and len(sizes(result)) == 2
    assert SECRET not in (tmp_path / "log").read_text()


def test_without_the_extra_the_command_says_what_to_install(medclip, index_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    code, _, error = medclip("mcp", "--index", index_folder)
    assert code == 2 and "mcp is not installed: pip install" in error and "the extra mcp" in error
