"""Hosts: whether one is this machine, whether the Hub's token may go to its endpoint, and URLs without secrets."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from medclip.errors import UserError

_AUTHORITY = re.compile(r"""(?<=://)[^\s/'"]+""")
_WORD = re.compile(r"""[^\s'"]+""")
_HTTP = re.compile(r"(?:https?|hf)://")
_QUERY = re.compile(r"[?#]")


def without_credentials(text: str) -> str:
    """A text, such as a library's message, whose URLs have lost users with their passwords, and queries.

    It takes a time that grows with the length of the text alone: a cell of a table may hold any.
    """
    return _WORD.sub(_without_query, _AUTHORITY.sub(_without_user, text))


def _without_user(authority: re.Match[str]) -> str:
    """The host. A user without a password is a secret (a token) of http alone; git and github write OWNER:NAME@…."""
    user, _, host = authority[0].rpartition("@")
    before = authority.string[max(0, authority.start() - 7) : authority.start()]
    is_secret = before.endswith(("http://", "ttps://")) or (":" in user and not before.endswith(("git://", "hub://")))
    return host if is_secret else authority[0]


def _without_query(word: re.Match[str]) -> str:
    url = _HTTP.search(word[0])
    query = _QUERY.search(word[0], url.end()) if url else None
    return word[0][: query.start()] if query else word[0]


def check_address(source: str) -> None:
    """UserError for a URL with a user's password or a query, which may be a signature: records and messages repeat it.

    The message does not.
    """
    if (shown := without_credentials(source)) != source:
        raise UserError(
            f"{shown} is given with a user or a query, which may be secrets that records and messages would repeat. "
            "Leave them out: a password goes into fsspec's settings (FSSPEC_FTP_PASSWORD=…) or those of the store's "
            "own library (AWS_SECRET_ACCESS_KEY=…); what a signed address names can be downloaded first."
        )


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
    host = _clear_text_host(url)
    return host is not None and not is_loopback(host)


def _clear_text_host(url: str) -> str | None:
    """The host of an http:// URL; None of another."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(f"the address of a server, given by a variable or a flag, is not a URL: {error}.") from None
    return parts.hostname or "" if parts.scheme == "http" else None


def check_clear_text(secret: str, url: str, remedy: str) -> None:
    """UserError, with a sentence, where `secret` would go to a URL over clear text off this machine.

    So it goes to another machine's http://, and to this one's where a proxy of the environment is asked for it.
    """
    from urllib.request import getproxies, proxy_bypass

    host = _clear_text_host(url)
    if host is None:
        return
    if not is_loopback(host):
        raise UserError(f"{secret} is not sent over clear text: {remedy}")
    if {"http", "all"} & set(getproxies()) and not proxy_bypass(host):
        raise UserError(
            f"{secret} is not sent over clear text: a proxy (http_proxy, all_proxy) would carry what is for {host} off "
            f"this machine. Set NO_PROXY={host}."
        )


def check_hub_endpoint() -> None:
    """UserError where a token of the Hub would be sent over clear text, which HF_ENDPOINT can bring about."""
    from huggingface_hub import constants, get_token

    if _clear_text_host(constants.ENDPOINT) is not None and get_token():
        remedy = (
            f"HF_ENDPOINT is {without_credentials(constants.ENDPOINT)}. Give it as https://, or unset the token "
            "(HF_TOKEN, or hf auth logout)."
        )
        check_clear_text("HF_TOKEN", constants.ENDPOINT, remedy)
