"""A trajectory as a person sees it: streamed round by round into a terminal, or as plain text into a file.

What is sure is written at once. What a chat model writes without tags is known to be an answer, or a thought, only when
it ends: a terminal shows its last lines until then, and the whole of it in its place afterwards.
"""

from __future__ import annotations

import enum
import re
import time
from typing import Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.text import Text

from inftythink.protocol import Event, Kind, Outcome, Purpose, Round, Trajectory
from inftythink.reasoner import Began, Ended, StreamEvent

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BARS = " ▁▂▃▄▅▆▇█"
_CHAIN = "·"
_DOING = {
    Purpose.REASON: "thinking",
    Purpose.SUMMARISE: "summarising",
    Purpose.FORCED_SUMMARY: "summarising",
    Purpose.FORCED_ANSWER: "answering",
}
_NOTES = {
    Purpose.FORCED_SUMMARY: "the thought was cut: it is closed here, and the summary asked for",
    Purpose.FORCED_ANSWER: "a limit is reached: the answer is asked for",
}


class Piece(enum.Enum):
    """What a piece of text is shown as."""

    THOUGHT = "thought"
    SUMMARY = "summary"
    ANSWER = "answer"
    UNDECIDED = "reply"


class Screen(Protocol):
    """Where a trajectory is shown. ``open``, any number of ``write``, ``close`` for each piece."""

    def heading(self, text: str) -> None:
        """Begin a round."""
        ...

    def open(self, piece: Piece) -> None:
        """Begin a piece."""
        ...

    def write(self, text: str) -> None:
        """Show more of the piece."""
        ...

    def close(self, piece: Piece) -> None:
        """End the piece; ``piece`` is what it turned out to be."""
        ...

    def note(self, text: str, style: str = "dim") -> None:
        """Show a remark on a line of its own."""
        ...

    def status(self, text: str) -> None:
        """Say what is going on now; a file has no place for that."""
        ...

    def figure(self, lines: list[str]) -> None:
        """Show the sawtooth."""
        ...

    def __enter__(self) -> Screen: ...

    def __exit__(self, *error: object) -> None: ...


def clean(text: str) -> str:
    """Make a model's text harmless for a terminal: control characters become visible signs."""
    return _CONTROL.sub(
        lambda match: chr(0x2400 + ord(match[0])) if ord(match[0]) < 32 else "\N{REPLACEMENT CHARACTER}", text
    )


class Presenter:
    """Turns the events of ``Reasoner.stream`` into what a screen shows.

    ``opened``: rounds begin inside a thought (``Format.thought``), so that an answer is sure to be one.
    """

    def __init__(self, screen: Screen, *, opened: bool) -> None:
        self._screen, self._opened = screen, opened
        self._k = 0
        self._piece: Piece | None = None
        self._sure = opened  # what comes as a conclusion is one
        self._reclassified = False  # the last event said: it was a thought
        self._late = False  # what follows belongs to a thought that was cut
        self._purpose = Purpose.REASON
        self._calls: list[Ended] = []
        self._chars, self._chars_per_token = 0, 4.0

    def show(self, event: StreamEvent) -> None:
        """Show one event; the trajectory, which comes last, closes the picture."""
        if isinstance(event, Began):
            self._begin(event)
        elif isinstance(event, Ended):
            self._late = self._reclassified
            self._calls.append(event)
            if self._chars and event.completion.completion_tokens:
                self._chars_per_token = self._chars / event.completion.completion_tokens
        elif isinstance(event, Trajectory):
            self._finish(event)
            return
        elif event.kind is Kind.RECLASSIFY:
            self._reclassify()
        else:
            self._text(event)
        self._reclassified = isinstance(event, Event) and event.kind is Kind.RECLASSIFY
        self._say_status()

    def _begin(self, event: Began) -> None:
        self._late, self._chars, self._purpose = False, 0, event.purpose
        if event.k != self._k:
            self._end_round()
            self._k = event.k
            self._screen.heading(f"round {event.k}")
        if event.purpose in _NOTES:
            self._close()
            self._screen.note(_NOTES[event.purpose])
        self._sure = self._opened or event.purpose is Purpose.FORCED_ANSWER

    def _text(self, event: Event) -> None:
        kinds = {Kind.THOUGHT: Piece.THOUGHT, Kind.SUMMARY: Piece.SUMMARY}
        piece = kinds.get(event.kind, Piece.ANSWER if self._sure else Piece.UNDECIDED)
        if self._late and event.kind is Kind.CONCLUSION:
            piece = Piece.THOUGHT
        if piece is Piece.THOUGHT:
            self._sure = True
        if piece is not self._piece:
            self._close()
            self._piece = piece
            self._screen.open(piece)
        self._chars += len(event.text)
        self._screen.write(clean(event.text))

    def _reclassify(self) -> None:
        """What looked like an answer was a thought: a screen that held it back shows it as one, else it is marked."""
        if self._piece is Piece.ANSWER:
            self._close()
            self._screen.note("cut here, so this is no answer")
        else:
            self._close(Piece.THOUGHT)
        self._sure = True

    def _close(self, piece: Piece | None = None) -> None:
        if self._piece is not None:
            self._screen.close(piece or self._piece)
        self._piece = None

    def _end_round(self) -> None:
        self._close()
        if self._calls:
            done = [call.completion for call in self._calls]
            tokens = sum(c.completion_tokens for c in done)
            peak = max(c.prompt_tokens + c.completion_tokens for c in done)
            seconds = sum(c.seconds for c in done)
            self._screen.note(
                f"{tokens:,} tokens in {seconds:.1f} s · context {done[0].prompt_tokens:,} → {peak:,}", "dim cyan"
            )
        self._calls = []

    def _finish(self, trajectory: Trajectory) -> None:
        if self._piece is Piece.UNDECIDED:
            self._close(Piece.ANSWER if trajectory.outcome is Outcome.ANSWERED else Piece.THOUGHT)
        self._end_round()
        show_end(self._screen, trajectory)

    def _say_status(self) -> None:
        done = sum(call.completion.completion_tokens for call in self._calls)
        running = 0 if self._calls and self._chars == 0 else round(self._chars / self._chars_per_token)
        self._screen.status(f"round {self._k} · {_DOING[self._purpose]} · about {done + running:,} tokens")


def show_stored(screen: Screen, trajectory: Trajectory) -> None:
    """Show a trajectory that ended before: its answer, and how it ended."""
    if trajectory.conclusion is not None:
        screen.open(Piece.ANSWER)
        screen.write(clean(trajectory.conclusion))
        screen.close(Piece.ANSWER)
    show_end(screen, trajectory)


def show_end(screen: Screen, trajectory: Trajectory) -> None:
    """Show how a trajectory ended: outcome and reason, the sawtooth, the totals."""
    if trajectory.outcome is not Outcome.ANSWERED:
        style = "bold red" if trajectory.outcome is Outcome.FAILED else "bold yellow"
        screen.note(f"{trajectory.outcome.value}: {trajectory.reason}", style)
    elif trajectory.rounds and trajectory.rounds[-1].forced is Purpose.FORCED_ANSWER:
        screen.note("this answer was forced by a limit", "yellow")
    if trajectory.rounds:
        screen.figure(sawtooth(trajectory.rounds))
        screen.note(totals(trajectory), "bold")


def totals(trajectory: Trajectory) -> str:
    """One line with the sums of a trajectory."""
    sums = trajectory.totals
    seconds, tokens = sums["seconds"], sums["completion_tokens"]
    rate = f" · {tokens / seconds:,.0f} tokens/s" if seconds else ""
    rounds = f"{sums['rounds']} round" + ("s" if sums["rounds"] != 1 else "")
    return f"{rounds} · {tokens:,} generated tokens · peak context {sums['peak_context']:,} · {seconds:.1f} s{rate}"


def sawtooth(rounds: tuple[Round, ...], width: int = 60, height: int = 6) -> list[str]:
    """Draw the context over the generated tokens: it grows in a call and falls behind it.

    Dots show what one chain of thought, which never forgets, would hold at the same point: the first prompt and
    everything generated since, separate summaries left out.
    """
    calls = [call for each in rounds for call in each.calls if call.completion_tokens]
    if not calls:
        return []
    total = sum(call.completion_tokens for call in calls)
    held: list[float] = []
    chain: list[float] = []
    reached = calls[0].prompt_tokens
    for call in calls:
        columns = max(2, round(width * call.completion_tokens / total))
        grows = call.purpose is not Purpose.SUMMARISE
        for step in range(1, columns + 1):
            new = call.completion_tokens * step / columns
            held.append(call.prompt_tokens + new)
            chain.append(reached + (new if grows else 0))
        reached += call.completion_tokens if grows else 0
    top = max(*held, *chain)
    labels = {height - 1: f"{round(top):,}", 0: "0"}
    margin = max(map(len, labels.values()))
    lines = []
    for row in reversed(range(height)):
        cells = "".join(_cell(h / top * height - row, c / top * height - row) for h, c in zip(held, chain, strict=True))
        lines.append(f"{labels.get(row, ''):>{margin}} {'┤' if row in labels else '│'}{cells.rstrip()}")
    caption = f"█ context held, at most {round(max(held)):,} tokens   {_CHAIN} one growing chain: {round(max(chain)):,}"
    return [*lines, " " * (margin + 1) + "└" + "─" * len(held), " " * (margin + 2) + caption]


def _cell(bar: float, chain: float) -> str:
    """One character of the figure; both heights are in rows above this row's foot."""
    if bar > 0:
        return _BARS[min(8, max(1, round(bar * 8)))]
    return _CHAIN if 0 < chain <= 1 else " "


class PlainScreen:
    """Text without control codes, for files and pipes; nothing is wrapped."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._held: str | None = None

    def heading(self, text: str) -> None:
        """Write the round's heading."""
        self._say(f"=== {text} ===")

    def open(self, piece: Piece) -> None:
        """Name the piece, unless it is not known yet what it is."""
        self._held = "" if piece is Piece.UNDECIDED else None
        if piece is not Piece.UNDECIDED:
            self._say(f"[{piece.value}]")

    def write(self, text: str) -> None:
        """Write through, or hold back."""
        if self._held is not None:
            self._held += text
        else:
            self._file.write(text)
            self._file.flush()

    def close(self, piece: Piece) -> None:
        """End the piece's last line."""
        if self._held is not None:
            self._file.write(f"[{piece.value}]\n{self._held}")
        self._held = None
        self._say("")

    def note(self, text: str, style: str = "dim") -> None:
        """Write a line."""
        self._say(f"-- {text}")

    def status(self, text: str) -> None:
        """Do nothing."""

    def figure(self, lines: list[str]) -> None:
        """Write the lines."""
        self._say("\n".join(["", *lines]))

    def _say(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    def __enter__(self) -> PlainScreen:
        return self

    def __exit__(self, *error: object) -> None:
        if self._held:  # interrupted: what was held back is not lost
            self.close(Piece.UNDECIDED)


class LiveScreen:
    """A terminal. Whole lines scroll by; the unfinished one, and a line that says what goes on, are redrawn."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._piece: Piece | None = None
        self._text = ""
        self._spinner = Spinner("dots")
        self._status = ""
        self._round = ""
        self._began = time.monotonic()
        self._live = Live(  # last: it draws at once
            get_renderable=self._region, console=console, refresh_per_second=12, transient=True, redirect_stderr=False
        )

    def heading(self, text: str) -> None:
        """Draw a line across."""
        self._round = text
        self._console.rule(Text(text, "bold cyan"), style="cyan", align="left")

    def open(self, piece: Piece) -> None:
        """Begin a piece; an answer has a heading."""
        self._piece, self._text = piece, ""
        if piece is Piece.ANSWER:
            self._print(Text("answer", "bold green"))

    def write(self, text: str) -> None:
        """Print the lines that are whole now; thoughts and answers flow, the rest waits for its end."""
        self._text += text.expandtabs(4)
        if self._piece not in (Piece.THOUGHT, Piece.ANSWER):
            return
        *whole, self._text = self._text.split("\n")
        lines = [line for paragraph in whole for line in self._wrap(paragraph)]
        *full, last = self._wrap(self._text)
        if full:
            lines, self._text = lines + full, last
        if lines:
            self._print(self._styled("\n".join(lines), self._piece))

    def close(self, piece: Piece) -> None:
        """Print what is left, or all of what waited, as what it is."""
        text, before = self._text.rstrip(), self._piece
        self._piece, self._text = None, ""
        if before is Piece.UNDECIDED and piece is Piece.ANSWER:
            self._print(Text("answer", "bold green"))
        if piece is Piece.SUMMARY:
            title = f"summary of {self._round}: all that the next round sees"
            self._print(Panel(Text(text), title=title, title_align="left", border_style="magenta"))
        elif text:
            lines = [line for paragraph in text.split("\n") for line in self._wrap(paragraph)]
            self._print(self._styled("\n".join(lines), piece))

    def note(self, text: str, style: str = "dim") -> None:
        """Print a line."""
        self._print(Text(clean(text), style))

    def status(self, text: str) -> None:
        """Change the line at the bottom."""
        self._status = text

    def figure(self, lines: list[str]) -> None:
        """Print the sawtooth in colour; one that is too wide is left out."""
        if max(map(len, lines), default=0) > self._console.width:
            return
        for line in ["", *lines]:
            text = Text(line)
            text.highlight_regex(f"{_CHAIN}+", "yellow")
            text.highlight_regex("[▁▂▃▄▅▆▇█]+", "cyan")
            self._print(text)

    def _wrap(self, paragraph: str) -> list[str]:
        lines = Text(paragraph).wrap(self._console, max(20, self._console.width - 2))
        return [line.plain for line in lines] or [""]

    def _styled(self, text: str, piece: Piece) -> Text:
        style = {Piece.THOUGHT: "dim", Piece.ANSWER: "bold"}.get(piece, "")
        return Text(text, style)

    def _print(self, what: RenderableType) -> None:
        self._console.print(what, highlight=False, soft_wrap=isinstance(what, Text))

    def _region(self) -> RenderableType:
        """What is redrawn: the unfinished piece (its last lines), then the status."""
        seconds = time.monotonic() - self._began
        self._spinner.update(text=Text(f"{self._status} · {seconds:.0f} s" if self._status else "", "cyan"))
        shown: list[RenderableType] = []
        room = max(3, min(10, self._console.height - 5))
        if self._text and self._piece is not None:
            lines = [line for part in self._text[-6000:].split("\n") for line in self._wrap(part)][-room:]
            body = self._styled("\n".join(lines), self._piece)
            shown.append(Panel(body, border_style="magenta") if self._piece is Piece.SUMMARY else body)
        return Group(*shown, self._spinner)

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._text and self._piece is not None:  # interrupted: what was seen stays
            self.close(self._piece)
        self._live.stop()
