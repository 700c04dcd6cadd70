"""How an adapter (DDP, FSDP, Lightning, ...) takes part in a session: subclass Extension and give it to attach()."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._flags import Change
    from ._names import Slot
    from ._session import Session


class Extension:
    """
    All of these do nothing. They are called in the order of the extensions, in the training thread, and on every rank
    at the same step with the same change, so collectives are allowed in before_flip() and after_flip().
    """

    def register(self, slots: Sequence[Slot]) -> None:
        """
        Before the parameters are registered. Sets may_freeze and may_train, to a code of capitals, digits and _, of
        those that cannot be flipped here at all; log why, freezerctl shows the code only.
        """

    def attached(self, session: Session) -> None:
        """The session is open; the first window has not begun."""

    def before_flip(self, change: Change) -> None:
        """Nothing is written yet. Raises Refused(message, code=...): all flags stay, and it is tried again later."""

    def after_flip(self, change: Change) -> None:
        """The flags are written and the gradients of what was frozen are gone; no forward has begun."""

    def detached(self) -> None:
        """The session is over."""
