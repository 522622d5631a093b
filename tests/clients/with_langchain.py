"""Ask the server in every way that LangChain's models know; run by an interpreter that has it and this package.

    python with_langchain.py URL QUESTION

Prints a JSON object: for each way the message as LangChain has it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import reduce
from operator import add
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from inftythink.clients.langchain import ChatInftyThink


def seen(message: Any) -> dict[str, Any]:
    return {
        "text": message.text,
        "reasoning": message.additional_kwargs.get("reasoning_content"),
        "blocks": message.content_blocks,
        "rounds": message.response_metadata.get("inftythink", {}).get("rounds"),
        "provider": message.response_metadata["model_provider"],
        "usage": message.usage_metadata,
    }


def every_way(url: str, question: str) -> dict[str, Any]:
    settings = {"base_url": url, "api_key": "none", "model": "inftythink", "temperature": 0.0, "seed": 1}
    model, plain = ChatInftyThink(**settings), ChatOpenAI(**settings)
    blocks = ChatInftyThink(**settings, output_version="v1")
    chunks = list(model.stream(question))
    first = blocks.invoke(question)
    events = blocks.stream_events(question, version="v3")
    ways = {
        "plain": seen(plain.invoke(question)),
        "invoke": seen(model.invoke(question)),
        "stream": seen(reduce(add, chunks)),
        "invoke, blocks": seen(first),
        "stream, blocks": seen(reduce(add, blocks.stream(question))),
        "batch": seen(model.batch([question, question])[1]),
        # The reasoning of an earlier turn goes back to the server in none of LangChain's two layouts.
        "second turn": seen(model.invoke([HumanMessage(question), model.invoke(question), HumanMessage(question)])),
        "second turn, blocks": seen(blocks.invoke([HumanMessage(question), first, HumanMessage(question)])),
    }
    return {
        **ways,
        "pieces of reasoning": sum("reasoning_content" in chunk.additional_kwargs for chunk in chunks),
        "events": {"text": str(events.text), "reasoning": str(events.reasoning)},
    }


async def every_way_async(url: str, question: str) -> dict[str, Any]:
    model = ChatInftyThink(base_url=url, api_key="none", model="inftythink", temperature=0.0, seed=1)
    chunks = [chunk async for chunk in model.astream(question)]
    return {"async invoke": seen(await model.ainvoke(question)), "async stream": seen(reduce(add, chunks))}


def main() -> None:
    url, question = sys.argv[1:]
    print(json.dumps({**every_way(url, question), **asyncio.run(every_way_async(url, question))}))


if __name__ == "__main__":
    main()
