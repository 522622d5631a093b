"""LangChain's ``ChatOpenAI``, but it keeps the reasoning that ``inftythink serve`` (or vLLM, SGLang) answers with.

    model = ChatInftyThink(base_url="http://localhost:8080/v1", api_key="none", model="inftythink")
    message = model.invoke("How many Collatz steps from 27?")
    message.content_blocks  # [{"type": "reasoning", "reasoning": ...}, {"type": "text", "text": ...}]

``ChatOpenAI`` drops every field that is not OpenAI's own. LangChain's packages for other providers put the reasoning
into ``additional_kwargs["reasoning_content"]``, from where ``content_blocks`` takes it; so does this class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inftythink.errors import missing

try:
    from langchain_openai import ChatOpenAI
except ModuleNotFoundError as error:
    raise missing("langchain-openai", "langchain") from error

if TYPE_CHECKING:
    from collections.abc import Mapping

    import openai
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import ChatGenerationChunk, ChatResult

PROVIDER = "inftythink"
"""Any name that LangChain has no translator for: that of ``openai`` would leave the reasoning out."""


class ChatInftyThink(ChatOpenAI):  # type: ignore[misc]
    """``ChatOpenAI`` with reasoning, in ``invoke`` and ``stream``, sync and async; it takes the same settings.

    A message has the reasoning (thoughts and summaries of all rounds) in ``additional_kwargs["reasoning_content"]``
    and as the first of its ``content_blocks``, and how the answer came about (outcome, rounds, context) in
    ``response_metadata["inftythink"]``. Chunks of a stream have it piece by piece; their sum equals the whole message.
    Options of the server go into ``extra_body={"inftythink": {"max_rounds": 100}}``.
    """

    stream_usage: bool | None = True

    def _create_chat_result(
        self, response: dict[str, Any] | openai.BaseModel, generation_info: dict[str, Any] | None = None
    ) -> ChatResult:
        result = super()._create_chat_result(response, generation_info)
        parsed = {"choices": {"__all__": {"message": {"parsed"}}}}  # objects of the caller's, not JSON
        answer = response if isinstance(response, dict) else response.model_dump(exclude=parsed, warnings=False)
        for generation, choice in zip(result.generations, answer["choices"], strict=True):
            _keep(generation.message, choice["message"], answer)
        result.llm_output["model_provider"] = PROVIDER
        return result

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        if made is not None:
            answer = chunk.get("chunk", chunk)  # a stream with a response format wraps its chunks
            choices = answer.get("choices")
            _keep(made.message, choices[0]["delta"] if choices else {}, answer)
        return made


def _keep(message: BaseMessage, part: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Put into ``message`` what its own class left out of ``part`` of an answer."""
    if text := part.get("reasoning_content") or part.get("reasoning"):
        message.additional_kwargs["reasoning_content"] = text
    message.response_metadata["model_provider"] = PROVIDER
    if report := answer.get("inftythink"):
        message.response_metadata["inftythink"] = report
