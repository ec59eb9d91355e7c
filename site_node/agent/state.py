"""What the agent remembers between runs: how far it has read its mailbox, and the hub's public key."""

from dataclasses import dataclass

from protocol.digest import canonical_json, parse_json
from protocol.errors import ProtocolError
from protocol.signing import PublicKey
from site_node.durable import write_durably
from site_node.errors import EnrolmentError
from site_node.settings import SitePaths


@dataclass(frozen=True)
class AgentState:
    """The mailbox cursor and the hub's key."""

    cursor: int
    hub_key: PublicKey


def read_state(paths: SitePaths) -> AgentState:
    """Read the agent's state.

    Raises: EnrolmentError if the site was never enrolled.
    """
    try:
        document = parse_json(paths.agent_state.read_bytes())
        return AgentState(int(document["cursor"]), PublicKey.from_text(document["hub_key"]))
    except (FileNotFoundError, ProtocolError, KeyError, TypeError, ValueError):
        raise EnrolmentError(
            "This site is not enrolled with a hub.", "Run `wardround site enroll DIR --code CODE`."
        ) from None


def write_state(paths: SitePaths, state: AgentState) -> None:
    """Keep the agent's state."""
    document = {"schema": "wardround.agent-state/1", "cursor": state.cursor, "hub_key": state.hub_key.text}
    write_durably(paths.agent_state, canonical_json(document))
