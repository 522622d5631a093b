"""Ask the server in every way that openai-python knows; run by an interpreter that has it.

    python with_openai.py URL QUESTION

Prints a JSON object: for each way the content, the reasoning, and the number of tokens that it was told.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from openai import AsyncOpenAI, OpenAI

MODEL = "inftythink"
LIMITS = {"temperature": 0.0}


def chat(question: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": question}], "seed": 1, **LIMITS, **more}


def response(question: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": question, "extra_body": {"seed": 1}, **LIMITS, **more}


def of_completion(completion: Any) -> dict[str, Any]:
    message = completion.choices[0].message
    assert message.reasoning == message.reasoning_content
    return {
        "content": message.content,
        "reasoning": message.reasoning,
        "tokens": completion.usage.completion_tokens,
        "rounds": completion.inftythink["rounds"],
    }


def of_chunks(chunks: list[Any]) -> dict[str, Any]:
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    return {
        "content": "".join(delta.content for delta in deltas),
        "reasoning": "".join(getattr(delta, "reasoning", "") for delta in deltas),
        "tokens": chunks[-1].usage.completion_tokens,
        "rounds": chunks[-1].inftythink["rounds"],
    }


def of_response(answer: Any) -> dict[str, Any]:
    thoughts = [item for item in answer.output if item.type == "reasoning"]
    return {
        "content": answer.output_text,
        "reasoning": "".join(part.text for item in thoughts for part in (item.content or [])),
        "tokens": answer.usage.output_tokens,
        "rounds": answer.inftythink["rounds"],
    }


def of_events(events: list[Any]) -> dict[str, Any]:
    whole = of_response(events[-1].response)
    told = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    thought = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
    return {**whole, "content": told, "reasoning": thought}


def every_way(url: str, question: str) -> dict[str, Any]:
    streamed = chat(question, stream=True, stream_options={"include_usage": True})
    with OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        ways = {
            "chat": of_completion(client.chat.completions.create(**chat(question))),
            "chat, streamed": of_chunks(list(client.chat.completions.create(**streamed))),
            "responses": of_response(client.responses.create(**response(question))),
            "responses, streamed": of_events(list(client.responses.create(**response(question, stream=True)))),
        }
        # The helper that puts a response together out of its events. Its last call knows none that a limit ended.
        with client.responses.stream(**response(question)) as stream:
            *_, last = stream
            ways["responses, helper"] = of_response(last.response)
        ways["models"] = [model.id for model in client.models.list()]
    return ways


async def every_way_async(url: str, question: str) -> dict[str, Any]:
    streamed = chat(question, stream=True, stream_options={"include_usage": True})
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        chunks = [chunk async for chunk in await client.chat.completions.create(**streamed)]
        events = [event async for event in await client.responses.create(**response(question, stream=True))]
        return {
            "async chat": of_completion(await client.chat.completions.create(**chat(question))),
            "async chat, streamed": of_chunks(chunks),
            "async responses": of_response(await client.responses.create(**response(question))),
            "async responses, streamed": of_events(events),
        }


def main() -> None:
    url, question = sys.argv[1:]
    print(json.dumps({**every_way(url, question), **asyncio.run(every_way_async(url, question))}))


if __name__ == "__main__":
    main()
