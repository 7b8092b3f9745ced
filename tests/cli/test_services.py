"""``advertise`` and ``browse`` as a person runs them where no host runs."""

from __future__ import annotations

import pytest

from tests.cli.support import Person


def test_nothing_is_published_without_the_owners_word(owner: Person) -> None:
    done = owner.ours("advertise", "_ssh._tcp", "22")
    assert done.returncode == 1
    assert "every host of alice.members.example" in done.stderr
    assert "--yes" in done.stderr
    assert owner.json("advertise", "--list")["services"] == []


def test_services_are_kept_until_the_host_is_up(owner: Person) -> None:
    said = owner.json("advertise", "_SSH._tcp", "22", "--yes", "--txt", "user=me")
    assert (said["type"], said["name"], said["published"]) == ("_ssh._tcp", "desk", False)
    (one,) = owner.json("advertise", "--list")["services"]
    assert (one["port"], one["texts"], one["state"]) == (22, ["user=me"], "waiting")
    assert owner.json("advertise", "_ssh._tcp", "--withdraw")["gone"] is False
    done = owner.ours("advertise", "_ssh._tcp", "--withdraw")
    assert done.returncode == 1
    assert "does not advertise 'desk'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("_ssh._tcp",), 2, "a port belongs to it"),
        (("ssh", "22", "--yes"), 1, "is not a service type"),
        (("_ssh._tcp", "0"), 2, "PORT"),
        (("_ssh._tcp", "22", "--txt", "=x", "--yes"), 1, "has no key"),
        (("--list", "_ssh._tcp"), 2, "nothing else"),
        (("_autotunnel._udp", "1", "--yes"), 1, "autotunnel's own"),
    ],
)
def test_what_cannot_be_advertised_is_told(
    owner: Person, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = owner.ours("advertise", *arguments)
    assert done.returncode == code
    assert said in done.stderr


def test_browsing_needs_a_running_host_and_a_type(owner: Person) -> None:
    assert "start it with `autotunnel up`" in owner.json("browse", code=1)["error"]
    assert "is not a service type" in owner.json("browse", "ssh", code=1)["error"]
