"""The service behaves as its schema says: schemathesis sends what it allows, and what it does not."""

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from support.served import start_server

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
OPERATIONS = {
    ("POST", "/search"), ("POST", "/search/image"), ("GET", "/similar/{id}"), ("POST", "/classify"),
    ("POST", "/explain"), ("POST", "/embed"), ("POST", "/embed/image"), ("GET", "/thumbnails/{id}"), ("GET", "/facets"),
    ("GET", "/"), ("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"),
}  # fmt: skip
WITHOUT_ARGUMENTS = {("GET", path) for path in ("/", "/facets", "/health", "/ready", "/metrics")}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(index_folder, tmp_path_factory):
    with start_server(index_folder, tmp_path_factory.mktemp("schema") / "log") as server:
        yield server.url
        assert "Error" not in server.log()


@pytest.fixture(scope="module")
def schema(url):
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.fixture(scope="module")
def session():
    with requests.Session() as session:
        yield session


def test_every_operation_is_described(schema):
    paths = schema.raw_schema["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == OPERATIONS
    for methods in paths.values():
        for operation in methods.values():
            assert operation["description"] and {"413", "422", "503", "504"} <= operation["responses"].keys()


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        (*operation, mode)
        for operation in sorted(OPERATIONS)
        for mode in GenerationMode
        if mode == GenerationMode.POSITIVE or operation not in WITHOUT_ARGUMENTS
    ],
)
def test_no_request_causes_a_server_error(url, schema, session, method, path, mode):
    @settings(max_examples=25, deadline=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(schema[path][method].as_strategy(generation_mode=mode))
    def send(case):
        case.call_and_validate(base_url=url, session=session, checks=CHECKS)

    send()
