"""What the HTTP backend does when servers misbehave, and what it sends to which engine."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.backends._assemble import Assembler, StopCutter
from inftythink.backends._http import split_url
from inftythink.backends._retry import Retry, retried, retry_after
from inftythink.backends._sse import Event, Parser
from inftythink.backends._wire import Piece
from inftythink.backends.base import Delta, Request, Sampling
from inftythink.backends.openai import OpenAI
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError, ProtocolError, UsageError
from inftythink.protocol.types import Completion, Part, PartKind, Prompt, Stop, Turn
from tests.backends.conformance import GREEDY, ask, collect, prompt
from tests.servers import ByteRenderer, FakeServer, Fault, answer, encode, reply

QUICK = Retry(attempts=4, first=0.001, longest=0.002)
QUESTION = "How far is it?"
ANSWER = reply(QUESTION)


@asynccontextmanager
async def opened(server: FakeServer, **options: Any) -> AsyncIterator[OpenAI]:
    backend = OpenAI(server.url, **{"retry": QUICK} | options)
    await backend.start()
    server.requests.clear()
    try:
        yield backend
    finally:
        await backend.aclose()


def error(message: str, code: str | int = "bad_request", **more: Any) -> str:
    return json.dumps({"error": {"message": message, "code": code, **more}})


class TestRetries:
    @pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_status_that_may_pass_is_tried_again(self, status: int, streamed: bool) -> None:
        async with FakeServer() as server, opened(server) as backend:
            server.faults += [Fault("status", status), Fault("status", status)]
            request = ask(QUESTION, 9)
            completion = (await collect(backend, request))[1] if streamed else await backend.complete(request)
            assert ANSWER.startswith(completion.text)
            assert len(server.requests) == 3

    @pytest.mark.parametrize("status", [400, 405, 418, 422])
    async def test_a_status_that_will_not_pass_is_not(self, status: int) -> None:
        async with FakeServer() as server, opened(server) as backend:
            server.faults.append(Fault("status", status, error("your fault")))
            with pytest.raises(BackendError, match=f"HTTP {status}: your fault") as caught:
                await backend.complete(ask(QUESTION))
            assert type(caught.value) is BackendError
            assert len(server.requests) == 1

    async def test_the_last_error_names_url_status_message_and_attempts(self) -> None:
        async with FakeServer() as server, opened(server) as backend:
            server.faults += [Fault("status", 503, error("overloaded")) for _ in range(4)]
            with pytest.raises(BackendError) as caught:
                await backend.complete(ask(QUESTION))
            for part in (f"{server.url}/chat/completions", "HTTP 503", "overloaded", "4 attempts"):
                assert part in str(caught.value)
            assert len(server.requests) == 4
            assert (await backend.complete(ask(QUESTION, 3))).completion_tokens == 3

    @pytest.mark.parametrize("kind", ["drop", "reset", "eof"])
    async def test_a_broken_connection_is_tried_again_while_nothing_was_handed_out(self, kind: str) -> None:
        async with FakeServer("openai") as server, opened(server) as backend:
            server.faults.append(Fault(kind, after=0))
            deltas, last = await collect(backend, ask(QUESTION, 9))
            assert "".join(delta.text for delta in deltas) == last.text
            assert ANSWER.startswith(last.text)
            # complete() streams here, since a stop string is asked for, but hands nothing out before its end.
            server.faults.append(Fault(kind, after=5))
            stop = ANSWER[6:9]
            completion = await backend.complete(ask(QUESTION, 40, stop=(stop,)))
            assert completion.text == ANSWER[: ANSWER.index(stop) + 3]

    @pytest.mark.parametrize("kind", ["reset", "eof", "error"])
    async def test_a_stream_that_breaks_after_text_was_handed_out_fails(self, kind: str) -> None:
        async with FakeServer() as server, opened(server) as backend:
            server.faults.append(Fault(kind, after=4))
            seen: list[str] = []

            async def read() -> None:
                async for item in backend.stream(ask(QUESTION, 20)):
                    assert isinstance(item, Delta)
                    seen.append(item.text)

            with pytest.raises(BackendError, match="not tried again"):
                await read()
            assert ANSWER.startswith("".join(seen))
            assert len(server.requests) == 1
            assert (await backend.complete(ask(QUESTION, 3))).completion_tokens == 3

    async def test_an_error_inside_a_stream_is_read(self) -> None:
        async with FakeServer() as server, opened(server) as backend:
            server.faults.append(Fault("error", body=error("engine died", 500), after=0))
            assert (await collect(backend, ask(QUESTION, 3)))[1].completion_tokens == 3
            server.faults.append(Fault("error", body=error("maximum context length is 8", "x"), after=0))
            with pytest.raises(ContextTooLongError):
                await collect(backend, ask(QUESTION, 3))
            server.faults.append(Fault("error", body=error("bad prompt", 400), after=0))
            with pytest.raises(BackendError, match="bad prompt"):
                await collect(backend, ask(QUESTION, 3))

    async def test_a_silent_server_times_out(self) -> None:
        async with FakeServer() as server, opened(server, timeout=0.2) as backend:
            server.faults.append(Fault("stall"))
            assert (await backend.complete(ask(QUESTION, 3))).completion_tokens == 3
            server.faults += [Fault("stall", after=0) for _ in range(4)]
            with pytest.raises(BackendError, match="time-out"):
                await collect(backend, ask(QUESTION, 3))
            assert await server.idle()

    async def test_the_wait_that_a_server_asks_for_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waits: list[float] = []
        sleep = asyncio.sleep

        async def slept(seconds: float) -> None:
            waits.append(seconds)
            await sleep(0)

        async with FakeServer() as server, opened(server) as backend:
            server.faults.append(Fault("status", 429, headers={"Retry-After": "7"}))
            server.faults.append(Fault("status", 429, headers={"retry-after-ms": "40000"}))
            monkeypatch.setattr("inftythink.backends.openai.asyncio.sleep", slept)
            await backend.complete(ask(QUESTION, 3))
        assert [round(wait) in allowed for wait, allowed in zip(waits, [(7, 8), (40, 41)], strict=False)] == [True] * 2

    def test_retry_after_is_read_in_all_its_forms(self) -> None:
        now = datetime(2026, 1, 1, tzinfo=timezone.utc)
        assert retry_after({"Retry-After": "3.5"}) == 3.5
        assert retry_after({"retry-after-ms": "250", "Retry-After": "9"}) == 0.25
        assert retry_after({"Retry-After": format_datetime(now + timedelta(seconds=30))}, now) == 30
        assert retry_after({"Retry-After": format_datetime(now - timedelta(seconds=30))}, now) == 0
        told = {"Retry-After": format_datetime(now + timedelta(days=9)), "Date": format_datetime(now)}
        assert retry_after(told, now) == 9 * 86400
        assert retry_after(told, now + timedelta(days=99)) == 9 * 86400  # by the server's clock, not by ours
        assert retry_after(told | {"Date": "today"}, now) == 9 * 86400
        for text in ("soon", "", "-1", "nan", "inf"):
            assert retry_after({"Retry-After": text}) is None
        assert retry_after({}) is None

    @given(st.integers(1, 60), st.none() | st.floats(0, 1e6))
    def test_waits_are_bounded(self, attempt: int, told: float | None) -> None:
        retry = Retry(first=0.5, longest=20, patience=120)
        wait = retry.wait(attempt, told)
        assert 0 <= wait <= 121
        if told is None:
            assert wait <= 20
        else:
            assert wait >= min(told, 120)

    def test_what_is_retried(self) -> None:
        assert [status for status in range(400, 600) if retried(status)] == [408, 409, 429, *range(500, 600)]


class TestErrors:
    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_refused_key_is_fatal_and_says_which_variable_to_set(self, status: int) -> None:
        async with FakeServer() as server, opened(server) as backend:
            server.faults.append(Fault("status", status, error("no")))
            with pytest.raises(BackendFatalError, match="OPENAI_API_KEY"):
                await backend.complete(ask(QUESTION))
            server.model_faults.append(Fault("status", status, error("no")))
            with pytest.raises(BackendFatalError, match="INFTYTHINK_API_KEY"):
                await OpenAI(server.url).start()

    async def test_the_key_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with FakeServer() as server:
            server.key = "secret"
            async with opened(server, api_key="secret") as backend:
                assert (await backend.complete(ask(QUESTION, 2))).completion_tokens == 2
            monkeypatch.setenv("OPENAI_API_KEY", "other")
            monkeypatch.setenv("INFTYTHINK_API_KEY", "secret")
            async with opened(server) as backend:
                assert (await backend.complete(ask(QUESTION, 2))).completion_tokens == 2
            monkeypatch.delenv("INFTYTHINK_API_KEY")
            with pytest.raises(BackendFatalError, match="refuses the key"):
                await OpenAI(server.url).start()

    @pytest.mark.parametrize("renderer", [None, ByteRenderer()])
    async def test_an_unknown_model_is_fatal_and_lists_those_there_are(self, renderer: ByteRenderer | None) -> None:
        async with FakeServer(models=("small", "large")) as server:

            async def use() -> None:
                # With a renderer the start asks for a token, without one the first request finds out.
                async with opened(server, model="huge", renderer=renderer) as backend:
                    await backend.complete(ask(QUESTION))

            with pytest.raises(BackendFatalError, match=r"does not exist.*'huge'.*small, large"):
                await use()

    async def test_several_models_need_a_choice(self) -> None:
        async with FakeServer(models=("small", "large")) as server:
            with pytest.raises(BackendFatalError, match="small, large"):
                await OpenAI(server.url).start()
            async with opened(server, model="large") as backend:
                assert "large" in backend.name
                await backend.complete(ask(QUESTION, 2))
                assert server.requests[0]["model"] == "large"

    async def test_nothing_listens(self) -> None:
        async with FakeServer() as server:
            url = server.url
        backend = OpenAI(url, "m", retry=QUICK)
        with pytest.raises(BackendFatalError, match=r"nothing listens.*vllm serve MODEL --port"):
            await backend.start()
        await backend.aclose()

    async def test_a_server_that_goes_away_is_fatal_after_the_attempts(self) -> None:
        async with FakeServer() as server:
            backend = OpenAI(server.url, retry=QUICK)
            await backend.start()
        with pytest.raises(BackendFatalError, match=r"nothing listens.*4 attempts"):
            await backend.complete(ask(QUESTION))
        await backend.aclose()

    @pytest.mark.parametrize(
        "body",
        [
            error("This model's maximum context length is 8192 tokens. However, you requested 9000 tokens", 400),
            error("too long", "context_length_exceeded"),
            error("request (9412 tokens) exceeds the available context size", 400, type="exceed_context_size_error"),
            json.dumps({"object": "error", "message": "The input (61709 tokens) is longer than the model's context "
                        "length (40960 tokens).", "type": "BadRequestError", "code": 400}),
            json.dumps({"object": "error", "message": "Requested token count exceeds the model's maximum context "
                        "length of 40960 tokens.", "type": "BadRequestError", "code": 400}),
            error("The decoder prompt (length 9000) is longer than the maximum model length of 8192.", 400),
        ],
    )  # fmt: skip
    async def test_the_wordings_of_too_long(self, body: str) -> None:
        async with FakeServer() as server, opened(server) as backend:
            server.faults.append(Fault("status", 400, body))
            with pytest.raises(ContextTooLongError, match="Ask for fewer tokens"):
                await backend.complete(ask(QUESTION))
            assert len(server.requests) == 1

    async def test_what_cannot_fit_is_not_sent_when_the_context_is_known(self) -> None:
        async with FakeServer(context=100) as server, opened(server, renderer=ByteRenderer()) as backend:
            assert backend.context == 100
            with pytest.raises(ContextTooLongError, match="max_tokens 90"):
                await backend.complete(ask(QUESTION, 90))
            assert not server.requests
            assert (await backend.complete(ask(QUESTION, 70))).completion_tokens == 70

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("<html>Gateway</html>", "<html>Gateway"),
            ("", "did not answer with JSON"),
            ("[1, 2]", "not answer with a JSON object"),
            ('{"choices": []}', "no choices"),
            ('{"object": "chat.completion"}', "no choices"),
            ('{"choices": [{"message": {"content": 3}}]}', "text expected"),
            ('{"choices": ["x"]}', "cannot be read"),
            ("x" * 5000, "x" * 200),
        ],
    )
    async def test_garbage_with_status_200(self, body: str, said: str) -> None:
        async with FakeServer() as server, opened(server) as backend:
            server.faults.append(Fault("garbage", body=body))
            with pytest.raises(BackendError, match=said.replace("[", r"\[")) as caught:
                await backend.complete(ask(QUESTION))
            assert len(str(caught.value)) < 500
            assert server.url in str(caught.value)
            assert len(server.requests) == 1

    async def test_a_models_list_that_is_garbage(self) -> None:
        async with FakeServer() as server:
            for body in ("<html>", '{"data": 3}', '{"data": [{"name": "x"}]}', "[]"):
                server.model_faults.append(Fault("status", 200, body))
                with pytest.raises(BackendFatalError, match="models"):
                    await OpenAI(server.url).start()
            server.model_faults.append(Fault("status", 404, "none"))
            async with opened(server, model="fake") as backend:  # a server without a list
                assert (await backend.complete(ask(QUESTION, 2))).completion_tokens == 2

    def test_settings_that_cannot_work(self) -> None:
        with pytest.raises(UsageError, match="needs a renderer"):
            OpenAI("http://localhost", mode="completions")
        for url in ("localhost:8000", "", "ftp://x", "http://"):
            with pytest.raises(UsageError, match="no address"):
                OpenAI(url)
        with pytest.raises(UsageError, match="max_connections"):
            OpenAI("http://localhost", max_connections=0)

    async def test_a_request_before_start_is_our_own_mistake(self) -> None:
        with pytest.raises(ProtocolError, match="start"):
            await OpenAI("http://localhost").complete(ask(QUESTION))

    def test_the_base_url_may_leave_v1_out(self) -> None:
        assert split_url("http://h:8000") == ("http://h:8000/v1", "http://h:8000")
        assert split_url("http://h:8000/v1/") == ("http://h:8000/v1", "http://h:8000")
        assert split_url("https://h/api/v3")[0] == "https://h/api/v3"


class TestFinish:
    @pytest.mark.parametrize(
        ("reason", "stop"),
        [("stop", Stop.STOP), ("eos", Stop.STOP), ("tool_calls", Stop.STOP), ("length", Stop.LENGTH),
         ("abort", Stop.ABORT), ("error", Stop.ABORT), ("content_filter", Stop.ABORT), ("odd", Stop.ABORT)],
    )  # fmt: skip
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_finish_reasons(self, reason: str, stop: Stop, streamed: bool) -> None:
        async with FakeServer("openai") as server, opened(server) as backend:
            server.faults.append(Fault("choice", choice={"finish_reason": reason}))
            request = ask(QUESTION, 6)
            completion = (await collect(backend, request))[1] if streamed else await backend.complete(request)
            assert completion.stop is stop
            assert completion.text
            assert (completion.error is None) == (stop is not Stop.ABORT)
            assert completion.error is None or reason in completion.error

    async def test_a_stream_that_ends_without_a_reason_is_abort(self) -> None:
        async with FakeServer("openai") as server, opened(server) as backend:
            server.faults.append(Fault("choice", choice={"finish_reason": None}))
            completion = (await collect(backend, ask(QUESTION, 6)))[1]
            assert completion.stop is Stop.ABORT
            assert "finish_reason" in (completion.error or "")

    async def test_null_content_on_truncation_is_length(self) -> None:
        async with FakeServer("openai") as server, opened(server) as backend:
            server.reasoning = "reasoning_content"
            completion = await backend.complete(ask(QUESTION, 6))
            assert (completion.text, completion.stop) == ("", Stop.LENGTH)
            assert ANSWER.startswith(completion.reasoning or "?")

    @pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
    @pytest.mark.parametrize("flavour", ["vllm", "openai", "llamacpp"])
    async def test_thoughts_in_a_field_of_their_own(self, name: str, flavour: str) -> None:
        async with FakeServer(flavour) as server, opened(server) as backend:
            server.reasoning = name
            request = ask("Repeat: let me see 🙂</think>It is four.", 200)
            whole = await backend.complete(request)
            deltas, last = await collect(backend, request)
            for completion in (whole, last):
                assert completion.reasoning == "let me see 🙂"
                assert completion.text == "It is four."
                assert completion.stop is Stop.STOP
            assert "".join(delta.reasoning for delta in deltas) == last.reasoning
            assert "".join(delta.text for delta in deltas) == last.text
            stopped = await backend.complete(ask(request.prompt.turns[0].text, 200, stop=("is",)))
            assert (stopped.reasoning, stopped.text, stopped.stop_text) == ("let me see 🙂", "It is", "is")

    async def test_a_stop_string_inside_the_thought_stays_there(self) -> None:
        async with FakeServer("vllm") as server, opened(server) as backend:
            server.reasoning = "reasoning"
            completion = await backend.complete(ask("Repeat: let me see</think>It is four.", 200, stop=("see",)))
            assert (completion.reasoning, completion.text, completion.stop_text) == ("let me see", "", "see")
            assert completion.stop is Stop.STOP


class TestRequests:
    async def test_vllm_gets_its_fields(self) -> None:
        async with FakeServer("vllm") as server, opened(server, renderer=ByteRenderer()) as backend:
            sampling = Sampling(0.5, 0.9, 40, 7, logprobs=True)
            await backend.complete(Request(prompt(QUESTION, "Well"), 8, ("a", ""), sampling))
            body = server.requests[0]
            assert server.paths[-1] == "/v1/completions"
            assert body["prompt"] == ByteRenderer().ids(prompt(QUESTION, "Well"))
            wanted = {"max_tokens": 8, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "seed": 7, "logprobs": 0}
            wanted |= {"stop": ["a"], "return_token_ids": True, "skip_special_tokens": False, "stream": False}
            assert wanted.items() <= body.items()

    async def test_a_cloud_gets_only_what_it_knows(self) -> None:
        async with FakeServer("openai") as server, opened(server) as backend:
            await backend.complete(ask(QUESTION, 8, stop=("never",)))
            known = {"model", "messages", "max_tokens", "temperature", "top_p", "stream", "stream_options"}
            assert set(server.requests[0]) <= known
            assert server.requests[0]["messages"] == [{"role": "user", "content": QUESTION}]
            assert server.requests[0]["stream"]

    async def test_llamacpp_is_asked_at_its_own_endpoint(self) -> None:
        async with FakeServer("llamacpp") as server, opened(server, renderer=ByteRenderer()) as backend:
            completion = await backend.complete(ask(QUESTION, 8))
            assert server.paths[-1] == "/completion"
            assert completion.cached_tokens == completion.prompt_tokens // 2
            assert {"n_predict": 8, "return_tokens": True, "min_p": 0.0}.items() <= server.requests[0].items()

    async def test_a_begun_turn_is_a_last_message_for_vllm(self) -> None:
        async with FakeServer("vllm") as server, opened(server) as backend:
            await backend.complete(Request(prompt(QUESTION, "Well"), 8, (), GREEDY))
            body = server.requests[0]
            assert body["messages"][-1] == {"role": "assistant", "content": "Well"}
            assert body["continue_final_message"] is True
            assert body["add_generation_prompt"] is False

    async def test_a_begun_turn_is_never_said_again(self) -> None:
        class LlamaCpp(FakeServer):
            """Puts a begun turn before the whole answer of a chat, as llama.cpp does; not before a streamed one."""

            async def _generate(self, request: Any, body: Any, fault: Any) -> Any:
                self.reply = answer if body.get("stream") else lambda user, begun, seed=None: reply(user)
                return await super()._generate(request, body, fault)

        async with LlamaCpp("llamacpp") as server, opened(server) as backend:
            request = Request(prompt("Repeat: one two three", "one two"), 20, (), GREEDY)
            assert (await backend.complete(request)).text == " three"
            assert (await collect(backend, request))[1].text == " three"

    async def test_the_limit_is_renamed_once_and_remembered(self) -> None:
        async with FakeServer("openai") as server, opened(server) as backend:
            server.refuse = ("max_tokens", "stream_options")
            completions = await asyncio.gather(*[backend.complete(ask(QUESTION, 5)) for _ in range(5)])
            assert all(completion.completion_tokens == 5 for completion in completions)
            server.requests.clear()
            assert (await collect(backend, ask(QUESTION, 5)))[1].stop is Stop.LENGTH
            await collect(backend, ask(QUESTION, 5))
            assert [("max_tokens" in body, "stream_options" in body) for body in server.requests] == [
                (False, True), (False, False), (False, False)]  # fmt: skip

    async def test_extra_fields_are_sent_as_they_are(self) -> None:
        extra = {"chat_template_kwargs": {"enable_thinking": False}, "top_p": 0.3}
        async with FakeServer() as server, opened(server, extra=extra) as backend:
            await backend.complete(ask(QUESTION, 2))
            assert extra.items() <= server.requests[0].items()

    async def test_the_engine_may_be_named(self) -> None:
        async with FakeServer("openai") as server, opened(server, engine="vllm") as backend:
            assert backend.engine == "vllm"
            assert backend.capabilities.prefill

    async def test_ids_and_logprobs_are_refused_where_they_cannot_be_had(self) -> None:
        ids = Prompt((Turn("user", (Part(PartKind.CONTENT, ids=(104, 105)),)),))
        async with FakeServer() as server, opened(server) as backend:
            assert not backend.capabilities.token_ids
            with pytest.raises(BackendFatalError, match="token ids"):
                await backend.complete(Request(ids, 3, (), GREEDY))
            with pytest.raises(BackendFatalError, match="log-prob"):
                await backend.complete(ask(QUESTION, 3, sampling=Sampling(logprobs=True)))

    async def test_an_engine_too_old_for_token_ids_is_noticed_at_the_start(self) -> None:
        async with FakeServer("openai") as server:
            # It takes ids and ignores return_token_ids, as vLLM did before that field.
            server.flavour = "old"
            async with opened(server, engine="vllm", renderer=ByteRenderer()) as backend:
                assert not backend.capabilities.token_ids
                assert backend.capabilities.prefill

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_server_that_does_not_count(self, streamed: bool) -> None:
        async with FakeServer("openai") as server, opened(server) as backend:
            server.usage = False
            request = ask("Repeat: " + "counted " * 9, 12)
            completion = (await collect(backend, request))[1] if streamed else await backend.complete(request)
            assert completion.prompt_tokens == 20
            if streamed:
                assert completion.completion_tokens == 12
            else:
                assert completion.completion_tokens == -(-len(completion.text.encode()) // 4)
            async with opened(server, renderer=ByteRenderer()) as counting:
                completion = await counting.complete(request)
                assert completion.prompt_tokens == len(ByteRenderer().ids(request.prompt))


class TestConnections:
    async def test_a_cancelled_request_is_gone_on_the_server(self) -> None:
        for flavour, renderer in (("vllm", None), ("openai", None), ("llamacpp", ByteRenderer())):
            async with FakeServer(flavour) as server, opened(server, renderer=renderer) as backend:
                server.token_seconds = 0.02
                tasks = [asyncio.create_task(backend.complete(ask(QUESTION, 2000))) for _ in range(6)]
                tasks += [asyncio.create_task(collect(backend, ask(QUESTION, 2000))) for _ in range(6)]  # type: ignore[list-item]
                while server.open < 12:
                    await asyncio.sleep(0.005)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                assert await server.idle()
                server.token_seconds = 0.0
                assert (await backend.complete(ask(QUESTION, 3))).completion_tokens == 3

    async def test_a_stop_string_cut_here_ends_the_request_there(self) -> None:
        async with FakeServer("openai") as server, opened(server) as backend:
            server.token_seconds = 0.02
            server.reply = lambda user, begun, seed=None: "one two three " * 2000
            completion = await backend.complete(ask(QUESTION, 4000, stop=("two",)))
            assert completion.text == "one two"
            assert await server.idle(1.0)

    async def test_connections_are_bounded_and_used_again(self) -> None:
        async with FakeServer() as server, opened(server, max_connections=4) as backend:
            server.token_seconds = 0.001
            server.connections.clear()
            completions = await asyncio.gather(*[backend.complete(ask(f"{i}", 3)) for i in range(40)])
            await asyncio.gather(*[collect(backend, ask(f"{i}", 3)) for i in range(8)])
            assert server.peak <= 4
            assert len(server.connections) <= 4
            assert max(completion.queue_seconds for completion in completions) > 0


class TestServerSentEvents:
    STREAM = (
        '\ufeff: hi\r\n\r\ndata: {"a":\r\ndata: 1}\r\n\r\nevent: x\ndata: é🙂\n\n'
        "data:\n\nid: 3\r\rerror: {}\n\ndata: [DONE]\n\n"
    )
    EVENTS = (
        Event("message", '{"a":\n1}'),
        Event("x", "é🙂"),
        Event("message", ""),
        Event("error", "{}"),
        Event("message", "[DONE]"),
    )

    @given(st.lists(st.integers(0, 120), max_size=30))
    def test_any_chunking_gives_the_same_events(self, cuts: list[int]) -> None:
        raw = self.STREAM.encode()
        edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
        parser = Parser()
        events = [e for a, b in itertools.pairwise(edges) for e in parser.feed(raw[a:b])]
        assert tuple(events + parser.finish()) == self.EVENTS

    @given(st.text("ab\r\n:, data\x00é", max_size=60), st.lists(st.integers(0, 60), max_size=20))
    def test_any_text_reads_alike_whole_and_in_pieces(self, text: str, cuts: list[int]) -> None:
        raw = text.encode()
        edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
        whole, pieces = Parser(), Parser()
        expected = whole.feed(raw) + whole.finish()
        assert [e for a, b in itertools.pairwise(edges) for e in pieces.feed(raw[a:b])] + pieces.finish() == expected

    def test_an_end_without_a_blank_line_still_gives_the_event(self) -> None:
        for end in (b"", b"\n", b"\r", b"\r\n"):
            parser = Parser()
            assert parser.feed(b"data: x" + end) + parser.finish() == [Event("message", "x")]


class TestAssembly:
    @given(st.text("abc", max_size=30), st.lists(st.text("abc", max_size=4), max_size=3), st.lists(st.integers(0, 30)))
    def test_the_cut_does_not_depend_on_the_pieces(self, text: str, stops: list[str], cuts: list[int]) -> None:
        edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
        cutter = StopCutter(stops)
        kept = "".join(cutter.feed(text[a:b]) for a, b in itertools.pairwise(edges))
        ends = [text.index(stop) + len(stop) for stop in stops if stop and stop in text]
        assert kept == text[: min(ends, default=len(text))]
        if ends:
            assert kept.endswith(cutter.matched or "?")
            assert cutter.matched == max((s for s in stops if s and kept.endswith(s)), key=len)
        else:
            assert cutter.matched is None

    def test_ids_behind_the_stop_string_are_dropped(self) -> None:
        request = Request(prompt("q"), 50, ("stop",), Sampling(logprobs=True))
        assembler = Assembler(request, ByteRenderer(), streamed=True)
        for text in ("we st", "op here and on"):
            ids = tuple(encode(text))
            assembler.add(Piece(text, ids=ids, logprobs=(-1.0,) * len(ids)))
        completion = assembler.finish(0.0, 0.0)
        assert completion.text == "we stop"
        assert completion.token_ids == tuple(encode("we stop"))
        assert completion.completion_tokens == len(completion.logprobs or ()) == 7

    def test_a_character_that_is_not_complete_is_held_back(self) -> None:
        assembler = Assembler(ask("q"), None, streamed=True)
        deltas = [assembler.add(piece) for piece in (Piece("a\ufffd"), Piece("b\ufffd\ufffd"), Piece(stop=Stop.LENGTH))]
        assert [delta.text if delta else None for delta in deltas] == ["a", "\ufffdb", None]
        assert assembler.finish(0.0, 0.0).text == "a\ufffdb"

    def test_the_text_of_the_end_token_is_taken_off(self) -> None:
        assembler = Assembler(ask("q"), ByteRenderer(), streamed=True)
        assembler.add(Piece("yes<|end|>", ids=(*encode("yes"), 256), end_id=256, stop=Stop.STOP))
        completion = assembler.finish(0.0, 0.0)
        assert isinstance(completion, Completion)
        assert completion.text == "yes"
        assert completion.token_ids == (*encode("yes"), 256)
