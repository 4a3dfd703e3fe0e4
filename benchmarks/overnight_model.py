"""A model that is a script: reads the trainer, makes one edit of a list, checks it, proposes it.

Answers a request of the Messages API with the blocks of its next turn; what it says follows from the conversation alone
and from how many proposals it has made before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Block = dict[str, Any]


@dataclass(frozen=True)
class Idea:
    hypothesis: str
    old: str  # occurs once in backends/torch/train.py
    new: str


MLP = "self.down(F.relu(self.up(norm(x_BTD))).square())"
HIDDEN = "self.up, self.down = Linear(width, 4 * width), Linear(4 * width, width)"
EMBEDDED = "embedded = [layer % 2 == (DEPTH - 1) % 2 for layer in range(DEPTH)]"
QUERY = "q_BTNH = norm(rotate(self.query(x_BTD).view(heads), rotary))"
IDEAS = (
    Idea("A longer rotary wave is wasted on 256 tokens: a smaller base tells near places apart, and is worth a search",
         "ROTARY_BASE = 10000.0", "ROTARY_BASE = 1000.0  # tune: log 100 .. 100000"),
    Idea("GELU passes small negative inputs, where squared ReLU gives no gradient", MLP,
         "self.down(F.gelu(self.up(norm(x_BTD))))"),
    Idea("Sharper attention early: queries a fifth larger, and how much is worth a search",
         QUERY, QUERY.replace("norm(", "1.2 * norm(", 1)),
    Idea("Value embeddings in every layer: a look-up is cheap, and it learns in few steps",
         EMBEDDED, "embedded = [True for _ in range(DEPTH)]"),
    Idea("A narrower MLP makes the step quicker, and more steps count for more in a short trial",
         HIDDEN, HIDDEN.replace("4 * width", "3 * width")),
    Idea("A shorter momentum ramp fits a run of a few dozen steps",
         "MUON_MOMENTUM = (0.85, 0.95, 300)", "MUON_MOMENTUM = (0.85, 0.92, 30)"),
    Idea("Less memory in the second moment follows gradients that change quickly at the start",
         "MUON_BETA2 = 0.95", "MUON_BETA2 = 0.9  # tune: linear 0.8 .. 0.99"),
    Idea("A looser cap lets the logits of frequent tokens grow", "SOFTCAP = 15.0",
         "SOFTCAP = 30.0  # tune: log 5 .. 60"),
    Idea("No value embeddings: fewer parameters to move, a quicker step", EMBEDDED, "embedded = [False] * DEPTH"),
    Idea("A wider MLP: the products of a larger matrix use the processor better", HIDDEN,
         HIDDEN.replace("4 * width", "6 * width")),
    Idea("Gates that read fewer channels", "GATE_CHANNELS = 32", "GATE_CHANNELS = 12  # tune: int 4 .. 64"),
    Idea("SiLU is smooth at zero", MLP, "self.down(F.silu(self.up(norm(x_BTD))))"),
    Idea("A leak below zero keeps units alive", MLP,
         "self.down(F.leaky_relu(self.up(norm(x_BTD)), 0.1).square())"),
    Idea("Halved queries attend more evenly, which suits a model that has seen little",
         QUERY, QUERY.replace("norm(", "0.5 * norm(", 1)),
    Idea("The embedding's share in each layer follows its gradient more slowly",
         "X0_BETAS = (0.96, 0.95)", "X0_BETAS = (0.9, 0.99)"),
)  # fmt: skip


@dataclass
class ScriptedModel:
    """`model(request)` is the next turn. Each proposal takes the next idea that the trainer has a place for."""

    ideas: tuple[Idea, ...] = IDEAS
    proposals: int = 0
    _next: int = field(default=0, repr=False)

    def __call__(self, request: dict[str, Any]) -> list[Block]:
        """The blocks of the next assistant turn: some words, and one call of a tool."""
        results = _results(request["messages"])
        if not results:
            return self._calls("I read the trainer before I change it.", "read_trainer", {})
        last, failed = results[-1]
        if last in ("read_trainer", "edit") and (last == "read_trainer" or failed):
            idea = self._take()
            return self._calls(idea.hypothesis + ".", "edit", {"old": idea.old, "new": idea.new})
        if last == "edit":
            return self._calls("Does it run at all?", "check", {})
        if last == "check" and not failed:
            self.proposals += 1
            return self._calls("It runs.", "propose", {"hypothesis": self.ideas[self._next - 1].hypothesis})
        idea = self._take()
        return [
            *self._calls("Then something else.", "reset_draft", {}),
            *self._calls(idea.hypothesis + ".", "edit", {"old": idea.old, "new": idea.new})[1:],
        ]

    def _take(self) -> Idea:
        self._next = self._next % len(self.ideas) + 1
        return self.ideas[self._next - 1]

    def _calls(self, text: str, name: str, values: dict[str, Any]) -> list[Block]:
        return [{"type": "text", "text": text}, {"type": "tool_use", "name": name, "input": values}]


def _results(messages: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """(tool, whether it failed) of every call that was answered in the conversation, in order."""
    names: dict[str, str] = {}
    results: list[tuple[str, bool]] = []
    for message in messages:
        for block in message["content"] if isinstance(message["content"], list) else []:
            if block["type"] == "tool_use":
                names[block["id"]] = block["name"]
            elif block["type"] == "tool_result":
                results.append((names[block["tool_use_id"]], bool(block.get("is_error"))))
    return results
