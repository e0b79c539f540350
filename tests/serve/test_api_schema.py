"""What the schema says is what happens: schemathesis asks what it allows, and what it does not."""

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from support.served import running

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
OPERATIONS = {
    ("POST", "/search"), ("POST", "/search/image"), ("GET", "/similar/{id}"), ("POST", "/classify"), ("POST", "/embed"),
    ("POST", "/embed/image"), ("GET", "/thumbnails/{id}"), ("GET", "/facets"), ("GET", "/"), ("GET", "/health"),
    ("GET", "/ready"), ("GET", "/metrics"),
}  # fmt: skip
WITHOUT_ARGUMENTS = {("GET", path) for path in ("/", "/facets", "/health", "/ready", "/metrics")}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(index_folder, tmp_path_factory):
    with running(index_folder, tmp_path_factory.mktemp("schema") / "log") as served:
        yield served.url
        assert "Error" not in served.said()


@pytest.fixture(scope="module")
def schema(url):
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.fixture(scope="module")
def session():
    with requests.Session() as session:
        yield session


def test_every_operation_is_described(schema):
    told = {(method.upper(), path) for path, of in schema.raw_schema["paths"].items() for method in of}
    assert told == OPERATIONS
    for of in schema.raw_schema["paths"].values():
        for said in of.values():
            assert said["description"] and {"413", "422", "503", "504"} <= said["responses"].keys()


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        (*operation, mode)
        for operation in sorted(OPERATIONS)
        for mode in GenerationMode
        if mode == GenerationMode.POSITIVE or operation not in WITHOUT_ARGUMENTS
    ],
)
def test_nothing_that_can_be_asked_is_a_fault(url, schema, session, method, path, mode):
    @settings(max_examples=25, deadline=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(schema[path][method].as_strategy(generation_mode=mode))
    def ask(case):
        case.call_and_validate(base_url=url, session=session, checks=CHECKS)

    ask()
