"""A model in the server's own process that has failed for good: the server says so, and answers nothing."""

from __future__ import annotations

import httpx

from inftythink.errors import BackendFatalError
from tests.serve.places import scripted, serving

BODY = {"messages": [{"role": "user", "content": "What is x?"}]}


def test_a_model_that_has_died_is_not_taken_for_healthy() -> None:
    replies = iter(["</think>6", BackendFatalError("the engine has died")])
    with serving(scripted(replies)) as served:
        ask, health = served.url + "/v1/chat/completions", served.url + "/health"
        assert httpx.post(ask, json=BODY, timeout=30).status_code == 200
        assert httpx.get(health).status_code == 200
        died = httpx.post(ask, json=BODY, timeout=30)
        assert died.status_code == 502
        assert "the engine has died" in died.json()["error"]["message"]
        assert httpx.get(health).status_code == 503
        assert httpx.post(ask, json=BODY, timeout=30).status_code == 503
