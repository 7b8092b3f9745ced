"""The machine, described well enough to judge a figure by it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import cryptography
from cryptography.hazmat.backends.openssl import backend

# What decides how fast AES and ChaCha20 run.
CRYPTO_FLAGS = ("aes", "pclmulqdq", "avx2", "vaes", "vpclmulqdq", "avx512f", "sha_ni")

_LOAD_BEFORE = os.getloadavg()  # of what we did not start


def describe() -> dict[str, object]:
    """Processor, kernel and libraries; nothing that names this machine among others."""
    return {
        "processor": _cpu("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in CRYPTO_FLAGS if flag in _cpu("flags").split()],
        "memory_mib": _memory_mib(),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cryptography": cryptography.__version__,
        "openssl": backend.openssl_version_text(),
        "load_before": [round(load, 2) for load in _LOAD_BEFORE],
    }


def summary() -> str:
    """One line for people."""
    about = describe()
    return f"{about['processor']}, {about['cores']} cores, {about['kernel']}"


def _cpu(key: str) -> str:
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
