"""The server as clients see it: real HTTP, OpenAI's own client, and upstreams that fail."""

import json
import socket
import threading

import httpx
import openai
import pytest

from inftythink.backends.base import Capabilities
from inftythink.protocol import Policy
from inftythink.serve.app import Settings
from tests.serve.places import FakeServer, reply, scripted, serving, upstream, wait_until
from tests.servers import Fault, in_thread

ASK = [{"role": "user", "content": "What is 6 * 7?"}]
RAW = "<|user|>What is 6 * 7?<|end|><|assistant|>"
SLOW = 60.0
"""Seconds that a client waits: tests run beside other work."""


@pytest.fixture(scope="module")
def fake():
    fake = FakeServer("openai")
    fake.reply = reply
    with in_thread(fake):
        yield fake


@pytest.fixture(scope="module")
def served(fake):
    with serving(upstream(fake.url), settings=Settings(body_limit=20_000, keep_alive=0.1)) as served:
        yield served


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=served.url + "/v1", api_key="any", max_retries=0, timeout=SLOW) as client:
        yield client


def post(served, path="/v1/chat/completions", **body):
    body = {"messages": ASK, **body}
    return httpx.post(served.url + path, json=body, timeout=SLOW)


def events(text):
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


def test_openais_client_gets_the_same_answer_streamed_and_whole(client):
    whole = client.chat.completions.create(model="fake", messages=ASK)
    assert whole.choices[0].message.content == "The answer is 42."
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.completion_tokens > whole.usage.completion_tokens_details.reasoning_tokens > 0
    assert whole.inftythink["rounds"] == 2
    content, reasoning, last = "", "", None
    for chunk in client.chat.completions.create(
        model="fake", messages=ASK, stream=True, stream_options={"include_usage": True}
    ):
        last = chunk
        for choice in chunk.choices:
            content += choice.delta.content
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
    assert content == whole.choices[0].message.content
    assert reasoning == whole.choices[0].message.reasoning_content
    assert "--- round 2 ---" in reasoning
    assert last.usage == whole.usage
    assert last.inftythink["rounds"] == 2


async def test_the_async_client_streams_responses(served):
    async with openai.AsyncOpenAI(base_url=served.url + "/v1", api_key="any", timeout=SLOW) as client:
        seen = {}
        async for event in await client.responses.create(model="fake", input="What is 6 * 7?", stream=True):
            seen[event.type] = event
        done = seen["response.completed"].response
        assert done.output_text == "The answer is 42."
        assert [item.type for item in done.output] == ["reasoning", "reasoning", "message"]
        assert done.output[0].summary[0].text == "x is 6."
        whole = await client.responses.create(model="fake", input="What is 6 * 7?")
        assert [item.model_dump(exclude={"id"}) for item in whole.output] == [
            item.model_dump(exclude={"id"}) for item in done.output
        ]


def test_several_choices_and_a_small_budget(client):
    two = client.chat.completions.create(model="fake", messages=ASK, n=2)
    assert [choice.message.content for choice in two.choices] == ["The answer is 42."] * 2
    assert len(two.inftythink["choices"]) == 2
    small = client.chat.completions.create(model="fake", messages=ASK, max_tokens=20)
    assert small.choices[0].finish_reason == "length"
    assert small.usage.completion_tokens <= 20
    assert small.choices[0].message.content is not None


def test_models_health_and_metrics(client, served):
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").owned_by == "inftythink"
    assert httpx.get(served.url + "/health").json()["status"] == "ok"
    post(served)
    text = httpx.get(served.url + "/metrics").text
    assert 'inftythink_requests_total{endpoint="chat",status="200"}' in text
    assert "inftythink_in_flight 0.0" in text
    assert 'inftythink_trajectories_total{outcome="answered"}' in text


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"messages": NaN}', "application/json", 400),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "application/json", 400),
        (b"[" * 5000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b'{"messages": "' + b"x" * 30_000 + b'"}', "application/json", 413),
    ],
)
def test_what_is_no_request_gets_openais_error_object(served, content, kind, status):
    answer = httpx.post(
        served.url + "/v1/chat/completions", content=content, headers={"Content-Type": kind}, timeout=SLOW
    )
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_paths_and_methods_that_are_not_there(served):
    assert httpx.get(served.url + "/v1/chat/completions").status_code == 405
    assert httpx.get(served.url + "/nothing").json()["error"]["type"] == "not_found_error"
    assert post(served, logprobs=True).json()["error"]["param"] == "logprobs"


def test_tools_and_raw_completions_are_passed_through(served, fake):
    answer = post(served, tools=[{"type": "function", "function": {"name": "f"}}], inftythink={"eta": 3})
    assert answer.status_code == 200
    assert fake.requests[-1]["tools"]
    assert "inftythink" not in fake.requests[-1]
    assert answer.json()["choices"][0]["message"]["content"].startswith("thinking")
    raw = httpx.post(served.url + "/v1/completions", json={"prompt": RAW, "max_tokens": 9}, timeout=SLOW)
    assert raw.json()["choices"][0]["text"]
    assert fake.paths[-1] == "/v1/completions"
    streamed = httpx.post(served.url + "/v1/completions", json={"prompt": RAW, "stream": True}, timeout=SLOW)
    assert events(streamed.text)[-1] == "[DONE]"


def test_a_silent_stream_gets_comments(served, fake):
    fake.token_seconds = 0.01
    try:
        answer = post(served, stream=True, reasoning_field="none")
    finally:
        fake.token_seconds = 0.0
    assert answer.text.startswith(": ")
    assert events(answer.text)[-1] == "[DONE]"


def test_a_client_that_leaves_stops_the_work(served, fake):
    fake.token_seconds = 0.05
    try:
        for streamed in (True, False):
            sock = socket.create_connection(("127.0.0.1", int(served.url.rsplit(":", 1)[1])))
            body = json.dumps({"messages": ASK, "stream": streamed}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            sock.sendall((head + "Content-Type: application/json\r\n\r\n").encode() + body)
            wait_until(lambda: fake.open == 1, SLOW)
            sock.close()
            wait_until(lambda: fake.open == 0 and served.busy == 0, SLOW)
    finally:
        fake.token_seconds = 0.0


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=500),
        Fault("status", status=429, body="{}"),
        Fault("garbage", body="<html>"),
        Fault("drop"),
        Fault("reset"),
        Fault("error"),
        Fault("eof"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
@pytest.mark.parametrize("streamed", [True, False])
def test_what_an_upstream_does_wrong_is_an_error_and_frees_everything(served, fake, fault, streamed):
    fake.faults.append(fault)
    answer = post(served, stream=streamed)
    if streamed and answer.status_code == 200:  # it had begun
        assert events(answer.text)[-1] == "[DONE]"
        error = json.loads(events(answer.text)[-2])["error"]
    else:
        assert answer.status_code == 502
        error = answer.json()["error"]
    assert error["code"] == "upstream_failed"
    assert fake.url not in answer.text
    wait_until(lambda: served.busy == 0 and fake.open == 0, SLOW)
    served.server.pool.upstreams[0].worked()


def test_a_failed_response_says_so(client, fake):
    fake.faults.append(Fault("reset"))
    seen = [event.type for event in client.responses.create(model="fake", input="hi", stream=True)]
    assert seen[0] == "response.created"
    assert seen[-1] == "response.failed"


def test_another_upstream_takes_over_and_the_ill_one_comes_back():
    ill, well = FakeServer("openai"), FakeServer("openai")
    ill.reply = well.reply = reply
    with in_thread(ill), in_thread(well), serving(upstream(ill.url, "a"), upstream(well.url, "b")) as served:
        pool = served.server.pool
        ill.faults.extend([Fault("status", status=500)] * 9)
        for _ in range(4):
            assert post(served).json()["choices"][0]["message"]["content"] == "The answer is 42."
        assert len(well.requests) >= 12  # three calls each
        ill.faults.clear()
        pool.upstreams[0].failed(fatal=True)
        wait_until(lambda: len(pool.healthy()) == 2, SLOW)


def test_keys_hosts_and_pages():
    settings = Settings(keys=("secret", "other"), origins=("https://chat.example",))
    with serving(scripted(lambda _: "a</think>\n\nb"), settings=settings) as served:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
            answer = httpx.get(served.url + "/v1/models", headers=header)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        key = {"Authorization": "Bearer other", "Origin": "https://chat.example"}
        answer = httpx.get(served.url + "/v1/models", headers=key)
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        assert httpx.get(served.url + "/health").status_code == 200
        assert httpx.get(served.url + "/metrics").status_code == 401


def test_what_is_too_much_waits_or_is_refused_and_a_stop_ends_streams():
    replies = lambda _: "thought</think>\n\nanswer"  # noqa: E731
    settings = Settings(slots=1, queue=1, local=True)
    with serving(scripted(replies, latency=3600.0), settings=settings) as served:
        assert httpx.get(served.url + "/v1/models", headers={"Host": "evil.example"}).status_code == 403
        assert "access-control-allow-origin" not in httpx.get(served.url + "/v1/models").headers
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(post(served))) for _ in range(2)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_until(lambda number=number: served.busy == number, SLOW)
        refused = post(served)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        served.stop()
        for thread in threads:
            thread.join(SLOW)
        assert [answer.json()["error"]["code"] for answer in answers] == ["shutting_down"] * 2
    assert served.busy == 0


def test_a_model_in_this_process_refuses_what_needs_a_server_and_what_it_cannot_do():
    able = Capabilities(prefill=False, token_ids=False, logprobs=False)
    policy = Policy(eta=5, gamma=5, phi=2)
    settings = Settings(refuse=lambda question: "only sums" if "sum" not in question else None, timeout=0.2)
    source = scripted(lambda request: "four", "two_call", policy, capabilities=able)
    with serving(source, settings=settings) as served:
        assert post(served).json()["error"]["message"] == "only sums"
        ask = [{"role": "user", "content": "the sum of 2 and 2?"}]
        assert post(served, messages=ask).json()["choices"][0]["message"]["content"] == "four"
        assert post(served, messages=ask, inftythink={"carry": "summary"}).status_code == 400
        assert post(served, messages=ask, tools=[{}]).status_code == 400
        source.reasoner.backend._latency = 3600.0
        assert post(served, messages=ask).status_code == 504
