"""``explain``: how the path to a peer was chosen, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tunnel.cli.files import config_path
from tunnel.cli.observe import NameArgument
from tunnel.cli.talk import ConfigOption, Failure, JsonOption, command, emit, say, show
from tunnel.config import HostConfig, load_host
from tunnel.io.control import ask

_STYLES = {"failed": "red", "path": "green", "moved": "yellow"}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "explain")(explain)


def explain(
    name: NameArgument,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    replay: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Of a recording that `up --record FILE` made."),
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Of --replay: as it was so long after start."),
    ] = None,
) -> None:
    """Show how the path to NAME was chosen: what was learnt, tried and decided, and when."""
    settings = load_host(config_path(config))
    if replay is None and until is not None:
        raise typer.BadParameter("--until is of a recording; name one with --replay FILE")
    if replay is not None:
        facts = _replayed(settings, Path(replay), name, until)
    else:
        question = {"command": "explain", "name": name}
        facts = asyncio.run(ask(settings.control_socket, question))
    if as_json:
        emit("explain", facts)
    else:
        show(story(facts))


def _replayed(settings: HostConfig, file: Path, name: str, until: float | None) -> dict[str, Any]:
    """What the host of a recording would have said, played again offline."""
    # A whole node: nobody else here needs it.
    from tunnel.io.replaying import Replay
    from tunnel.recording import ReplayError

    replay = Replay(file, settings)
    try:
        replay.run(until)
    except ReplayError as problem:
        cause = f"{file} was made by {replay.version or 'another version'}: {problem}"
        fix = "replay it with that version, and with the secrets of then"
        raise Failure(f"{cause}; {fix}") from None
    facts = None if replay.node is None else replay.node.explain(name, replay.ended_at)
    if facts is None:
        raise Failure(f"nothing is known of {name} in {file}")
    seconds = round(replay.ended_at - replay.began, 3)
    end = replay.end or ("it was asked for no more" if until is not None else "it was broken off")
    say(f"{replay.calls} calls of {seconds:.1f} s were made again, with the same outcome; {end}")
    about = {"calls": replay.calls, "seconds": seconds, "end": end, "version": replay.version}
    return facts | {"replay": about}


def story(facts: Mapping[str, Any]) -> Group:
    """An explanation (:mod:`tunnel.explaining`) for a person: what is, then how it came to be."""
    table = Table.grid(padding=(0, 2))
    for key, value in _now(facts):
        table.add_row(key, value)
    events = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("at", "ago", "what", "and so"):
        events.add_column(heading, no_wrap=heading != "and so", overflow="fold")
    for event in facts["events"]:
        what = event["what"]
        events.add_row(
            f"{datetime.fromtimestamp(event['at_unix']):%H:%M:%S}",
            _age(event["ago_s"]),
            Text(what, _STYLES.get(what, "")),
            _sentence(event),
        )
    lines: list[Any] = [table, "", events if events.row_count else "nothing has happened yet"]
    if facts["forgotten_events"]:
        lines.append(f"{facts['forgotten_events']} earlier events are forgotten")
    return Group(*lines)


def _now(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How it stands, in a few lines."""
    rows = [("peer", facts["name"]), ("state", facts["state"])]
    if facts["reason"]:
        rows.append(("because", facts["reason"]))
    path, records, ours = facts["path"], facts["records"], facts["ours"]
    if path is not None:
        words = [f"{path['kind']} to {path['endpoint']}", f"since {_age(path['since_s'])}"]
        words += [] if path["rtt_ms"] is None else [f"round trip {path['rtt_ms']:.1f} ms"]
        words += [] if path["mtu"] is None else [f"MTU {path['mtu']}"]
        words += [f"suite {path['suite']}"]
        words += ["kept alive: a NAT stands before us"] if path["behind_nat"] else []
        words += [f"{path['being_proven']} is being proven"] if path["being_proven"] else []
        rows.append(("path", ", ".join(words)))
        if path["home_agent"]:
            rows.append(
                ("through", f"{path['home_agent']}: {path['relay_reason'] or 'it is there'}")
            )
    if records is not None:
        said = [*records["endpoints"], *records["info"]] or ["nothing is known of where it is"]
        age = f", {_age(records['age_s'])} ago" if records["age_s"] is not None else ""
        rows.append(("its records", f"{', '.join(said)} ({records['source']}{age})"))
    own = ", ".join(ours["endpoints"]) or "none yet"
    mapping = f"; our NAT maps {ours['mapping']} of the destination" if ours["mapping"] else ""
    rows.append(("our endpoints", own + mapping))
    return rows


def _sentence(event: Mapping[str, Any]) -> str:
    who = "this host: " if event["about"] == "host" else ""
    fields = ", ".join(f"{key} {value}" for key, value in event["fields"].items())
    again = ""
    if event["times"] > 1:
        again = f" [{event['times']} times, last {_age(event['last_ago_s'])} ago]"
    return f"{who}{event['why']}{f' ({fields})' if fields else ''}{again}"


def _age(seconds: float | None) -> str:
    """Milliseconds where they matter, else what a person would say."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.3f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
