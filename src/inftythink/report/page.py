"""Puts the page together: one HTML file with style, script and data inside, under a policy that allows no other."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

from inftythink.report.shards import script_json

SCRIPTS = ("dom.js", "diff.js", "charts.js", "overview.js", "list.js", "reader.js", "training.js", "page.js")


def page(data: Any, shard: str | None) -> str:
    """Return the HTML of a report; ``shard`` is the JSON of the only shard when there are no files for them."""
    source = files("inftythink.report") / "page"
    style = (source / "page.css").read_text(encoding="utf-8")
    body = "\n".join((source / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{body}\n}})();'
    parts = {
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "data": script_json(data),
        "shard": f'<script type="application/json" id="shard">{shard}</script>\n' if shard else "",
    }
    # In one pass: what is put in is not looked at again, whatever it holds.
    template = (source / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _policy(style: str, script: str) -> str:
    """Return the content security policy: this style, this script, scripts beside the page, and nothing else.

    ``file:`` is what "beside the page" means for one opened from disk, ``'self'`` for one put on a server. Nothing can
    be sent anywhere, and where trusted types are known, no text can become markup.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}' 'self' file:",
            f"style-src '{_digest(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types inftythink-shards",
        )
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
