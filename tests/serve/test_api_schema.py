"""What the schema says is what happens: schemathesis asks whatever it allows, and what it does not."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from served import opened

from medclip.serve.api import create
from medclip.serve.service import Settings

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OPERATIONS = {
    ("POST", "/search"), ("POST", "/search/image"), ("GET", "/similar/{id}"), ("POST", "/classify"), ("POST", "/embed"),
    ("POST", "/embed/image"), ("GET", "/thumbnails/{id}"), ("GET", "/facets"), ("GET", "/"), ("GET", "/health"),
    ("GET", "/ready"), ("GET", "/metrics"),
}  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(index_folder):
    with opened(index_folder) as client:
        yield client


@pytest.fixture(scope="module")
def described(client):
    return client.get("/openapi.json").json()


def test_every_operation_is_described(described):
    told = {(method.upper(), path) for path, of in described["paths"].items() for method in of}
    assert told == OPERATIONS
    for of in described["paths"].values():
        for said in of.values():
            assert said["summary"] and said["description"] and {"413", "422", "503", "504"} <= said["responses"].keys()


@pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS))
def test_nothing_that_can_be_asked_is_a_fault(client, described, method, path):
    operation = schemathesis.openapi.from_dict(described)[path][method]
    for generation in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):

        def ask(case):
            answer = client.request(**_of(case))
            case.validate_response(_for_schemathesis(answer, case), checks=CHECKS)

        strategy = operation.as_strategy(generation_mode=generation)
        from hypothesis import given

        given(strategy)(
            settings(
                max_examples=15,
                deadline=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )(ask)
        )()
