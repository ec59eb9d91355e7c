"""What pynetdicom leaves open is closed here, so that the tests' own open sockets are seen."""

import contextlib
import socket

from pynetdicom.transport import AssociationSocket


def _shut_and_close(self: AssociationSocket) -> None:
    """Close a socket also where it cannot be shut down: the library drops it open."""
    if self.socket is not None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


AssociationSocket._shutdown_socket = _shut_and_close
