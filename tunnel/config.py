"""Configuration files as typed values (DESIGN §5), and what to say when one is wrong.

A file is TOML. It is checked in two steps: unknown keys first, so that the nearest known key can
be named, then types and ranges by msgspec. Every complaint is a :class:`ConfigError` whose text
names the file, the key, the cause and the fix. Secrets never stand in the TOML: it names files,
which :func:`keys.store.read_secret` reads only when nobody else may.
"""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from functools import cache
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from tunnel.spelling import Endpoint as Endpoint
from tunnel.spelling import (
    is_domain,
    is_label,
    parse_address_endpoint,
    parse_endpoint,
    parse_ula,
)

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
_T = TypeVar("_T", bound=msgspec.Struct)

DEFAULT_DNS_PORT = 53
DEFAULT_TLS_PORT = 853


class ConfigError(Exception):
    """The configuration cannot be used; the text names file, key, cause and fix.

    ``key`` is the dotted key (``host.listen``), or empty when the file as a whole is wrong.
    """

    def __init__(self, file: Path, key: str, cause: str, fix: str) -> None:
        self.file, self.key, self.cause, self.fix = file, key, cause, fix
        where = f"{file}: {key}" if key else str(file)
        super().__init__(f"{where}: {cause}; {fix}")


class _WrongValueError(ValueError):
    """A value that a section refuses: cause and fix, without the place, which the reader adds."""

    def __init__(self, key: str, cause: str, fix: str) -> None:
        self.key, self.cause, self.fix = key, cause, fix
        super().__init__(cause)


def _endpoint_or_refuse(key: str, text: str, example: str, default_port: int | None = None) -> None:
    try:
        parse_address_endpoint(text, default_port)
    except ValueError as problem:
        raise _WrongValueError(key, str(problem), f'write it like "{example}"') from None


def _ula_or_refuse(key: str, text: str, fix: str) -> None:
    try:
        parse_ula(text)
    except ValueError as problem:
        raise _WrongValueError(key, str(problem), fix) from None


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file: immutable, and with no key that it does not know."""


class HostSection(_Section, frozen=True, kw_only=True):
    """``[host]``: this machine. ``ike_port`` adds a second socket for initiators that insist.

    ``mtu`` is the device's, in octets; "auto" is what this machine's own link takes whole. Where a
    path takes less, it is found (decision 0005).
    """

    name: str
    id: str = "auto"
    listen: Port = 4500
    ike_port: Port | None = None
    device: str = "at0"
    state_dir: str = "/var/lib/autotunnel"
    mtu: Annotated[int, msgspec.Meta(ge=1280, le=65535)] | Literal["auto"] = 1400

    def __post_init__(self) -> None:
        if not (is_label(self.name) or is_domain(self.name)):
            raise _WrongValueError(
                "name",
                f"{self.name!r} is not a host label",
                'use lower-case letters, digits and "-", like "desk"',
            )
        if self.id != "auto":
            _ula_or_refuse("id", self.id, 'use "auto" or an address like "fd12:3456::1"')
        if not self.device or len(self.device) > 15 or set(self.device) & set("/ :%"):
            raise _WrongValueError(
                "device",
                f"{self.device!r} is not a device name",
                'use at most 15 characters, like "at0"',
            )
        if self.ike_port == self.listen:
            raise _WrongValueError(
                "ike_port", "it is the same as host.listen", "leave it out or use 500"
            )

    @property
    def fixed_id(self) -> IPv6Address | None:
        """The host id that the file fixes, or ``None`` for one per boot."""
        return None if self.id == "auto" else parse_ula(self.id)


class AccountSection(_Section, frozen=True, kw_only=True):
    """``[account]``: the domain whose zone the person owns, and the file of its secret.

    ``auth``: how its hosts prove themselves to each other. With "cert" there are this host's key
    and certificate, the CA's certificate and, on an issuer only, the CA's key.
    """

    domain: str
    secret_file: str = "account.key"  # noqa: S105 (the name of a file)
    auth: Literal["cert", "psk"] = "cert"
    key_file: str = "host.key"
    certificate_file: str = "host.crt"
    ca_file: str = "ca.crt"
    ca_key_file: str = "ca.key"

    def __post_init__(self) -> None:
        _domain_or_refuse(self.domain)


def _domain_or_refuse(domain: str) -> None:
    if not is_domain(domain):
        raise _WrongValueError(
            "domain",
            f"{domain!r} is not a domain name",
            'write it like "alice.members.example", lower case and without a dot at the end',
        )


class RendezvousSection(_Section, frozen=True, kw_only=True):
    """``[rendezvous]``: the server that holds the zone; left out, the zone's SRV names find it.

    ``pin`` is the hexadecimal SHA-256 of the server's public key (SPKI), from a token or by hand.
    """

    server: str | None = None
    transport: Literal["tls", "tcp", "udp"] = "tls"
    pin: str | None = None

    def __post_init__(self) -> None:
        if self.server is not None:
            try:
                parse_endpoint(self.server, DEFAULT_TLS_PORT)
            except ValueError as problem:
                fix = 'write it like "203.0.113.10" or "203.0.113.10:853"'
                raise _WrongValueError("server", str(problem), fix) from None
        if self.pin is not None and not _is_pin(self.pin):
            raise _WrongValueError(
                "pin",
                "it is not the hexadecimal SHA-256 of a key",
                "copy the 64 digits that `autotunnel doctor` prints, or leave it out",
            )

    @property
    def endpoint(self) -> Endpoint | None:
        """(host or address, port) with the transport's usual port if the file gives none."""
        if self.server is None:
            return None
        default = DEFAULT_TLS_PORT if self.transport == "tls" else DEFAULT_DNS_PORT
        return parse_endpoint(self.server, default)

    @property
    def pin_octets(self) -> bytes | None:
        """The pin as 32 octets, or ``None`` if the file names none."""
        return None if self.pin is None else bytes.fromhex(self.pin)


def _is_pin(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdefABCDEF")


class NatSection(_Section, frozen=True, kw_only=True):
    """``[nat]``: how mappings are asked for."""

    methods: tuple[Literal["pcp", "nat-pmp", "upnp"], ...] = ("pcp", "nat-pmp", "upnp")


class PeerSection(_Section, frozen=True, kw_only=True):
    """``[[peer]]``: a static peer, which needs no zone. ``id`` is its inner address.

    With ``auth`` "cert", ``ca_file`` holds the CAs that it may show a certificate of; we show the
    one of ``certificate_file`` and ``key_file``, else this host's own of its account.
    """

    name: str
    id: str
    endpoint: str
    auth: Literal["psk", "cert"] = "psk"
    psk_file: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    suites: tuple[Literal["aes128gcm16", "aes256gcm16", "chacha20poly1305"], ...] = (
        "aes128gcm16",
        "aes256gcm16",
        "chacha20poly1305",
    )
    mode: Literal["tunnel", "transport"] = "tunnel"
    ppk_file: str | None = None
    ppk_id: str = ""
    ppk_required: bool = False

    def __post_init__(self) -> None:
        if not (is_label(self.name) or is_domain(self.name)):
            raise _WrongValueError(
                "name", f"{self.name!r} is not a name", "give its IKE identity (ID_FQDN)"
            )
        wanted: tuple[str, ...] = ("psk_file",) if self.auth == "psk" else ("ca_file",)
        pair = {"certificate_file": self.certificate_file, "key_file": self.key_file}
        if any(pair.values()) and not all(pair.values()):
            wanted += tuple(pair)
        for key in wanted:
            if getattr(self, key) is None:
                raise _WrongValueError(key, f'it is missing, with auth = "{self.auth}"', "add it")
        _ula_or_refuse("id", self.id, 'give its inner address, like "fd12:3456::1"')
        _endpoint_or_refuse("endpoint", self.endpoint, "198.51.100.7:4500", 4500)
        if (self.ppk_file is None) != (self.ppk_id == ""):
            fix = "give both, or none: the peer knows the key by its id"
            raise _WrongValueError("ppk_id", "ppk_file and ppk_id go together", fix)
        if not self.suites:
            raise _WrongValueError(
                "suites", "it is empty", "name at least one suite, or leave it out"
            )

    @property
    def host_id(self) -> IPv6Address:
        """Its inner address."""
        return parse_ula(self.id)

    @property
    def address(self) -> Endpoint:
        """Its endpoint; UDP port 4500 if the file gives none."""
        return parse_address_endpoint(self.endpoint, 4500)


class ResolverSection(_Section, frozen=True, kw_only=True):
    """``[resolver]``: the stub resolver. ``forward`` empty: the system's own servers."""

    enabled: bool = True
    listen: str = "127.0.0.1:4553"
    forward: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _endpoint_or_refuse("listen", self.listen, "127.0.0.1:4553")
        if not ip_address(self.address[0]).is_loopback:
            raise _WrongValueError(
                "listen", f"{self.listen} is not on a loopback address", "use 127.0.0.1"
            )
        for server in self.forward:
            _endpoint_or_refuse("forward", server, "192.0.2.53", DEFAULT_DNS_PORT)

    @property
    def address(self) -> Endpoint:
        """Where the stub resolver listens, UDP and TCP."""
        return parse_address_endpoint(self.listen)

    @property
    def servers(self) -> tuple[Endpoint, ...]:
        """The servers for all other names."""
        return tuple(parse_address_endpoint(text, DEFAULT_DNS_PORT) for text in self.forward)


class EngineSection(_Section, frozen=True, kw_only=True):
    """``[engine]``: which data path runs. "auto": native, else reference, loudly."""

    name: Literal["auto", "native", "reference"] = "auto"


class IkeSection(_Section, frozen=True, kw_only=True):
    """``[ike]``: times in seconds, and the suites offered to the account's hosts.

    ``cookie_threshold``: with so many half-open exchanges a stranger must show that it is where
    it claims, before any state is made for it (RFC 7296 §2.6). ``post_quantum``: ML-KEM-768 with
    the peers that know it, with every peer or no connection, or never.
    """

    post_quantum: Literal["prefer", "require", "off"] = "prefer"

    child_lifetime: Seconds = 3600.0
    ike_lifetime: Seconds = 4 * 3600.0
    liveness: Seconds = 30.0
    cookie_threshold: Annotated[int, msgspec.Meta(ge=0, le=256)] = 16
    suites: tuple[Literal["aes128gcm16", "aes256gcm16", "chacha20poly1305"], ...] = (
        "aes128gcm16",
        "aes256gcm16",
        "chacha20poly1305",
    )

    def __post_init__(self) -> None:
        if not self.suites:
            raise _WrongValueError(
                "suites", "it is empty", "name at least one suite, or leave it out"
            )


class _HostFile(_Section, frozen=True, kw_only=True):
    host: HostSection
    account: AccountSection | None = None
    rendezvous: RendezvousSection = RendezvousSection()
    nat: NatSection = NatSection()
    peer: tuple[PeerSection, ...] = ()
    resolver: ResolverSection = ResolverSection()
    engine: EngineSection = EngineSection()
    ike: IkeSection = IkeSection()


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of ``up``. ``path`` is the file it came from; other files stand beside it.

    ``account`` is ``None`` on a host that has only static peers.
    """

    path: Path
    host: HostSection
    account: AccountSection | None = None
    rendezvous: RendezvousSection = RendezvousSection()
    nat: NatSection = NatSection()
    peers: tuple[PeerSection, ...] = ()
    resolver: ResolverSection = ResolverSection()
    engine: EngineSection = EngineSection()
    ike: IkeSection = IkeSection()

    @property
    def fqdn(self) -> str:
        """This host's name and IKE identity: ``<label>.<domain>``, or ``host.name`` if alone."""
        return self.host.name if self.account is None else f"{self.host.name}.{self.account.domain}"

    @property
    def state_dir(self) -> Path:
        """The folder for state; a relative one stands beside the file."""
        return self.path.parent / self.host.state_dir

    @property
    def control_socket(self) -> Path:
        """Where ``status``, ``down`` and the others find the running host."""
        return self.state_dir / "control.sock"

    def account_secret_path(self) -> Path | None:
        """The file of the account secret, or ``None`` without an account."""
        return None if self.account is None else self.path.parent / self.account.secret_file

    def ppk_path(self, peer: PeerSection) -> Path | None:
        """The file of a static peer's post-quantum pre-shared key, or ``None``."""
        return None if peer.ppk_file is None else self.path.parent / peer.ppk_file

    def psk_path(self, peer: PeerSection) -> Path:
        """The file of a static peer's pre-shared key."""
        assert peer.psk_file is not None  # the section has seen to it
        return self.path.parent / peer.psk_file

    def beside(self, file: str) -> Path:
        """A file that is named relative to this one."""
        return self.path.parent / file

    @property
    def certified(self) -> bool:
        """Whether this host has a certificate of its account."""
        return self.account is not None and self.account.auth == "cert"


class ServeAccount(_Section, frozen=True, kw_only=True):
    """``[[serve.account]]``: one account whose zone this rendezvous holds."""

    domain: str
    secret_file: str
    legacy_md5: bool = False

    def __post_init__(self) -> None:
        _domain_or_refuse(self.domain)


class _ServeSection(_Section, frozen=True, kw_only=True):
    listen: tuple[str, ...] = ("0.0.0.0:53", "[::]:53")
    tls_listen: tuple[str, ...] = ("0.0.0.0:853", "[::]:853")
    state_dir: str = "/var/lib/autotunnel"
    address: tuple[str, ...] = ()
    account: tuple[ServeAccount, ...] = ()

    def __post_init__(self) -> None:
        for key, texts in (("listen", self.listen), ("tls_listen", self.tls_listen)):
            for text in texts:
                _endpoint_or_refuse(key, text, "0.0.0.0:53")
        for text in self.address:
            try:
                ip_address(text)
            except ValueError:
                fix = "give this server's public addresses, without ports"
                raise _WrongValueError("address", f"{text!r} is not an address", fix) from None
        if not (self.listen or self.tls_listen):
            raise _WrongValueError(
                "listen", "the server listens nowhere", 'add one like "0.0.0.0:53"'
            )
        if not self.account:
            raise _WrongValueError(
                "account", "there is no account", "add a [[serve.account]] table"
            )
        domains = [account.domain for account in self.account]
        for domain in domains:
            if domains.count(domain) > 1:
                raise _WrongValueError(
                    "account", f"{domain} stands there twice", "remove one of them"
                )


class _ServeFile(_Section, frozen=True, kw_only=True):
    serve: _ServeSection


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of ``serve``. ``address``: this server's public addresses, for the zone's
    ns records; empty: those it listens on, unless that is "any"."""

    path: Path
    listen: tuple[Endpoint, ...]
    tls_listen: tuple[Endpoint, ...]
    state_dir: Path
    address: tuple[str, ...]
    accounts: tuple[ServeAccount, ...]

    def account_secret_path(self, account: ServeAccount) -> Path:
        """The file of an account's secret."""
        return self.path.parent / account.secret_file


def load_host(path: Path) -> HostConfig:
    """Reads and checks the configuration of ``up``. Raises :class:`ConfigError`."""
    return host_from_tables(path, _read(path))


def host_from_tables(path: Path, tables: dict[str, Any]) -> HostConfig:
    """The configuration of ``up`` from parsed TOML; ``path`` is where it stood.

    Raises :class:`ConfigError`.
    """
    text = _convert(path, tables, _HostFile)
    names = [peer.name for peer in text.peer]
    for index, name in enumerate(names):
        if name in names[:index]:
            cause = f"the peer {name!r} stands there twice"
            raise ConfigError(path, f"peer[{index}].name", cause, "remove one of the two tables")
    if text.account is not None and not is_label(text.host.name):
        cause = f"{text.host.name!r} is more than one label"
        fix = f'use "{text.host.name.split(".")[0]}": the domain is account.domain'
        raise ConfigError(path, "host.name", cause, fix)
    if text.account is None and not text.peer:
        fix = "run `autotunnel init` or `autotunnel join`, or add a [[peer]] table"
        raise ConfigError(path, "", "it has neither an [account] nor a [[peer]]", fix)
    return HostConfig(
        path=path.absolute(),
        host=text.host,
        account=text.account,
        rendezvous=text.rendezvous,
        nat=text.nat,
        peers=text.peer,
        resolver=text.resolver,
        engine=text.engine,
        ike=text.ike,
    )


def load_serve(path: Path) -> ServeConfig:
    """Reads and checks the configuration of ``serve``. Raises :class:`ConfigError`."""
    return serve_from_tables(path, _read(path))


def serve_from_tables(path: Path, tables: dict[str, Any]) -> ServeConfig:
    """The configuration of ``serve`` from parsed TOML. Raises :class:`ConfigError`."""
    serve = _convert(path, tables, _ServeFile).serve
    return ServeConfig(
        path=path.absolute(),
        listen=tuple(parse_address_endpoint(text) for text in serve.listen),
        tls_listen=tuple(parse_address_endpoint(text) for text in serve.tls_listen),
        state_dir=path.absolute().parent / serve.state_dir,
        address=serve.address,
        accounts=serve.account,
    )


def default_path(name: str = "config.toml") -> Path:
    """The file that is read without ``-c``: the user's if it is there, else the machine's.

    With neither there, the place where ``init`` writes: /etc for root, else the user's.
    """
    user = user_folder() / name
    machine = Path("/etc/autotunnel") / name
    if user.exists():
        return user
    return machine if machine.exists() or os.geteuid() == 0 else user


def user_folder() -> Path:
    """``$XDG_CONFIG_HOME/autotunnel``, by its specification ``~/.config`` if unset."""
    base = os.environ.get("XDG_CONFIG_HOME") or ""
    folder = Path(base) if base.startswith("/") else Path("~/.config").expanduser()
    return folder / "autotunnel"


def _read(path: Path) -> dict[str, Any]:
    """The file's tables. Raises :class:`ConfigError`."""
    try:
        return parse_toml(path, path.read_bytes())
    except FileNotFoundError:
        fix = "run `autotunnel init` or `autotunnel join`, or name another with -c FILE"
        raise ConfigError(path, "", "there is no such file", fix) from None
    except OSError as problem:
        cause = f"it cannot be read ({problem.strerror})"
        raise ConfigError(path, "", cause, "check its owner and mode") from None


def parse_toml(path: Path, octets: bytes) -> dict[str, Any]:
    """TOML octets to tables; ``path`` only names them. Raises :class:`ConfigError`."""
    try:
        return tomllib.loads(octets.decode())
    except UnicodeDecodeError:
        raise ConfigError(path, "", "it is not UTF-8 text", "save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        cause = f"it is not TOML ({str(problem) or 'nested too deep'})"
        raise ConfigError(path, "", cause, "correct that line") from None


def _convert(path: Path, tables: dict[str, Any], shape: type[_T]) -> _T:
    _refuse_unknown(path, tables, shape, "")
    try:
        return msgspec.convert(tables, shape)
    except msgspec.ValidationError as problem:
        cause, _, place = str(problem).partition(" - at `$")
        key = place.removesuffix("`").lstrip(".").replace("[...]", "[]")
        wrong = problem.__cause__
        if isinstance(wrong, _WrongValueError):
            key = f"{key}.{wrong.key}".lstrip(".")
            raise ConfigError(path, key, wrong.cause, wrong.fix) from None
        missing = cause.startswith("Object missing required field")
        if missing:
            name = cause.split("`")[1]
            key = f"{key}.{name}".lstrip(".")
            raise ConfigError(path, key, "it is missing", f'add "{name}"') from None
        cause = cause[:1].lower() + cause[1:]
        raise ConfigError(path, key, cause, _correction(shape, key)) from None


def _correction(shape: Any, key: str) -> str:
    """The fix for a value of a wrong type: the allowed ones, where there are a few."""
    kind: Any = shape
    for part in key.replace("[]", "").split("."):
        struct = _struct_in(kind)
        fields = {} if struct is None else _types(struct)
        if part.partition("[")[0] not in fields:
            return "correct the value"
        kind = fields[part.partition("[")[0]]
    choice = " or ".join(f'"{one}"' for one in _literals(kind))
    if not choice:
        return "correct the value"
    # Of a number or a word, the number may have been meant.
    return f"correct the value, or use {choice}" if int in _bare(kind) else f"use {choice}"


def _bare(kind: Any) -> set[Any]:
    """The types of a union, without what Annotated adds."""
    return {getattr(inner, "__origin__", inner) for inner in get_args(kind)}


@cache
def _types(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


def _literals(kind: Any) -> tuple[str, ...]:
    """The texts that ``Literal[...]`` or ``tuple[Literal[...], ...]`` allows."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next(filter(None, (_literals(inner) for inner in get_args(kind))), ())


def _refuse_unknown(path: Path, tables: dict[str, Any], shape: Any, prefix: str) -> None:
    """Walks the tables beside the structs, and names the nearest known key of a stranger."""
    known = _types(shape)
    for key, value in tables.items():
        place = f"{prefix}{key}"
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.5)
            what = "table" if isinstance(value, dict) else "key"
            every = ", ".join(sorted(known))
            fix = f'did you mean "{near[0]}"?' if near else f"known here: {every}"
            raise ConfigError(path, place, f"unknown {what}", fix)
        inner = _struct_in(known[key])
        if inner is None:
            continue
        if isinstance(value, dict):
            _refuse_unknown(path, value, inner, f"{place}.")
        elif isinstance(value, list):
            for index, entry in enumerate(value):
                if isinstance(entry, dict):
                    _refuse_unknown(path, entry, inner, f"{place}[{index}].")


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The struct inside ``X``, ``X | None`` or ``tuple[X, ...]``."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    if get_origin(kind) is not None:
        for argument in get_args(kind):
            found = _struct_in(argument)
            if found is not None:
                return found
    return None
