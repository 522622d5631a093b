"""Requests of any kind: what the description promises is true, and nothing that is sent makes the server fail.

``INFTYTHINK_REQUESTS=10000`` sends more of the broken and strange ones than a test run does.
"""

import asyncio
import json
import os
import re

import httpx
import jsonschema_rs
import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from inftythink.protocol import Policy
from inftythink.serve.schema import openapi
from inftythink.serve.wire import Offer
from tests.serve.mutations import mutated, send
from tests.serve.places import scripted, serving, wait_until
from tests.serve.raw import END, STREAM, RawServer, event
from tests.serve.test_cli import Process
from tests.servers import in_thread

SLOW = 60.0
"""Seconds that a client waits: tests run beside other work."""
COUNT = int(os.environ.get("INFTYTHINK_REQUESTS", "400"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
PATHS = openapi(Offer(model="m"))["paths"]
CASES = [(path, GenerationMode.POSITIVE) for path in PATHS]
CASES += [(path, GenerationMode.NEGATIVE) for path in PATHS if "post" in PATHS[path]]


@pytest.fixture(scope="module")
def served():
    with serving(scripted(lambda _: "thought</think>\n\nanswer", policy=Policy(eta=9, gamma=9, phi=2))) as served:
        yield served


@pytest.mark.parametrize(("path", "mode"), CASES, ids=[f"{path}-{mode.value}" for path, mode in CASES])
def test_the_description_is_true(served, path, mode):
    operation = next(iter(schemathesis.openapi.from_url(served.url + "/openapi.json")[path].values()))
    session = requests.Session()

    @some(COUNT // 20)
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case):
        case.call_and_validate(checks=CHECKS, session=session)

    holds()
    wait_until(lambda: served.busy == 0 and not served.server.streams, SLOW)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["positive", "negative"])
@pytest.mark.parametrize(("path", "question"), [("/v1/chat/completions", "messages"), ("/v1/responses", "input")])
def test_what_is_described_is_what_is_accepted(served, path, question, mode):
    """With a question that can be answered, so that the other fields decide."""
    described = openapi(served.server.offer)
    schema = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    passed = jsonschema_rs.validator_for(schema["anyOf"].pop())
    fits = jsonschema_rs.validator_for(schema)
    operation = schemathesis.openapi.from_dict(described)[path]["POST"]
    session, seen = requests.Session(), set()

    @some(COUNT // 10)
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case):
        assume(isinstance(case.body, dict))
        body = case.body | {question: [{"role": "user", "content": "hello"}]}
        answer = session.post(served.url + path, json=body, timeout=SLOW)
        if answer.status_code == 400 and answer.json()["error"]["param"] == "inftythink":
            return  # limits that each are right, and together allow no round
        assert (answer.status_code == 200) == (fits.is_valid(body) and not passed.is_valid(body)), answer.text
        seen.add(answer.status_code)

    holds()
    # A broken question is mended above, so that what is broken may be answered; it need not.
    assert seen == {200} if mode is GenerationMode.POSITIVE else 400 in seen


def some(examples):
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def test_a_request_with_every_field_fits_the_description_and_is_answered(served):
    described = httpx.get(served.url + "/openapi.json").json()
    assert described == openapi(served.server.offer)
    own = described["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = own["anyOf"][0]["properties"]
    values = {name: _least(field) for name, field in fields.items() if name != "messages"}
    body = values | {"messages": [{"role": "user", "content": "hello"}], "stream": False}
    assert httpx.post(served.url + "/v1/chat/completions", json=body, timeout=SLOW).status_code == 200


def _least(field):
    """The first or smallest value that a field allows."""
    for schema in field.get("anyOf", [field]):
        if "enum" in schema:
            return schema["enum"][0]
        if "minimum" in schema:
            return schema["minimum"]
        if schema.get("type") == "object":
            return {name: _least(each) for name, each in schema["properties"].items()}
        if schema.get("type") == "array":
            return [_least(schema["items"])] * schema.get("minItems", 0)
        if schema.get("type") in ("boolean", "string"):
            return {"boolean": False, "string": ""}[schema["type"]]
    return None


def test_no_request_makes_the_server_fail_or_leaves_anything_behind():
    raw = RawServer([STREAM, event("42"), END])
    with in_thread(raw), Process("--upstream", raw.url, "--eta", "64", "--gamma", "32") as served:
        host, port = re.search(r"//(.*):(\d+)/", served.url).groups()
        process = psutil.Process(served.process.pid)
        asyncio.run(send_all(host, int(port), range(COUNT // 2)))
        descriptors, memory = process.num_fds(), process.memory_info().rss
        seen = asyncio.run(send_all(host, int(port), range(COUNT // 2, COUNT)))
        assert {200, 400, 404, 405, 415} <= set(seen)
        assert served.process.poll() is None
        wait_until(lambda: raw.open == 0, SLOW)
        figures = httpx.get(served.url.removesuffix("/v1") + "/metrics").text
        assert "inftythink_in_flight 0.0" in figures
        assert "inftythink_waiting 0.0" in figures
        wait_until(lambda: process.num_fds() <= descriptors, SLOW)
        assert process.memory_info().rss - memory < 30 * 2**20
        log = "".join(served.lines)
        # Uvicorn answers a body with broken framing itself, and then is surprised by the answer of the application.
        assert log.count("Traceback") == log.count("h11._util.LocalProtocolError"), log[log.find("Traceback") :][:5000]
        assert "this is a bug" not in log


async def send_all(host, port, seeds):
    """Send the requests of seeds, eight at once; count the statuses."""
    seen, left = {}, iter(seeds)

    async def work():
        for seed in left:
            answer = await send(host, port, mutated(seed), 1.0)
            found = re.match(rb"HTTP/1\.\d (\d{3})", answer)
            status = int(found[1]) if found else 0
            seen[status] = seen.get(status, 0) + 1
            assert status < 500, (seed, mutated(seed).data[:2000], answer[:2000])
            if status == 200 and b"event-stream" in answer:
                assert b"internal_error" not in answer, seed
            elif status >= 400 and b"application/json" in answer:
                error = json.loads(answer.partition(b"\r\n\r\n")[2] or b'{"error": {}}')["error"]
                assert error.get("code") != "internal_error", seed

    await asyncio.gather(*(work() for _ in range(8)))
    return seen
