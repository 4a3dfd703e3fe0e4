"""Sends an agent's requests to a provider: within its budget, with retries, and with a record of everything."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from core.agents.llm.archive import Archive, Exchange, Outcome
from core.agents.llm.base import Delta, LimitReached, Outage, Reply, Request, TimeOver, Usage
from core.agents.llm.budget import BYTES_PER_TOKEN, SpendingBudget
from core.agents.llm.redact import Redactor
from core.agents.llm.streams import Provider
from core.agents.llm.transcript import Transcript, counted
from core.records import UserError

PATIENCE = 20.0  # seconds in which one `ask` retries
FIRST, LONGEST = 30.0, 600.0  # seconds until the next `ask` is worthwhile, doubled by each failure in a row
_BACKOFF, _BACKOFF_CAP = 1.0, 8.0


class ApiClient:
    """`ModelClient` of a server. It closes the provider, the archive and the transcript with itself.

    `on_wait` gets a line about each wait; until the model has answered once, `on_notice` does, because the person who
    has just started the run can mend it. An answer that still streams when no `seconds_left` remain is cut off. Tests
    replace `clock`, `sleep` and `noise`.

    The usage of an answer that was cut off is estimated from what streamed of it, on the high side: the server has
    reported the prompt at most. So is the usage if the server reports none, as some local ones do. The reply, the
    archive and the budget hold the same numbers.
    """

    def __init__(
        self,
        provider: Provider,
        archive: Archive,
        transcript: Transcript,
        redact: Redactor,
        budget: SpendingBudget,
        *,
        on_wait: Callable[[str], None] = lambda text: None,
        on_notice: Callable[[str], None] = lambda text: None,
        seconds_left: Callable[[], float] = lambda: math.inf,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        noise: random.Random | None = None,
    ) -> None:
        self.transcript = transcript
        self.archive = archive
        self._provider = provider
        self._redact = redact
        self._budget = budget
        self._on_wait = on_wait
        self._on_notice = on_notice
        self._answered = False  # the model, at least once
        self._seconds_left = seconds_left
        self._clock = clock
        self._sleep = sleep
        self._noise = noise or random.Random()
        self._failures = 0  # `ask`s in a row that ended in an outage

    def ask(self, request: Request, experiment: int) -> Reply:
        self.transcript.results(request.messages)
        begun = self._clock()
        attempt = 0
        while True:
            try:
                reply = self._once(request, experiment)
            except Outage as outage:
                wait = max(outage.seconds, self._backoff(attempt))
                attempt += 1
                # If the last `ask` failed too, one attempt is enough: retries would keep the device waiting.
                if self._failures or self._clock() - begun + wait > PATIENCE:
                    raise self._later(outage) from None
                when = f"again in {wait:.0f} s" if wait >= 1 else "again at once"
                self.transcript.note(when)
                tell = self._on_wait if self._answered else self._on_notice
                tell(f"{outage}; {when}")
                self._sleep(wait)
            else:
                self._failures = 0
                self._answered = True
                return reply

    def close(self) -> None:
        self.transcript.close()
        self._provider.close()
        self.archive.close()

    def _once(self, request: Request, experiment: int) -> Reply:
        """One request, recorded even if it fails."""
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
            usd = self._budget.spend(usage)
            exchange = Exchange(
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
            self.archive.record(exchange)
            if reply is not None:
                self.transcript.replied(reply, usd, seconds)
            else:
                used = f" · {counted(usage, usd)}" if usage.total else ""
                self.transcript.note(f"{detail or outcome}{used} · {seconds:.1f} s")
        self._budget.answered(request, reply)
        return reply

    def _used(self, request: Request, reported: Usage, streamed: int, reply: Reply | None) -> Usage:
        """The usage that the server reported, with estimates for what it did not. `streamed`: bytes of the answer."""
        # An answer that began has at least one token, and at most as many as the request allows.
        generated = min(request.max_tokens, 1 + math.ceil(streamed / BYTES_PER_TOKEN))
        if streamed and not reported.total:
            return Usage(input=self._budget.estimate(request), output=generated)
        if streamed and reply is None:
            return replace(reported, output=max(reported.output, generated))
        return reported

    def _backoff(self, attempt: int) -> float:
        """Seconds, doubled each time, at random in the upper half: so several runs do not retry at the same time."""
        longest: float = min(_BACKOFF_CAP, _BACKOFF * 2.0**attempt)
        return longest * self._noise.uniform(0.5, 1.0)

    def _later(self, outage: Outage) -> Outage:
        """The outage, with the seconds after which the next `ask` is worthwhile."""
        seconds = min(LONGEST, FIRST * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return Outage(str(outage), max(outage.seconds, seconds))
