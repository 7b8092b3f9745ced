"""What a DNS answer says of its question (RFC 1035 §4.1.1, RFC 2136 §2.2, RFC 6891, RFC 8490)."""

from __future__ import annotations

from typing import Final

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
YXDOMAIN: Final = 6
YXRRSET: Final = 7
NXRRSET: Final = 8
NOTAUTH: Final = 9
NOTZONE: Final = 10
DSOTYPENI: Final = 11
BADVERS: Final = 16
