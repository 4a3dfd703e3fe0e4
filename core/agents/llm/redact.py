"""Removes keys from all that is written or raised: those in use, and what looks like one in a header."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

MARK = "[key]"
_SHORTEST = 8  # characters; a shorter "key", such as a local server's "none", is a word like any other
# `Authorization: Bearer ...` and `x-api-key: ...`, also quoted as in a dict or in JSON, and keys by their beginning.
_HEADER = re.compile(
    r"((?:authorization|x-api-key|api-key)\\*[\"']?\s*[:=]\s*\\*[\"']?(?:bearer\s+|basic\s+)?)[\w.~+/=-]{8,}",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(bearer\s+)[\w.~+/=-]{16,}", re.IGNORECASE)
_BEGINNING = re.compile(r"\bsk-(?:ant-|proj-)?[\w-]{16,}")


class Redactor:
    """Called with a text, returns it without keys."""

    def __init__(self, secrets: Iterable[str]) -> None:
        whole = {secret for secret in secrets if len(secret) >= _SHORTEST}
        whole |= {json.dumps(secret)[1:-1] for secret in whole}
        self._secrets = sorted(whole, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MARK)
        text = _HEADER.sub(rf"\1{MARK}", text)
        text = _BEARER.sub(rf"\1{MARK}", text)
        return _BEGINNING.sub(MARK, text)

    def held(self, text: str) -> int:
        """The number of characters at the end that could be the beginning of a key in use."""
        longest = max(map(len, self._secrets), default=1) - 1
        for count in range(min(longest, len(text)), 0, -1):
            if any(secret.startswith(text[-count:]) for secret in self._secrets):
                return count
        return 0
