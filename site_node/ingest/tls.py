"""TLS between the listener and modalities, both showing certificates.

Source: DICOM PS3.15 B.12 (BCP 195 RFC 8996, 9325 TLS secure transport connection profile).
"""

import ssl

from site_node.errors import SettingsError
from site_node.listener_settings import ListenerTls


def server_context(settings: ListenerTls) -> ssl.SSLContext:
    """Return how we listen: TLS 1.2 or later, and a certificate of a known authority demanded of each caller.

    Raises: SettingsError if a file is missing or does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _loaded(context, settings)


def client_context(settings: ListenerTls) -> ssl.SSLContext:
    """Return how we call back with a result; the caller's name is not compared: hospitals address systems by number.

    Raises: SettingsError if a file is missing or does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return _loaded(context, settings)


def _loaded(context: ssl.SSLContext, settings: ListenerTls) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certificate, settings.key)
        context.load_verify_locations(settings.ca)
    except (OSError, ssl.SSLError):
        raise SettingsError(
            f"The listener's certificate {settings.certificate}, its key or {settings.ca} cannot be used.",
            "Check that they are PEM, that the key belongs to the certificate, and that this user may read them.",
        ) from None
    return context
