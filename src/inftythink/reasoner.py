"""Drives trajectories through a backend: many at once, without a barrier between rounds.

Each of ``slots`` workers drives one trajectory to its end and takes the next problem then, so that a slot is idle only
when no problem is left, memory holds ``slots`` trajectories however many problems come, and rounds of one trajectory
follow each other at once (which is also what a server's prefix cache likes best).
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from inftythink.backends.base import Backend, Delta, Request, Sampling
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError, InputError, UsageError, boundary
from inftythink.protocol import (
    Carry,
    Completion,
    Event,
    Format,
    Generate,
    Machine,
    Policy,
    Problem,
    Purpose,
    Stop,
    Trajectory,
    make_carry,
    make_format,
)
from inftythink.protocol.live import Live

T = TypeVar("T")


class Journal(Protocol):
    """Where finished calls are kept, so that a run that died goes on where it was (``store.RunFolder`` is one)."""

    def is_done(self, problem_id: str, sample: int) -> bool:
        """Say whether the trajectory is on record as finished."""
        ...

    def replay(self, problem_id: str, sample: int) -> list[Completion]:
        """Return the completions on record for a trajectory, in order."""
        ...

    def record(self, problem_id: str, sample: int, call: int, completion: Completion) -> None:
        """Put a completion on record before it is acted on."""
        ...

    def finish(self, trajectory: Trajectory) -> None:
        """Put a finished trajectory on record."""
        ...


@dataclass(frozen=True, slots=True)
class Began:
    """A call begins: round ``k``, and what it is for."""

    k: int
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Ended:
    """A call ended; the completion has its token counts."""

    k: int
    completion: Completion


StreamEvent = Began | Event | Ended | Trajectory


@dataclass
class Reasoner:
    """Reasons with bounded context, on any backend.

    ``carry`` and ``policy`` say how rounds are joined and limited; ``instruction`` follows every question.
    ``summariser`` takes the ``SUMMARISE`` calls of the carry ``two_call`` when it is to be another model.
    A seed in ``sampling`` is varied for every problem, sample and call. At most ``slots`` calls run at once.

    Everything here is async; ``solve_sync`` and ``run_sync`` wrap it for programs that are not.
    """

    backend: Backend
    carry: str = "summary"
    policy: Policy = field(default_factory=Policy)
    sampling: Sampling = field(default_factory=Sampling)
    instruction: str = ""
    slots: int = 64
    summariser: Backend | None = None

    async def start(self) -> None:
        """Start the backends and check that they can do what the carry needs.

        Raises ``BackendFatalError`` when one cannot work, ``UsageError`` when the carry asks for too much.
        """
        await self.backend.start()
        if self.summariser is not None:
            await self.summariser.start()
        carry, able = make_carry(self.carry, self.policy), self.backend.capabilities
        if carry.needs_prefill and not able.prefill:
            raise UsageError(
                f"the carry {self.carry!r} begins the model's turn for it, which {self.backend.name} cannot do over "
                "its chat interface. Give a tokenizer, so that its completions interface is used, or use the carry "
                "two_call."
            )
        if carry.needs_token_ids and not able.token_ids:
            raise UsageError(f"the carry {self.carry!r} needs token ids, which {self.backend.name} does not return")

    async def aclose(self) -> None:
        """Close the backends."""
        await self.backend.aclose()
        if self.summariser is not None:
            await self.summariser.aclose()

    async def __aenter__(self) -> Reasoner:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    @property
    def format(self) -> Format:
        """The format of the rounds; it depends on what the backend can do."""
        return make_format(self.carry, self.instruction, self.backend.capabilities.prefill)

    # -- one problem --

    async def solve(self, problem: Problem | str, sample: int = 0) -> Trajectory:
        """Drive one problem to its end. A failed backend gives a trajectory with outcome FAILED.

        Raises ``BackendFatalError`` when the backend refuses every request.
        """
        return await self._drive(_problem(problem), sample, self._parts(), None)

    async def stream(self, problem: Problem | str, sample: int = 0) -> AsyncIterator[StreamEvent]:
        """Drive one problem, telling what happens while it does; the trajectory comes last.

        Closing the iterator (or cancelling the task that reads it) stops the work behind it.
        """
        carry, fmt = self._parts()
        machine, live = Machine(_problem(problem), fmt, carry, self.policy, sample), Live(fmt)
        while isinstance(asked := machine.next(), Generate):
            for event in live.begin(asked):
                yield event
            yield Began(asked.k, asked.purpose)
            completion: Completion | None = None
            backend, request = self._route(asked, machine.problem.id, sample)
            try:
                with boundary(f"backend {backend.name}"):
                    async for piece in backend.stream(request):
                        if isinstance(piece, Delta):
                            for event in live.feed(piece.text, piece.reasoning):
                                yield event
                        else:
                            completion = piece
            except BackendFatalError:
                raise
            except (BackendError, InputError) as error:
                completion = _without_text(asked, error)
            if completion is None:
                completion = Completion("", Stop.ABORT, error=f"backend {backend.name}: the stream had no end")
            for event in live.end(completion):
                yield event
            yield Ended(asked.k, completion)
            machine.receive(completion)
        for event in live.finish():
            yield event
        yield asked.trajectory

    # -- many problems --

    async def solve_many(self, problems: Iterable[Problem | str], samples: int = 1) -> list[Trajectory]:
        """Drive many problems; return their trajectories in the order of the problems, samples together."""
        order: dict[tuple[str, int], int] = {}

        def numbered() -> Iterator[Problem]:
            for number, problem in enumerate(problems):
                named = problem if isinstance(problem, Problem) else Problem(str(number), problem)
                if (named.id, 0) in order:
                    raise UsageError(f"two problems have the id {named.id!r}; ids must differ")
                order.update({(named.id, sample): len(order) + sample for sample in range(samples)})
                yield named

        done = [trajectory async for trajectory in self.run(numbered(), samples)]
        return sorted(done, key=lambda t: order[t.problem.id, t.sample])

    async def run(
        self, problems: Iterable[Problem], samples: int = 1, journal: Journal | None = None
    ) -> AsyncIterator[Trajectory]:
        """Drive problems as they come; yield trajectories as they end, in that order.

        Problems are taken from the iterable only when a slot is free, so that it may be endless. With a ``journal``,
        finished trajectories are left out and finished calls are not made again. A backend that fails gives
        trajectories with outcome FAILED; one that refuses everything raises ``BackendFatalError``. When the iterator
        is closed, all work behind it is cancelled.
        """
        source = (
            (problem, sample)
            for problem in problems
            for sample in range(samples)
            if journal is None or not journal.is_done(problem.id, sample)
        )
        parts = self._parts()
        finished: asyncio.Queue[Trajectory | None] = asyncio.Queue()
        room = asyncio.Semaphore(2 * self.slots)  # a slow reader must not let finished trajectories pile up

        async def work(task: tuple[Problem, int] | None) -> None:
            """Drive one trajectory after the other."""
            while task is not None:
                trajectory = await self._drive(*task, parts, journal)
                await room.acquire()
                finished.put_nowait(trajectory)
                task = next(source, None)

        async def supervise() -> None:
            """Start workers as long as there is something for them; wait for all, or for the first error."""
            workers: list[asyncio.Task[None]] = []
            try:
                while len(workers) < self.slots and (task := next(source, None)) is not None:
                    workers.append(asyncio.create_task(work(task)))
                    if len(workers) % 64 == 0:
                        await asyncio.sleep(0)  # let the first ones begin
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

        boss = asyncio.create_task(supervise())
        boss.add_done_callback(lambda _: finished.put_nowait(None))
        try:
            while (trajectory := await finished.get()) is not None:
                room.release()
                yield trajectory
            await boss
        finally:
            boss.cancel()
            await asyncio.gather(boss, return_exceptions=True)

    def solve_sync(self, problem: Problem | str) -> Trajectory:
        """``solve`` for programs without an event loop: starts the backend, solves, closes it."""
        return run_sync(self._with_backend(self.solve(problem)))

    def solve_many_sync(self, problems: Iterable[Problem | str], samples: int = 1) -> list[Trajectory]:
        """``solve_many`` for programs without an event loop: starts the backend, solves, closes it."""
        return run_sync(self._with_backend(self.solve_many(problems, samples)))

    async def _with_backend(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with self:
                return await work
        finally:
            work.close()

    # -- inside --

    def _parts(self) -> tuple[Carry, Format]:
        return make_carry(self.carry, self.policy), self.format

    async def _drive(
        self, problem: Problem, sample: int, parts: tuple[Carry, Format], journal: Journal | None
    ) -> Trajectory:
        machine = Machine(problem, parts[1], parts[0], self.policy, sample)
        known = journal.replay(problem.id, sample) if journal is not None else []
        while isinstance(asked := machine.next(), Generate):
            if asked.call < len(known):
                completion = known[asked.call]
            else:
                completion = await self._complete(asked, problem.id, sample)
                # What failed is not put on record, so that a resumed run tries it again.
                if journal is not None and completion.stop is not Stop.ABORT:
                    journal.record(problem.id, sample, asked.call, completion)
            machine.receive(completion)
        if journal is not None:
            journal.finish(asked.trajectory)
        return asked.trajectory

    async def _complete(self, asked: Generate, problem_id: str, sample: int) -> Completion:
        backend, request = self._route(asked, problem_id, sample)
        try:
            with boundary(f"backend {backend.name}"):
                return await backend.complete(request)
        except BackendFatalError:
            raise
        except (BackendError, InputError) as error:  # InputError: this text cannot be rendered; others can
            return _without_text(asked, error)

    def _route(self, asked: Generate, problem_id: str, sample: int) -> tuple[Backend, Request]:
        """Choose the backend of a call, and give the call its own seed."""
        sampling = self.sampling
        if sampling.seed is not None:
            sampling = dataclasses.replace(sampling, seed=derive_seed(sampling.seed, problem_id, sample, asked.call))
        separate = asked.purpose is Purpose.SUMMARISE and self.summariser is not None
        backend = self.summariser if separate and self.summariser is not None else self.backend
        return backend, Request(asked.prompt, asked.max_tokens, asked.stop, sampling)


def _without_text(asked: Generate, error: Exception) -> Completion:
    """Return what came of a call that gave no text: it failed, or the model has left itself no room in its window.

    The first call holds the question alone: if that is too long, the settings are wrong. Later ones hold what the model
    wrote to be carried, and a window that this outgrew ended the round as any limit of length does: FAILED trajectories
    are in no denominator, and a model must not gain by summaries without end.
    """
    outgrown = isinstance(error, ContextTooLongError) and asked.call > 0
    return Completion("", Stop.LENGTH if outgrown else Stop.ABORT, error=str(error))


def derive_seed(seed: int, *names: object) -> int:
    """Return a 31-bit seed that depends on ``seed`` and ``names`` alone, on every machine and in every process."""
    named = "/".join(map(str, (seed, *names))).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(named, digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from code that is not async, inside a running event loop too (notebooks)."""
    try:
        asyncio.get_running_loop()
        inside = True
    except RuntimeError:
        inside = False
    if not inside:
        return asyncio.run(work)
    result: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target, name="inftythink-run-sync")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


def _problem(problem: Problem | str) -> Problem:
    return problem if isinstance(problem, Problem) else Problem("0", problem)
