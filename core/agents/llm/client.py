"""Asks a provider for an agent: within limits, again after a passing failure, and with a record of everything."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from core.agents.llm import prices
from core.agents.llm.archive import Archive, Outcome
from core.agents.llm.base import Delta, LimitReached, Outage, Provider, Reply, Request, TimeOver, Usage
from core.agents.llm.budget import BYTES_PER_TOKEN, SpendingBudget
from core.agents.llm.prices import Price
from core.agents.llm.redact import Redactor
from core.agents.llm.transcript import Transcript, counted
from core.records import UserError

PATIENCE = 20.0  # seconds of one `ask` in which it is tried again
FIRST, LONGEST = 30.0, 600.0  # seconds until it is worth asking again, doubled by each failure in a row
_BACKOFF, _BACKOFF_CAP = 1.0, 8.0


class ApiClient:
    """`ModelClient` of a server. It closes the provider, the archive and the transcript with itself.

    `max_usd` and `max_tokens` bound what this run uses. `on_wait` is told what is waited for, in one line. An answer
    that still streams when there are no `seconds_left` is cut off. `clock`, `sleep` and `noise` are given by tests.

    What an answer cost that broke off is an estimate from what streamed of it, on the high side: its server has told of
    the prompt at most. So is what a server counts that counts nothing, as some on this machine. The reply, the archive
    and the limits hold the same numbers.
    """

    def __init__(
        self,
        provider: Provider,
        archive: Archive,
        transcript: Transcript,
        redact: Redactor,
        *,
        price: Price | None = None,
        max_usd: Decimal | None = None,
        max_tokens: int | None = None,
        on_wait: Callable[[str], None] = lambda text: None,
        seconds_left: Callable[[], float] = lambda: math.inf,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        noise: random.Random | None = None,
    ) -> None:
        if max_usd is not None and price is None:
            raise prices.needed(provider.model)
        self.transcript = transcript
        self.archive = archive
        self._provider = provider
        self._redact = redact
        self._price = price
        self._budget = SpendingBudget(price=price, max_usd=max_usd, max_tokens=max_tokens)
        self._on_wait = on_wait
        self._seconds_left = seconds_left
        self._clock = clock
        self._sleep = sleep
        self._noise = noise or random.Random()
        self._failures = 0  # `ask`s in a row that ended in an outage

    def ask(self, request: Request, experiment: int) -> Reply:
        begun = self._clock()
        attempt = 0
        while True:
            try:
                reply = self._once(request, experiment)
            except Outage as outage:
                wait = max(outage.seconds, self._backoff(attempt))
                attempt += 1
                # A server that was away the last time is not worth the device's time: one attempt tells.
                if self._failures or self._clock() - begun + wait > PATIENCE:
                    raise self._given_up(outage) from None
                self._wait(str(outage), wait)
            else:
                self._failures = 0
                return reply

    def close(self) -> None:
        self.transcript.close()
        self._provider.close()
        self.archive.close()

    def _once(self, request: Request, experiment: int) -> Reply:
        """One request, recorded whatever comes of it."""
        try:
            request = replace(request, max_tokens=self._budget.fit(request))
        except LimitReached as reached:
            self.transcript.note(str(reached))
            raise
        started, begun = datetime.now(UTC), self._clock()
        self.transcript.request(experiment, self._provider.model)
        streamed = 0

        def on_delta(delta: Delta) -> None:
            nonlocal streamed
            streamed += len(delta.text.encode(errors="replace"))
            self.transcript.delta(delta)
            if self._seconds_left() <= 0:
                raise TimeOver("the run's time is over")

        outcome: Outcome = "interrupted"
        reply: Reply | None = None
        detail = ""
        try:
            reply = self._provider.reply(request, on_delta)
            outcome = "replied"
        except (Outage, UserError) as error:
            outcome = "outage" if isinstance(error, Outage) else "error"
            detail = self._redact(str(error))
            raise (Outage(detail, error.seconds) if isinstance(error, Outage) else UserError(detail)) from None
        except TimeOver as over:
            detail = str(over)
            raise
        finally:
            seconds = self._clock() - begun
            usage = self._used(request, self._provider.so_far if reply is None else reply.usage, streamed, reply)
            if reply is not None:
                reply = replace(reply, usage=usage)
            usd = None if self._price is None else self._price.cost(usage)
            self._budget.spend(usage)
            self.archive.record(
                experiment=experiment,
                provider=self._provider.name,
                model=self._provider.model,
                request=request,
                reply=reply,
                usage=usage,
                usd=usd,
                outcome=outcome,
                detail=detail,
                started=started.isoformat(timespec="milliseconds"),
                seconds=round(seconds, 3),
            )
            if reply is not None:
                self.transcript.replied(reply, usd, seconds)
            else:
                used = f" · {counted(usage, usd)}" if usage.total else ""
                self.transcript.note(f"{detail or outcome}{used} · {seconds:.1f} s")
        self._budget.answered(request, reply)
        return reply

    def _used(self, request: Request, told: Usage, streamed: int, reply: Reply | None) -> Usage:
        """What the server told, with an estimate for what it did not. `streamed`: bytes of the answer."""
        # An answer's beginning is a token, and none is longer than was asked for.
        generated = min(request.max_tokens, 1 + math.ceil(streamed / BYTES_PER_TOKEN))
        if streamed and not told.total:
            return Usage(input=self._budget.estimate(request), output=generated)
        if streamed and reply is None:
            return replace(told, output=max(told.output, generated))
        return told

    def _backoff(self, attempt: int) -> float:
        """Doubled each time, and anywhere in its upper half, so that several runs do not knock at once."""
        longest: float = min(_BACKOFF_CAP, _BACKOFF * 2.0**attempt)
        return longest * self._noise.uniform(0.5, 1.0)

    def _wait(self, reason: str, seconds: float) -> None:
        when = f"again in {seconds:.0f} s" if seconds >= 1 else "again at once"
        self.transcript.note(when)
        self._on_wait(f"{reason}; {when}")
        self._sleep(seconds)

    def _given_up(self, outage: Outage) -> Outage:
        seconds = min(LONGEST, FIRST * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return Outage(str(outage), max(outage.seconds, seconds))
