"""The steps of the demo as they are told (stderr) and kept (for ``--json``)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

SCHEMA = "autotunnel/demo/v1"


@dataclass(slots=True)
class Step:
    """One step: ``seconds`` it took; ``detail`` holds its figures, with units in their names."""

    name: str
    ok: bool = False
    seconds: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)
    said: str = ""

    def tell(self, text: str, **detail: Any) -> None:
        """Say in one sentence what happened, and keep its figures."""
        self.said = text
        self.detail.update(detail)


class StepFailedError(Exception):
    """What a step promises did not come true; the text says what was seen instead."""


class Story:
    """Tells the steps on ``console`` (stderr) while they happen, and remembers them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.steps: list[Step] = []

    @contextlib.contextmanager
    def step(self, name: str, doing: str) -> Iterator[Step]:
        """Run one step; an exception in it is told, kept and passed on."""
        step = Step(name)
        self.steps.append(step)
        started = time.monotonic()
        try:
            with self.console.status(escape(doing)):
                yield step
            step.ok = True
        except BaseException as error:
            ended = isinstance(error, KeyboardInterrupt | SystemExit)
            step.detail["error"] = "interrupted" if ended else str(error) or type(error).__name__
            step.said = f"failed while {doing}: {step.detail['error']}"
            raise
        finally:
            step.seconds = round(time.monotonic() - started, 3)
            self._print(step)

    def as_dict(self) -> dict[str, Any]:
        """The contract of ``demo --json`` (DESIGN §5)."""
        return {
            "schema": SCHEMA,
            "ok": bool(self.steps) and all(step.ok for step in self.steps),
            "steps": [
                {
                    "name": step.name,
                    "ok": step.ok,
                    "seconds": step.seconds,
                    "detail": step.detail,
                }
                for step in self.steps
            ],
        }

    def _print(self, step: Step) -> None:
        mark = "[green]ok    [/]" if step.ok else "[bold red]FAILED[/]"
        head = f"{mark} [bold]{step.name:<12}[/] {step.seconds:6.2f} s  "
        self.console.print(head + escape(step.said), highlight=False, soft_wrap=True)
