"""Addresses of servers."""

from __future__ import annotations


def host_port(host: str, port: int) -> str:
    """Joins a host and a port; an address of IPv6 has brackets.

    Example:
        >>> host_port("localhost", 8500), host_port("::1", 8500)
        ('localhost:8500', '[::1]:8500')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
