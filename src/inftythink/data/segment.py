"""Cutting a piece of reasoning into segments of at most eta tokens (paper, section 3.1).

Thoughts are counted in one pass and joined while they fit. A thought that is too long is first cut into paragraphs,
those that are still too long into sentences, then lines, then chunks between white space, down to characters. Joined,
the segments are the reasoning, character for character.

A segment counts what the tokenizer gives for it encoded alone, which is not the sum of what its pieces give. Where the
counter promises that counts add up (``Counter.additive``) only the end of a segment is counted again; everywhere else
the whole segment is. One that is over is cut further, so none is ever over eta, with or without the white space around
it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple, get_args

from inftythink.data.boundaries import LEVELS, Boundaries
from inftythink.data.read import Reject
from inftythink.data.tokens import Counter
from inftythink.errors import InputError, UsageError

Partition = Literal["greedy", "balanced", "reference"]

_SHARE = 8  # a chunk, the smallest piece that is counted at first, has at most eta / 8 characters
_LONGEST = 24  # characters a token at most: a longer text is over eta without being counted


@dataclass(frozen=True, slots=True)
class Segmented:
    """The segments of one trace and the tokens of each, encoded alone (``reference``: as that rule sums them up)."""

    segments: list[str]
    tokens: list[int]


def segment(reasoning: str, eta: int, counter: Counter, partition: Partition = "greedy") -> Segmented | Reject:
    """Cut ``reasoning`` into segments of at most ``eta`` tokens.

    ``greedy`` fills each segment as far as it goes; ``balanced`` makes as many segments, as even as the pieces allow;
    ``reference`` is the rule of the published script, whose segments can be over eta. Takes time in proportion to the
    text. The result is a ``Reject`` (without an id) for an empty text, half a surrogate pair, a character of more than
    ``eta`` tokens or of none, and, under ``reference``, an empty piece. Raises ``UsageError`` for an eta below 1.
    """
    if eta < 1:
        raise UsageError(f"eta is {eta}; a segment needs at least 1 token")
    if partition not in get_args(Partition):
        raise UsageError(f"partition {partition!r} does not exist; choose from {', '.join(get_args(Partition))}")
    if not reasoning.strip():
        return Reject("", "segment", "empty_reasoning", "there is nothing to segment")
    try:
        reasoning.encode()
    except UnicodeEncodeError as error:
        return Reject("", "segment", "invalid_unicode", f"half a surrogate pair at character {error.start}")
    try:
        if partition == "reference":
            return _reference(reasoning, eta, counter)
        return _Segmenter(reasoning, eta, counter).run(partition)
    except InputError as error:
        return Reject("", "segment", "no_token", str(error))


class _Piece(NamedTuple):
    """A piece of the text. ``tokens``: what it adds to a segment, as far as that is known before it is joined."""

    start: int
    end: int
    tokens: int


class _Run(NamedTuple):
    """A segment with its exact counts, as it is and without the white space around it."""

    start: int
    end: int
    tokens: int
    stripped: int

    @property
    def most(self) -> int:
        return max(self.tokens, self.stripped)


class _TooSmallError(Exception):
    """A single character takes more than eta tokens."""


class _Segmenter:
    """The segmentation of one text."""

    def __init__(self, text: str, eta: int, counter: Counter) -> None:
        self.text, self.eta, self.counter = text, eta, counter
        self.boundaries = Boundaries(text)
        self._single: dict[str, int] = {}

    def run(self, partition: Partition) -> Segmented | Reject:
        places = [0, *self.boundaries.thoughts(), len(self.text)]
        try:
            pieces = self._refined([*pairwise(places)], self.eta)
            runs = self._settled(pieces, _greedy(pieces, self.eta))
            if partition == "balanced" and len(runs) > 1:
                even = self._settled(pieces, _balanced(pieces, len(runs), self.eta))
                # Counts of joined pieces can differ from their sum: keep what is better as counted.
                if len(even) == len(runs) and max(run.tokens for run in even) <= max(run.tokens for run in runs):
                    runs = even
        except _TooSmallError as error:
            return Reject("", "segment", "eta_too_small", str(error))
        return Segmented([self.text[run.start : run.end] for run in runs], [run.tokens for run in runs])

    # Pieces

    def _refined(self, spans: list[tuple[int, int]], most: int, level: int = 0) -> list[_Piece]:
        """Cut spans until each piece has at most ``most`` tokens, level by level, all spans of a level in one pass.

        A single character stays whole; raises ``_TooSmallError`` when it has more than eta tokens.
        """
        pieces = self._counted(spans, most)
        size = max(1, self.eta // _SHARE)
        while any(piece.tokens > most and piece.end - piece.start > 1 for piece in pieces):
            cut: list[tuple[int, int] | _Piece] = []
            for piece in pieces:
                places = [] if piece.tokens <= most else self._places(piece, level, size)
                cut += pairwise([piece.start, *places, piece.end]) if places else [piece]
            if level >= LEVELS:
                size = max(1, size // 2)
            level += 1
            fresh = iter(self._counted([span for span in cut if not isinstance(span, _Piece)], most))
            pieces = [span if isinstance(span, _Piece) else next(fresh) for span in cut]
        for piece in pieces:
            if piece.tokens > self.eta:
                self._too_small(piece.start, piece.tokens)
        return pieces

    def _places(self, piece: _Piece, level: int, size: int) -> list[int]:
        """Return where to cut a piece that is too long; below the levels of ``Boundaries`` at ``size`` characters."""
        if level < LEVELS:
            return self.boundaries.within(level, piece.start, piece.end)
        half = (piece.end - piece.start + 1) // 2
        return [*self.boundaries.chunks(piece.start, piece.end, min(size, half))]

    def _too_small(self, place: int, tokens: int) -> None:
        raise _TooSmallError(f"character {place}, {self.text[place]!r}, takes {tokens} tokens; eta is {self.eta}")

    def _counted(self, spans: Sequence[tuple[int, int]], most: int) -> list[_Piece]:
        """Count spans, each with the character behind it where that makes the count add up, in one pass."""
        limit = _LONGEST * most + 1024
        short = [(start, end) for start, end in spans if end - start <= limit]
        adds = [self._adds_up(end) for _, end in short]
        texts = [self.text[start : end + add] for (start, end), add in zip(short, adds, strict=True)]
        follows = [self.text[end] for (_, end), add in zip(short, adds, strict=True) if add]
        self._count_singles(follows)
        counts, behind, added = iter(self.counter.counts(texts)), iter(follows), iter(adds)
        pieces = []
        for start, end in spans:
            tokens = most + 1
            if end - start <= limit:
                tokens = next(counts) - (self._single[next(behind)] if next(added) else 0)
            pieces.append(_Piece(start, end, tokens))
        return pieces

    def _count_singles(self, characters: Iterable[str]) -> None:
        new = sorted(set(characters) - self._single.keys())
        if new:
            self._single.update(zip(new, self.counter.counts(new), strict=True))

    def _adds_up(self, place: int) -> bool:
        """Tell whether counts add up over a cut at ``place``."""
        text = self.text
        return self.counter.additive and 0 < place < len(text) and text[place - 1] == "\n" and not text[place].isspace()

    # Segments

    def _settled(self, pieces: list[_Piece], groups: list[int]) -> list[_Run]:
        """Count the segments that groups of pieces make, and cut those that are over eta further.

        ``groups``: the index of the first piece of each group, and the number of pieces.
        """
        runs = self._runs(pieces, groups)
        settled: list[_Run] = []
        for run in runs:
            settled += [run] if run.most <= self.eta else self._cut(run)
        return settled

    def _cut(self, run: _Run) -> list[_Run]:
        """Cut a segment that is over eta. Rare: sums of counts mislead by a few tokens."""
        if run.end - run.start == 1:
            self._too_small(run.start, run.most)
        most = max(1, 2 * self.eta - run.most)
        pieces = self._refined([(run.start, run.end)], most)
        if len(pieces) == 1:
            half = max(1, (run.end - run.start) // 2)
            places = [run.start, *self.boundaries.chunks(run.start, run.end, half), run.end]
            pieces = self._refined([*pairwise(places)], most)
        groups = _greedy(pieces, most)
        return self._settled(pieces, groups if len(groups) > 2 else [0, len(pieces) // 2, len(pieces)])

    def _runs(self, pieces: list[_Piece], groups: list[int]) -> list[_Run]:
        """Return the exact counts of segments: from those of the pieces where they add up, else counted whole."""
        sums = [0, *accumulate(piece.tokens for piece in pieces)]
        adds = [0, *accumulate(not self._adds_up(piece.end) for piece in pieces)]
        plans: list[tuple[int, int, int | None]] = []
        texts: list[str] = []
        for first, last in pairwise(groups):
            start, end = pieces[first].start, pieces[last - 1].end
            clean = (
                adds[last - 1] == adds[first]
                and (start == 0 or self._adds_up(start))
                and not self.text[start].isspace()
            )
            if clean and (end == len(self.text) or self._adds_up(end)):
                # All but the tail is known: the tail is counted as it stood, alone, and without white space behind it.
                tail = self._tail(start, end)
                whole = end + (end < len(self.text))
                self._count_singles(self.text[end:whole])
                texts += [self.text[tail:whole], self.text[tail:end], self.text[tail:end].rstrip()]
                known = sums[last] - sums[first] + (self._single[self.text[end]] if whole > end else 0)
                plans.append((start, end, known))
            else:
                texts += [self.text[start:end], self.text[start:end].strip()]
                plans.append((start, end, None))
        counts = iter(self.counter.counts(texts))
        runs = []
        for start, end, base in plans:
            rest = 0 if base is None else base - next(counts)
            runs.append(_Run(start, end, rest + next(counts), rest + next(counts)))
        return runs

    def _tail(self, start: int, end: int) -> int:
        """Return where the last word of a segment begins, at a place over which counts add up, or ``start``."""
        text = self.text
        visible = start + len(text[start:end].rstrip())
        place = text.rfind(" ", start, visible)
        while place > start and text[place - 1].isspace():
            place = text.rfind(" ", start, place)
        return max(place, start)


def _greedy(pieces: Sequence[_Piece], most: int) -> list[int]:
    """Join pieces while their sum is at most ``most``; return the first index of each group, and the length."""
    groups, tokens = [0], 0
    for index, piece in enumerate(pieces):
        if tokens + piece.tokens > most and index > groups[-1]:
            groups.append(index)
            tokens = 0
        tokens += piece.tokens
    return [*groups, len(pieces)]


def _balanced(pieces: Sequence[_Piece], number: int, most: int) -> list[int]:
    """Return ``number`` groups whose largest sum is the smallest possible, and the others close to what is left."""
    sums = [0, *accumulate(piece.tokens for piece in pieces)]
    low, high = max(max(piece.tokens for piece in pieces), -(-sums[-1] // number)), max(most, 1)
    while low < high:
        middle = (low + high) // 2
        if len(_greedy(pieces, middle)) - 1 <= number:
            high = middle
        else:
            low = middle + 1
    count = len(pieces)
    furthest = [bisect_right(sums, sums[i] + low, i + 1) - 1 for i in range(count)]
    needed = [0] * (count + 1)  # groups that the pieces from here on need at least
    for i in range(count - 1, -1, -1):
        needed[i] = 1 + needed[max(furthest[i], i + 1)]
    groups = [0]
    for left in range(number, 1, -1):
        first = groups[-1]
        if count - first < left:  # fewer pieces than groups: there is nothing to even out
            return _greedy(pieces, most)
        latest = min(max(furthest[first], first + 1), count - left + 1)
        earliest = bisect_left(needed, -(left - 1), first + 1, latest + 1, key=lambda need: -need)
        aim = sums[first] + (sums[-1] - sums[first]) / left
        place = bisect_left(sums, aim, earliest, latest + 1)
        near = [p for p in (place - 1, place) if earliest <= p <= latest]
        groups.append(min(near, key=lambda p: abs(sums[p] - aim)) if near else latest)
    return [*groups, count]


def _reference(reasoning: str, eta: int, counter: Counter) -> Segmented | Reject:
    """Segment by the rule of the published script, for comparison.

    Pieces between blank lines; one that does not begin with a capital letter belongs to the one before. A segment is
    closed after it went over eta, by the sum of its thoughts' counts; what closed it stays in it. The blank lines
    between segments are lost.
    """
    first, *others = reasoning.split("\n\n")
    thoughts = [[first]]
    for piece in others:
        if not piece:
            return Reject("", "segment", "reference_empty_piece", "the published rule fails at an empty piece")
        if piece[0].isupper():
            thoughts.append([piece])
        else:
            thoughts[-1].append(piece)
    texts = ["\n\n".join(thought) for thought in thoughts]
    segments: list[str] = []
    tokens: list[int] = []
    opened = False
    for text, count in zip(texts, counter.counts(texts), strict=True):
        if opened:
            segments[-1] += "\n\n" + text
            tokens[-1] += count
        else:
            segments.append(text)
            tokens.append(count)
        opened = tokens[-1] <= eta
    return Segmented(segments, tokens)
