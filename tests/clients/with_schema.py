"""Ask for JSON of a schema through LangChain, whole and streamed: ``python with_schema.py URL QUESTION``."""

from __future__ import annotations

import json
import sys
from functools import reduce
from operator import add

from pydantic import BaseModel

from inftythink.clients.langchain import ChatInftyThink


class Answer(BaseModel):
    """What the model is to fill in."""

    steps: int


def main() -> None:
    url, question = sys.argv[1:]
    model = ChatInftyThink(base_url=url, api_key="none", model="inftythink", temperature=0.0, max_tokens=50)
    asked = model.with_structured_output(Answer, method="json_schema", include_raw=True)
    streamed = reduce(add, asked.stream(question))
    whole = asked.invoke(question)
    assert whole["raw"].response_metadata["model_provider"] == "inftythink"
    print(json.dumps({"invoke": whole["parsed"].model_dump(), "stream": streamed["parsed"].model_dump()}))


if __name__ == "__main__":
    main()
