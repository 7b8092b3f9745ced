"""The native engine's seal and open as the pump calls them, in a loop in C (``loops.c``).

Cython exports what its modules share as capsules, which give the loops their function pointers.
The signatures are checked, so that an edit is noticed.
"""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
from ctypes import c_char_p, c_double, c_int, c_long, c_size_t, c_void_p, py_object
from pathlib import Path
from typing import Any

from fastpath.types import SaParams
from tunnel.io.lab import LabError

SOURCE = Path(__file__).with_name("loops.c")
INCLUDE = Path(__file__).parents[1] / "fastpath"
ROOM = 4096  # more than any of the engine's structures has
STRIDE = 2048  # octets between two packets

_SIGNATURES = {
    "outbound_init": "int (struct {}Outbound *, PyObject *, PyObject *)",
    "inbound_init": "int (struct {}Inbound *, PyObject *, PyObject *)",
    "esp_seal": "Py_ssize_t (struct {}Outbound *, uint8_t *, size_t, uint8_t, uint8_t *)",
    "esp_open": ("int (struct {}Inbound *, uint8_t const *, size_t, uint8_t *, struct {}Opened *)"),
}
_PREFIX = "__pyx_t_8fastpath_4_esp_"


def pointer(name: str) -> int:
    """The address of one of the engine's C functions; LabError if it is another by now."""
    capsule = importlib.import_module("fastpath._esp").__dict__["__pyx_capi__"][name]
    found = _capsule("PyCapsule_GetName", c_char_p)(capsule).decode()
    expected = _SIGNATURES[name].format(_PREFIX, _PREFIX)
    if found != expected:
        raise LabError(f"{name} is {found} now; bench/native_calls.py knows it as {expected}")
    address: int = _capsule("PyCapsule_GetPointer", c_void_p, c_char_p)(capsule, found.encode())
    return address


def _capsule(name: str, result: Any, *more: Any) -> Any:
    function = getattr(ctypes.pythonapi, name)
    function.restype, function.argtypes = result, (py_object, *more)
    return function


def build(folder: Path) -> Path:
    """Compiles the loops; where the library is."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise LabError("a C compiler is needed to measure the native engine")
    out = folder / "loops.so"
    command = [compiler, "-O3", "-shared", "-fPIC", f"-I{INCLUDE}", str(SOURCE), "-o", str(out)]
    if any(name != "openssl" for name in backends()):
        command += ["-DAUTOTUNNEL_IPSEC_MB=1", "-lIPSec_MB"]
    done = subprocess.run([*command, "-lcrypto"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr[-500:]}")
    return out


def backends() -> dict[str, str]:
    """AEAD backends of the native engine by name, and what they show."""
    found: dict[str, str] = importlib.import_module("fastpath._aead").backends()
    return found


def load(path: Path) -> ctypes.CDLL:
    """The loops."""
    loops = ctypes.CDLL(str(path))
    bare = [c_char_p, c_void_p, c_size_t, c_void_p, c_long]
    types = {
        "loop_seal": [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_long],
        "loop_open": [c_void_p, c_void_p, c_void_p, c_size_t, c_size_t, c_void_p, c_long],
        "loop_openssl": [c_int, *bare],
        "loop_ipsec_mb": [c_int, c_int, *bare],
    }
    for name, arguments in types.items():
        loop = getattr(loops, name)
        loop.argtypes, loop.restype = arguments, c_double
    return loops


class Sas:
    """An outbound SA and the inbound one that opens what it seals, and room for some packets."""

    def __init__(
        self, loops: ctypes.CDLL, params: SaParams, aead: str, octets: int, packets: int
    ) -> None:
        self._loops, self._octets = loops, octets
        self._outbound, self._inbound = (ctypes.create_string_buffer(ROOM) for _ in range(2))
        self._payload, self._opened = (ctypes.create_string_buffer(ROOM) for _ in range(2))
        self._packets = ctypes.create_string_buffer(packets * STRIDE)
        self._capacity = packets
        self._seal, self._open = pointer("esp_seal"), pointer("esp_open")
        for name, sa in (("outbound_init", self._outbound), ("inbound_init", self._inbound)):
            make = ctypes.PYFUNCTYPE(c_int, c_void_p, py_object, py_object)(pointer(name))
            make(ctypes.addressof(sa), params, aead)

    def seal(self, count: int) -> float:
        """Seals ``count`` packets, kept as far as there is room; nanoseconds for each."""
        stride = STRIDE if count <= self._capacity else 0
        payload = self._payload, self._octets, self._packets
        return _checked(self._loops.loop_seal(self._seal, self._outbound, *payload, stride, count))

    def open(self, count: int) -> float:
        """Opens the packets that were sealed last; nanoseconds for each."""
        packets = self._packets, self._octets, STRIDE, self._opened
        return _checked(self._loops.loop_open(self._open, self._inbound, *packets, count))


def _checked(nanoseconds: float) -> float:
    if nanoseconds < 0:
        raise LabError("the engine could not seal or open a packet of a measurement")
    return nanoseconds
