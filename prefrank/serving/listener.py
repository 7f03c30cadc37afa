"""What a server needs before its models: a socket that listens, and files for HTTPS that can be read.

Opened first, so that what is wrong with them is said at once, and clients wait for the models instead of failing.
"""

import errno
import ipaddress
import os
import socket
import ssl
from pathlib import Path

from prefrank.errors import BadInput
from prefrank.io.plain_files import check_plain
from prefrank.serving.settings import ServeSettings


def open_listener(settings: ServeSettings) -> socket.socket:
    """A socket that listens on the settings' address.

    Raises:
        BadInput: the port is in use or may not be taken, the address is none of this machine's, or a TLS file cannot
            be used.
        NotFound: a TLS file is missing.
    """
    check_tls(settings)
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise BadInput(
            f"host is {settings.host!r}, which has no address here; wanted one of this machine's, such as 127.0.0.1"
        ) from None
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)  # localhost may be both
    both = settings.host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address[:2], family=family, backlog=settings.backlog, dualstack_ipv6=both)
    except OSError as error:
        raise BadInput(_refused(settings, error)) from None


def _refused(settings: ServeSettings, error: OSError) -> str:
    where = f"port {settings.port} of {settings.host}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use; choose another with --port, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"{where} may not be opened by this user; choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host is {settings.host}, which is no address of this machine; 127.0.0.1 and 0.0.0.0 are"
    return f"{where} cannot be opened: {os.strerror(error.errno or 0)}"


def url_of(settings: ServeSettings, listener: socket.socket) -> str:
    """The address that clients of this machine use."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def takes_anybody(settings: ServeSettings) -> bool:
    """Whether other machines reach the server, and nobody needs a key."""
    if settings.keys or settings.host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(settings.host.partition("%")[0]).is_loopback
    except ValueError:
        return True


def check_tls(settings: ServeSettings) -> None:
    """See that the certificate and its key can be read and belong together.

    Raises:
        BadInput, NotFound: as `open_listener`.
    """
    if settings.tls_certificate is None:
        if settings.tls_key is not None:
            raise BadInput("tls_key is given without tls_certificate; give both")
        return
    for name in filter(None, (settings.tls_certificate, settings.tls_key)):
        check_plain(Path(name), BadInput)
    load_tls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)


def load_tls(context: ssl.SSLContext, settings: ServeSettings) -> None:
    """Read the certificate and its key into a context, also of a server that runs: new connections have them.

    Raises:
        BadInput: they cannot be read, do not belong together, or need a pass phrase.
    """
    if settings.tls_certificate is None:
        return
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=_no_phrase)
    except (OSError, ValueError) as error:  # of ssl, too
        reason = getattr(error, "reason", None) or (isinstance(error, OSError) and error.strerror) or str(error)
        raise BadInput(
            f"the TLS files {settings.tls_certificate} and {settings.tls_key or 'its key'} cannot be used ({reason});"
            " wanted a certificate chain and its own key, both PEM, without a pass phrase"
        ) from None


def _no_phrase() -> str:
    raise ValueError("the key has a pass phrase")
