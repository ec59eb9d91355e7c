"""The block `listener` of site.yaml: who may send images straight to this hospital's node, and how much of them.

    listener:
      ae_title: WARDROUND
      address: 10.1.2.3                 # of the interface that modalities reach; by default this machine alone
      port: 11112
      callers:
        - ae_title: CT1
          addresses: [10.1.2.40]        # optional, but titles alone are easily forged
          commitment_port: 11113        # optional: where CT1 listens for results of storage commitment
      tls: {certificate: listener.crt, key: listener.key, ca: modalities.crt}

Without callers everybody is refused.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from site_node.pacs_settings import AeTitle

Network = IPv4Network | IPv6Network


class ListenerTls(BaseModel):
    """TLS towards modalities: who we are, and whose certificates we demand of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Path = Field(description="our certificate, with its chain")
    key: Path = Field(description="its private key, readable by the ingest process alone")
    ca: Path = Field(description="bundle of the authorities that sign the modalities' certificates; each must show one")


class Caller(BaseModel):
    """One system that may send: its AE title, where it may call from, and where it hears of storage commitment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ae_title: AeTitle
    addresses: tuple[Network, ...] = Field(default=(), description="addresses or networks; without them any")
    commitment_port: int | None = Field(
        default=None, ge=1, le=65535, description="where it listens for results; without it: on the same association"
    )
    commitment_tls: bool = Field(default=False, description="whether it listens with TLS there")

    def calls_from(self, address: str) -> bool:
        """Tell whether it may call from this address."""
        return not self.addresses or any(_plain(address) in network for network in self.addresses)


class ListenerSettings(BaseModel):
    """Where the listener listens, whom it lets in, and its bounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ae_title: AeTitle = Field(default="WARDROUND", description="ours; a caller that asks for another is refused")
    address: IPv4Address | IPv6Address = Field(default=IPv4Address("127.0.0.1"))
    port: int = Field(default=11112, ge=0, le=65535)
    callers: tuple[Caller, ...] = Field(default=(), max_length=1000)
    tls: ListenerTls | None = None
    max_associations: int = Field(default=8, ge=1, le=256, description="connections at the same time, idle ones too")
    max_object_mb: int = Field(default=4096, ge=1, le=1 << 20, description="largest object that is accepted")
    min_free_mb: int = Field(default=10240, ge=1, description="with less free on the disk nothing is taken")
    idle_seconds: float = Field(default=60, ge=1, le=3600, description="longest silence of a caller")

    @model_validator(mode="after")
    def _callers_fit(self) -> Self:
        titles = [caller.ae_title for caller in self.callers]
        if len(set(titles)) != len(titles):
            raise ValueError("callers: each AE title stands once; give a caller several addresses")
        if self.tls is None and any(caller.commitment_tls for caller in self.callers):
            raise ValueError("callers: commitment_tls needs the certificates of the block tls")
        return self

    def caller(self, ae_title: str, address: str) -> Caller | None:
        """Return the caller that this title and address belong to, or None if nobody may call so."""
        known = (caller for caller in self.callers if caller.ae_title == ae_title)
        return next((caller for caller in known if caller.calls_from(address)), None)

    def anybody_calls_from(self, address: str) -> bool:
        """Tell whether any caller may call from this address."""
        return any(caller.calls_from(address) for caller in self.callers)

    def beside(self, root: Path) -> "ListenerSettings":
        """Return the same with every file's path made absolute, relative ones beside site.yaml."""
        if self.tls is None:
            return self
        files = {name: (root / value).resolve() for name, value in self.tls}
        return self.model_copy(update={"tls": self.tls.model_copy(update=files)})


def _plain(address: str) -> IPv4Address | IPv6Address:
    found = ip_address(address.split("%")[0])
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
