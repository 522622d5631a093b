"""Draw sawtooth.svg: context length over generated tokens, one long chain of thought against InftyThink.

    python docs/img/sawtooth.py [OUTPUT.svg]

The curves are computed from the protocol's own bound with the numbers below; nothing is measured. Plain SVG whose
colours follow the reader's light or dark theme.
"""

import sys
from pathlib import Path

QUESTION, ETA, GAMMA, ROUNDS = 300, 4096, 1024, 7
"""Tokens of the question, most in a segment, most in a summary; rounds of the example."""
LAST = 2600
"""Tokens of the last round: what was left to think, and the conclusion."""
WINDOW = 16_384
"""The context window of the model, where one long chain of thought must end."""

WIDTH, HEIGHT = 860, 430
LEFT, RIGHT, TOP, BOTTOM = 74, 24, 58, 62
Y_MAX = 18_000

STYLE = """
  text { font: 14px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
  .small { font-size: 12px; fill: #59636e }
  .strong { font-weight: 600 }
  .axis { stroke: #818b98; stroke-width: 1; fill: none }
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  .limit { stroke: #818b98; stroke-width: 1.5; stroke-dasharray: 6 5; fill: none }
  .vanilla { stroke: #cf222e; stroke-width: 3; fill: none; stroke-linejoin: round }
  .vanilla-text { fill: #cf222e }
  .ours { stroke: #0969da; stroke-width: 3; fill: none; stroke-linejoin: round }
  .ours-text { fill: #0969da }
  .area { fill: #0969da; fill-opacity: .12 }
  .carry { stroke: #0969da; stroke-width: 1.5; stroke-dasharray: 2 4; fill: none }
  .bound { stroke: #0969da; stroke-width: 1.5; stroke-dasharray: 6 5; fill: none }
  .stop { fill: #cf222e }
  .done { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .axis, .limit { stroke: #9198a1 }
    .grid { stroke: #3d444d }
    .vanilla { stroke: #ff7b72 }
    .vanilla-text, .stop { fill: #ff7b72 }
    .ours, .carry, .bound { stroke: #58a6ff }
    .ours-text, .area, .done { fill: #58a6ff }
  }
"""


def rounds() -> list[tuple[float, float, float, float]]:
    """For each round: tokens generated before and after it, context length at its begin and end."""
    result, generated = [], 0
    for k in range(1, ROUNDS + 1):
        begin = QUESTION + (GAMMA if k > 1 else 0)
        tokens = ETA + GAMMA if k < ROUNDS else LAST
        result.append((generated, generated + tokens, begin, begin + tokens))
        generated += tokens
    return result


TOTAL = rounds()[-1][1]


def x(tokens: float) -> float:
    """Where ``tokens`` generated lies across."""
    return LEFT + tokens / TOTAL * (WIDTH - LEFT - RIGHT)


def y(tokens: float) -> float:
    """Where a context of ``tokens`` lies upward."""
    return HEIGHT - BOTTOM - tokens / Y_MAX * (HEIGHT - TOP - BOTTOM)


def text(at: tuple[float, float], words: str, kind: str = "", anchor: str = "start") -> str:
    """A piece of text."""
    return f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" class="{kind}" text-anchor="{anchor}">{words}</text>'


def line(points: list[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    return f'<polyline class="{kind}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>'


def axes() -> list[str]:
    """Axes with their ticks and titles."""
    parts = []
    for tokens in range(4096, 16_384 + 1, 4096):
        if tokens != WINDOW:
            parts.append(line([(LEFT, y(tokens)), (WIDTH - RIGHT, y(tokens))], "grid"))
        parts.append(text((LEFT - 8, y(tokens) + 4), f"{tokens // 1024}k", "small", "end"))
    for tokens in range(0, int(TOTAL) + 1, 8192):
        parts.append(line([(x(tokens), y(0)), (x(tokens), y(0) + 5)], "axis"))
        parts.append(text((x(tokens), y(0) + 20), f"{tokens // 1024}k" if tokens else "0", "small", "middle"))
    parts.append(line([(LEFT, TOP - 12), (LEFT, y(0)), (WIDTH - RIGHT, y(0))], "axis"))
    parts.append(text((LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 14), "reasoning tokens generated", "", "middle"))
    parts.append(
        f'<text transform="translate(22 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        "context held in memory</text>"
    )
    return parts


def vanilla() -> list[str]:
    """One line that grows until the window is full."""
    end = WINDOW - QUESTION
    return [
        line([(x(0), y(WINDOW)), (WIDTH - RIGHT, y(WINDOW))], "limit"),
        text((WIDTH - RIGHT, y(WINDOW) - 8), "context window of the model", "small", "end"),
        line([(x(0), y(QUESTION)), (x(end), y(WINDOW))], "vanilla"),
        f'<circle class="stop" cx="{x(end):.1f}" cy="{y(WINDOW):.1f}" r="5"/>',
        text((x(end) + 12, y(WINDOW) + 22), "one long chain of thought: cut off here", "vanilla-text strong"),
    ]


def inftythink() -> list[str]:
    """The sawtooth, its bound, and what crosses each round."""
    bound = QUESTION + GAMMA + ETA + GAMMA
    parts, points = [], []
    for begin, end, low, high in rounds():
        parts.append(
            f'<polygon class="area" points="{x(begin):.1f},{y(0):.1f} {x(begin):.1f},{y(low):.1f} '
            f'{x(end):.1f},{y(high):.1f} {x(end):.1f},{y(0):.1f}"/>'
        )
        points += [(x(begin), y(low)), (x(end), y(high))]
    parts.append(line([(x(0), y(bound)), (WIDTH - RIGHT, y(bound))], "bound"))
    parts.append(line(points, "ours"))
    parts.append(f'<circle class="done" cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="5"/>')
    for k, (begin, end, _, _) in enumerate(rounds(), 1):
        parts.append(text(((x(begin) + x(end)) / 2 + 6, y(0) - 8), f"round {k}", "small", "middle"))
    name = "InftyThink: never above |q| + γ + η + γ, and no limit to the right"
    parts.append(text((WIDTH - RIGHT, y(bound) - 12), name, "ours-text strong", "end"))
    parts.append(text((points[-1][0] - 8, points[-1][1] - 10), "answer", "ours-text", "end"))
    return parts


def main() -> None:
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("sawtooth.svg")
    title = "Context length while reasoning"
    note = f"example: question |q| = {QUESTION}, segment η = {ETA}, summary γ = {GAMMA} tokens"
    body = [text((LEFT, 26), title, "strong"), text((WIDTH - RIGHT, 26), note, "small", "end")]
    body += [*axes(), *inftythink(), *vanilla()]
    label = "One long chain of thought grows to the context window; InftyThink stays below a bound, in a sawtooth."
    output.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">\n'
        f"<title>{label}</title>\n<style>{STYLE}</style>\n" + "\n".join(body) + "\n</svg>\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
