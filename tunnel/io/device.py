"""The TUN device: made, or taken over where the user owns a persistent one (DESIGN "Privilege").

Frames carry no packet information header. A frame is an IPv6 packet; with offload, it stands
behind a virtio header, and may be up to 64 KB of one flow. The device holds one address, the
host id, and routes to single peers (/128), never wider ones.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from ipaddress import IPv6Address
from pathlib import Path

import pytun

from fastpath.types import MINIMUM_MTU, Offload, OffloadState
from tunnel.io import netlink, privilege
from tunnel.io.routes import RouteHelper
from tunnel.io.rtnetlink import Rtnetlink

_TUN = Path("/dev/net/tun")
_TUNSETOFFLOAD, _TUNSETVNETHDRSZ = 0x400454D0, 0x400454D8
_VNET_OCTETS = 10  # struct virtio_net_hdr
_CSUM, _TSO4, _TSO6, _TSO_ECN, _USO4, _USO6 = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40  # TUN_F_*
_TSO = _CSUM | _TSO4 | _TSO6 | _TSO_ECN
_USO = _USO4 | _USO6  # the kernel knows it since 6.2, and only both at once
_STEPS = (_TSO | _USO, _TSO, 0)
_FEATURES = {
    Offload.TUN_CHECKSUM: _CSUM,
    Offload.TUN_TSO4: _TSO4,
    Offload.TUN_TSO6: _TSO6,
    Offload.TUN_USO: _USO,
}


class DeviceError(Exception):
    """The device cannot be had as it should be; the text says cause and fix."""


class RouteMissingError(DeviceError):
    """A route cannot be added for want of CAP_NET_ADMIN; the text holds the command that does."""


class Device:
    """An open TUN device. ``fd`` is non-blocking and stays open until :meth:`close`; ``fds`` has
    one descriptor for each of its queues, of which that is the first.

    ``vnet_hdr``: frames carry a 10-octet virtio header (``offload`` of :func:`open_device`), and
    ``offloads`` says what the kernel has granted with it.
    """

    def __init__(
        self,
        tuns: list[pytun.TunTapDevice],
        link: netlink.Link,
        mtu: int,
        helper: RouteHelper | None,
        offloads: dict[Offload, OffloadState],
    ) -> None:
        self._tuns = tuns
        self._index = link.index
        self._helper = helper
        self.name = link.name
        self.mtu = mtu
        self.offloads = offloads
        self.vnet_hdr = OffloadState.OFF not in offloads.values()
        self.fds: tuple[int, ...] = tuple(tun.fileno() for tun in tuns)
        self.fd = self.fds[0]

    @property
    def helper_pid(self) -> int | None:
        """The route helper's process id, or ``None`` when we run without any capability."""
        return None if self._helper is None else self._helper.pid

    def add_route(self, host_id: IPv6Address) -> None:
        """Routes ``host_id``/128 to the device. Raises :class:`RouteMissingError` where we may not
        and it is not there, :class:`DeviceError` where the kernel refuses."""
        if self._helper is None:
            if host_id not in netlink.routes(self._index):
                command = f"sudo ip -6 route add {host_id}/128 dev {self.name}"
                cause = f"there is no route to {host_id}, and this process may not add one"
                raise RouteMissingError(f"{cause}; run `{command}`")
            return
        self._change(True, host_id)

    def remove_route(self, host_id: IPv6Address) -> None:
        """Takes back a route of :meth:`add_route`; routes that others made stay."""
        if self._helper is not None:
            self._change(False, host_id)

    def _change(self, add: bool, host_id: IPv6Address) -> None:
        assert self._helper is not None
        if host_id.packed[0] & 0xFE != 0xFC:  # RFC 4193 §3.1; the helper would end
            raise DeviceError(f"{host_id} is no unique local address; no route is made to it")
        try:
            self._helper.change(add, host_id)
        except OSError as problem:
            verb = "added" if add else "removed"
            cause = f"the route to {host_id} on {self.name} could not be {verb} ({_text(problem)})"
            raise DeviceError(f"{cause}; see `ip -6 route show {host_id}`") from None

    def close(self) -> None:
        """Takes away all that was set up, and the device itself unless it is persistent."""
        if self._helper is not None:
            self._helper.close()
            self._helper = None
        _close(self._tuns)


def open_device(
    name: str,
    host_id: IPv6Address,
    mtu: int,
    *,
    exact: bool = True,
    offload: bool = False,
    queues: int = 1,
) -> Device:
    """Opens ``name``, with ``host_id``/128 as its address and ``mtu`` octets, and brings it up.

    With ``offload``, the kernel hands over and takes large frames and leaves checksums to us
    (IFF_VNET_HDR, TUNSETOFFLOAD); only the native engine can make use of it. With several
    ``queues`` (IFF_MULTI_QUEUE), the kernel keeps each flow on one of them.

    An existing persistent device of the user is taken over. Where its MTU cannot be changed, and
    ``exact`` is false, it is left as it is. With CAP_NET_ADMIN all is set as
    needed, and a route helper is started; without it, the device must already be as it should.
    Raises :class:`DeviceError`.
    """
    before = netlink.link(name)
    tuns, granted = _attach(name, before, offload, queues)
    try:
        link = netlink.link(name)
        if link is None:
            raise DeviceError(f"the device {name} vanished at once; see `journalctl -k`")
        if not privilege.can_configure():
            _require(link, host_id, mtu if exact or link.mtu < MINIMUM_MTU else link.mtu)
            return Device(tuns, link, link.mtu, None, granted)
        _configure(link, mtu, host_id)
        ours = host_id if before is not None and host_id not in before.addresses else None
        return Device(tuns, link, mtu, _start_helper(link, ours), granted)
    except BaseException:
        _close(tuns)
        raise


def create_persistent(
    name: str,
    owner: int,
    host_id: IPv6Address,
    mtu: int,
    peers: tuple[IPv6Address, ...],
    *,
    several: bool = False,
) -> None:
    """Makes a device that stays and that the user id ``owner`` may open without any capability,
    with address, MTU and routes to ``peers``, and with ``several`` queues or one. An existing one
    of that name gets what it lacks, but no queues.

    Raises :class:`DeviceError`.
    """
    if not privilege.can_configure():
        cause = "making a device needs CAP_NET_ADMIN"
        raise DeviceError(f"{cause}; run this one command with sudo")
    if netlink.link(name) is None:
        try:
            netlink.make_persistent_tun(name, owner, several)
        except OSError as problem:
            raise DeviceError(_why_not(name, problem)) from None
    link = netlink.link(name)
    assert link is not None
    _configure(link, mtu, host_id)
    for peer in peers:
        try:
            with Rtnetlink() as kernel:
                netlink.change_route(kernel, True, link.index, peer)
        except OSError as problem:
            raise DeviceError(f"no route to {peer} could be added ({_text(problem)})") from None


def _attach(
    name: str, before: netlink.Link | None, offload: bool, queues: int
) -> tuple[list[pytun.TunTapDevice], dict[Offload, OffloadState]]:
    if before is not None and before.kind != "tun":
        cause = f"{name} exists and is no TUN device"
        raise DeviceError(f"{cause}; choose another name for host.device")
    flags = pytun.IFF_TUN | pytun.IFF_NO_PI | (pytun.IFF_VNET_HDR if offload else 0)
    try:
        if queues > 1 and before is not None and before.attached:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))  # the kernel would let us in
        tuns = _open_queues(name, flags, queues)
    except OSError as problem:
        if problem.errno == errno.EINVAL and before is not None and queues > 1:
            cause = f"the device {name} was made with one queue, and engine.threads is {queues}"
            fix = f"run `sudo ip link delete {name}` and make it anew"
            own = "`sudo autotunnel device create --user NAME`"
            raise DeviceError(f"{cause}; {fix} ({own}), or set engine.threads to 1") from None
        raise DeviceError(_why_not(name, problem)) from None
    return tuns, _set_offload(tuns[0].fileno(), offload)


def _open_queues(name: str, flags: int, queues: int) -> list[pytun.TunTapDevice]:
    """That many queues of the device. Raises OSError."""
    if queues == 1:
        try:
            return [_open(name, flags)]
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
    tuns: list[pytun.TunTapDevice] = []
    try:
        while len(tuns) < queues:  # a device that was made for several queues takes one, too
            tuns.append(_open(name, flags | pytun.IFF_MULTI_QUEUE))
    except OSError:
        _close(tuns)
        raise
    return tuns


def _open(name: str, flags: int) -> pytun.TunTapDevice:
    try:
        tun = pytun.TunTapDevice(name=name, flags=flags, dev=str(_TUN))
    except (OSError, pytun.Error) as problem:
        number = int(problem.args[0])
        raise OSError(number, os.strerror(number)) from None
    os.set_blocking(tun.fileno(), False)
    os.set_inheritable(tun.fileno(), False)
    return tun


def _close(tuns: list[pytun.TunTapDevice]) -> None:
    for tun in tuns:
        tun.close()


def _set_offload(fd: int, offload: bool) -> dict[Offload, OffloadState]:
    """As much as the kernel knows; what that is. Without ``offload``, what the last user of a
    persistent device asked for is taken back: his large frames would come without their header."""
    if not offload:
        _grant(fd, (0,))
        return dict.fromkeys(_FEATURES, OffloadState.OFF)
    # A persistent device keeps the size that somebody else may have set.
    fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("=i", _VNET_OCTETS))
    granted = _grant(fd, _STEPS)
    return {
        name: OffloadState.ON if granted & bits else OffloadState.UNKNOWN
        for name, bits in _FEATURES.items()
    }


def _grant(fd: int, steps: tuple[int, ...]) -> int:
    """The first of these sets of features that the kernel takes; 0 when it takes none."""
    for features in steps:
        try:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, features)
        except OSError:
            continue  # an older kernel: fewer features, or none; all works, only slower
        return features
    return 0


def _why_not(name: str, problem: OSError) -> str:
    own = "or let the user own a device: `sudo autotunnel device create --user NAME`"
    match problem.errno:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return f"there is no {_TUN}; load the module with `sudo modprobe tun`"
        case errno.EACCES:
            return f"{_TUN} may not be opened by this user; run `sudo chmod 0666 {_TUN}`"
        case errno.EBUSY:
            cause = f"the device {name} is in use by another process"
            return f"{cause}; end that one (`autotunnel down`) or choose another host.device"
        case errno.EPERM:
            cause = f"making or opening the device {name} needs CAP_NET_ADMIN"
            return f"{cause}; run as root, or by `autotunnel service install`, {own}"
        case _:
            return f"the device {name} cannot be opened ({_text(problem)}); see `journalctl -k`"


def _configure(link: netlink.Link, mtu: int, host_id: IPv6Address) -> None:
    try:
        netlink.configure(link.index, mtu, host_id)
    except OSError as problem:
        cause = f"the device {link.name} cannot be configured ({_text(problem)})"
        if problem.errno in (errno.EACCES, errno.EOPNOTSUPP, errno.ENODEV):
            fix = "is IPv6 switched off? see `sysctl net.ipv6.conf.all.disable_ipv6`"
        else:
            fix = "run as root, or by `autotunnel service install`"
        raise DeviceError(f"{cause}; {fix}") from None


def _require(link: netlink.Link, host_id: IPv6Address, mtu: int) -> None:
    """Without a capability: says which command brings the device to what it should be."""
    lacking = []
    if host_id not in link.addresses:
        lacking.append(f"sudo ip -6 addr add {host_id}/128 dev {link.name} nodad noprefixroute")
    if not link.up or link.mtu != mtu:
        lacking.append(f"sudo ip link set {link.name} mtu {mtu} up")
    if lacking:
        cause = f"the device {link.name} is not set up, and this process may not do it"
        raise DeviceError(f"{cause}; run `{' && '.join(lacking)}`")


def _start_helper(link: netlink.Link, address: IPv6Address | None) -> RouteHelper:
    try:
        return RouteHelper(link.index, address)
    except OSError as problem:
        cause = f"the route helper did not start ({_text(problem)})"
        raise DeviceError(f"{cause}; its own words stand above") from None


def _text(problem: OSError) -> str:
    return problem.strerror or str(problem)
