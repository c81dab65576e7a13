"""A verdict in the making: the judgement of one call, and what the steps after it add or excuse."""

from __future__ import annotations

from dataclasses import replace

from suite.records.record import by_precedence
from suite.verdict.judgement import Judgement


class Verdict:
    """What is wrong with a call, step by step: its judgement first, then the declared domain, side
    effects and laws.
    """

    def __init__(self, judgement: Judgement, title: str) -> None:
        """title: names the call where the judgement has nothing to say."""
        self.judgement = judgement
        self.known = ""
        """Why what the judgement found is a known failure; empty where it is none."""
        self._broken = set(judgement.broken)
        self._notes = [judgement.message if judgement.broken else f"{title}: law_broken"]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong, and nothing was excused."""
        return not self._broken and not self.known

    @property
    def broken(self) -> tuple[str, ...]:
        """Every status that holds and is not excused, in order of precedence."""
        return by_precedence(self._broken)

    @property
    def status(self) -> str:
        """The first status that holds, known_failure where all were excused, or passed."""
        return next(iter(self.broken), "known_failure" if self.known else "passed")

    @property
    def message(self) -> str:
        """The verdict in words, one finding a line."""
        return self.judgement.message if self.clean else "\n".join(self._notes)

    def breaks(self, law: str, why: str, *, status: str = "law_broken") -> None:
        """The call breaks a law."""
        self._broken.add(status)
        self._notes.append(f"  law       {law}: {why}")

    def excuse(self, why: str) -> None:
        """What the judgement found is a known failure."""
        self.known = why
        self._broken -= set(self.judgement.broken)
        self._notes.insert(0, why)

    def locate(self, where: str) -> None:
        """Where in the keys the call goes wrong."""
        self._notes.append(f"  in keys   {where}")
        self.judgement = replace(self.judgement, tiles={**self.judgement.tiles, "key": where})
