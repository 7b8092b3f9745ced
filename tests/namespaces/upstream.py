"""A name server of the outside world, ``python -m tests.namespaces.upstream ADDRESS``: every A
question is 192.0.2.7, everything else NXDOMAIN. Each question is a line of its output."""

from __future__ import annotations

import socket
import sys

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


def main(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((address, 53))
        print("listening", flush=True)
        while True:
            wire, source = udp.recvfrom(4096)
            query = dns.message.from_wire(wire)
            answer = dns.message.make_response(query)
            asked = query.question[0]
            print(asked.to_text(), flush=True)
            if asked.rdtype == dns.rdatatype.A:
                answer.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "A", "192.0.2.7"))
            else:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            udp.sendto(answer.to_wire(), source)


if __name__ == "__main__":
    main(sys.argv[1])
