"""``autotunnel lab``: an internet of namespaces, to see what works behind which router."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tunnel.cli.files import config_path
from tunnel.cli.talk import Failure, JsonOption, command, emit, put, say, show
from tunnel.config import load_host
from tunnel.config.base import ConfigError
from tunnel.config.reading import convert, read
from tunnel.io.lab.scenario import KINDS, SCENARIOS, Kind, Links, Network, Scenario, load

_TAKEN = ("nat", "ike", "engine")
"""Tables of a person's configuration that the lab's hosts take over: what is not about who or
where that host is."""


def register(app: typer.Typer) -> None:
    """Adds the command of this module."""
    command(app, "lab")(lab)


def lab(
    scenario: Annotated[
        str | None, typer.Argument(help="A name of --list, or a TOML file.", show_default=False)
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name all scenarios and kinds.")] = False,
    left: Annotated[str | None, typer.Option(help="What the left host stands behind.")] = None,
    right: Annotated[str | None, typer.Option(help="What the right host stands behind.")] = None,
    delay: Annotated[float | None, typer.Option(help="Of each link, in ms.")] = None,
    jitter: Annotated[float | None, typer.Option(help="Added at random, in ms.")] = None,
    loss: Annotated[float | None, typer.Option(help="Of each link, in percent.")] = None,
    mtu: Annotated[int | None, typer.Option(help="Of each link, in octets.")] = None,
    pcap: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep a capture of every hop there.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave all standing until Ctrl-C, to look around.")
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help=f"Try this configuration: the hosts take over its {', '.join(_TAKEN)}.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build two homes and the internet between them here, and see whether they meet.

    Exit code 0: it went as such networks allow; 1: it did not. Needs root, and touches nothing of
    this machine's network.
    """
    if list_:
        _list(as_json)
        return
    name, chosen = _choose(scenario, left, right)
    wanted = {"delay_ms": delay, "jitter_ms": jitter, "loss": loss, "mtu": mtu}
    chosen = _over(chosen, {key: value for key, value in wanted.items() if value is not None})
    tables = _tables(config)
    _play(name, chosen, tables, pcap, keep=keep, as_json=as_json)


# --- What is asked for ------------------------------------------------------------------------


def _list(as_json: bool) -> None:
    if as_json:
        about = {name: one.about for name, one in SCENARIOS.items()}
        emit("lab", {"scenarios": about, "kinds": KINDS})
        return
    table = Table.grid(padding=(0, 2))
    for name, one in SCENARIOS.items():
        table.add_row(name, one.about)
    table.add_row("", "")
    for kind, words in KINDS.items():
        table.add_row(f"--left {kind}", words)
    show(table)


def _choose(scenario: str | None, left: str | None, right: str | None) -> tuple[str, Scenario]:
    if scenario is None:
        one, other = _kind("left", left or "public"), _kind("right", right or "public")
        return f"{one} and {other}", Scenario(left=Network(one), right=Network(other))
    if left is not None or right is not None:
        raise typer.BadParameter("a scenario says itself what --left and --right stand behind")
    if scenario in SCENARIOS:
        return scenario, SCENARIOS[scenario]
    if not scenario.endswith(".toml"):
        raise typer.BadParameter(f"there is no scenario {scenario!r}; `autotunnel lab --list`")
    return Path(scenario).stem, load(Path(scenario))


def _kind(side: str, word: str) -> Kind:
    for kind in KINDS:
        if kind == word:
            return kind
    raise typer.BadParameter(f"--{side} {word}: use one of {', '.join(KINDS)}")


def _over(scenario: Scenario, wanted: dict[str, float | int]) -> Scenario:
    """The scenario with other links, where the person wants them."""
    if not wanted:
        return scenario
    known = {name: getattr(scenario.links, name) for name in Links.__struct_fields__}
    try:
        links = convert(Path("links"), {**known, **wanted}, Links)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    return Scenario(scenario.about, scenario.left, scenario.right, links, scenario.event)


def _tables(config: str | None) -> dict[str, dict[str, Any]]:
    if config is None:
        return {}
    path = config_path(config)
    load_host(path)  # says what is wrong with it
    return {name: values for name, values in read(path).items() if name in _TAKEN}


# --- What happens -----------------------------------------------------------------------------


def _play(
    name: str,
    scenario: Scenario,
    tables: dict[str, dict[str, Any]],
    pcap: Path | None,
    *,
    keep: bool,
    as_json: bool,
) -> None:
    from tunnel.io.lab import Lab, missing
    from tunnel.io.lab.play import PROGRAMS, Play

    reason = missing((*PROGRAMS, *(("tcpdump",) if pcap else ())))
    if reason is not None:
        raise Failure(f"no lab can be built here: {reason}")
    about = f": {scenario.about}" if scenario.about else ""
    say(f"{name}{about}")
    with Lab() as stage:
        play = Play(stage, scenario, tell=say, tables=tables, pcap=pcap)
        if keep:
            _show_ways(stage)
        report = play.run()
        facts = {"scenario": name, "about": scenario.about, **report.as_dict()}
        if as_json:
            emit("lab", facts)
        else:
            put(_verdict(name, report.found, report.path, report.reason))
        if keep:
            say("All stands until Ctrl-C.")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    if not report.as_expected:
        wish = "a direct path" if report.expected else "no direct path"
        raise typer.Exit(_told(f"such networks allow {wish}: that is not what happened"))


def _told(text: str) -> int:
    say(text, style="red")
    return 1


def _verdict(name: str, found: bool, path: str | None, reason: str | None) -> str:
    return f"{name}: {path}" if found else f"{name}: not reached; {reason}"


def _show_ways(stage: Any) -> None:
    say("A shell on each machine:")
    for machine in stage.machines:
        say(f"  {machine.role:<20} ip netns exec {machine.name} bash")
