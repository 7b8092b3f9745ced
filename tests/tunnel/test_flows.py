"""Where SAs come from."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKERS = {
    "ChildSa": {"keys/ike/child.py"},
    "SaParams": {"tunnel/flows.py"},
    "InstallInbound": {"keys/ike/agreement.py", "tunnel/flows.py"},
    "InstallOutbound": {"keys/ike/sa.py", "tunnel/flows.py"},
}
"""What stands for an SA on its way into the engine, and the only places that make it."""


def _calls(node: ast.AST, name: str) -> bool:
    """Whether this calls ``name``; a pattern of a ``match`` does not."""
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name


def test_every_sa_is_made_by_ike_i23() -> None:
    """RFC 4106 §2: the suites must not be used with keys that somebody wrote into a file."""
    found: dict[str, set[str]] = {name: set() for name in MAKERS}
    for folder in ("keys", "tunnel", "discovery"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            for name in (name for name in MAKERS if f"{name}(" in text):
                if any(_calls(node, name) for node in ast.walk(ast.parse(text))):
                    found[name].add(path.relative_to(ROOT).as_posix())
    assert found == MAKERS
