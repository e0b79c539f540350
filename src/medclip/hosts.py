"""Hosts: whether one is this machine, and whether the Hub's token may go to its endpoint."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from medclip.errors import UserError


def is_ip_address(host: str) -> bool:
    """Whether a host is a literal address, IPv6 without brackets."""
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's own: localhost, 127.0.0.0/8 or ::1. No name is resolved."""
    return host.lower() == "localhost" or (is_ip_address(host) and ip_address(host).is_loopback)


def is_clear_text(url: str) -> bool:
    """Whether what is sent to a URL crosses a network unencrypted: http:// to another machine.

    UserError for what is not a URL.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(f"the address of a server, given by a variable or a flag, is not a URL: {error}.") from None
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def check_hub_endpoint() -> None:
    """UserError where a token of the Hub would be sent over clear text, which HF_ENDPOINT can bring about."""
    from huggingface_hub import constants, get_token

    if is_clear_text(constants.ENDPOINT) and get_token():
        raise UserError(
            f"HF_TOKEN is not sent over clear text: HF_ENDPOINT is {constants.ENDPOINT}. Give it as https://, or unset "
            "the token (HF_TOKEN, or hf auth logout)."
        )
