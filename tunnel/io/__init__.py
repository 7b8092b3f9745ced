"""Where the node meets the operating system: device, sockets, control socket, zone link, lab.

Nothing in here decides anything of the protocols; :mod:`tunnel.io.host` joins the parts.
"""
