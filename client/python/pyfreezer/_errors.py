"""What can go wrong in a call that a person made. Training itself never raises: it goes on with the flags it has."""

from __future__ import annotations

from collections.abc import Sequence


class FreezerError(Exception):
    """Base of all errors of this package. `code` is freezerd's or libfreezer's word for it, `hint` what helps."""

    def __init__(self, message: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.code = code
        self.hint = hint

    def __reduce__(self) -> tuple:
        """An error of one rank is raised on others."""
        return _again, (type(self), self.args, self.__dict__)


def _again(cls: type[FreezerError], args: tuple, attributes: dict) -> FreezerError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(attributes)
    return error


class NotConnected(FreezerError):
    """There is no freezerd to talk to."""


class NoMatch(FreezerError):
    """A pattern, run or parameter that does not exist. The hint suggests what may have been meant."""


class Refused(FreezerError):
    """A guard said no: an empty mask, a pin, the baseline, or what the trainer cannot do. `code` says which."""


class RulesError(FreezerError):
    """Rules with mistakes; `details` has one entry for each, as in PROTOCOL.md."""

    def __init__(self, message: str, *, details: Sequence[dict] = (), hint: str = "") -> None:
        super().__init__(message, code="rules_invalid", hint=hint)
        self.details = list(details)


class NotCovered(FreezerError):
    """Parameters that could be thawed are in no optimizer; `names` has all of them."""

    def __init__(self, message: str, names: Sequence[str], *, hint: str = "") -> None:
        super().__init__(message, code="NO_OPTIMIZER", hint=hint)
        self.names = list(names)


class LayoutError(FreezerError):
    """
    The model's parameters cannot be registered: two of them would have one name, one has no size yet, or another rank
    has others (code LAYOUT_MISMATCH).
    """


_BY_CODE = {
    "no_run": NoMatch,
    "ambiguous_run": NoMatch,
    "no_match": NoMatch,
    "no_param": NoMatch,
    "no_rules": NoMatch,
    "refused_empty": Refused,
    "refused_baseline": Refused,
    "refused_pinned": Refused,
    "refused_trainer": Refused,
    "needs_yes": Refused,
}


def from_answer(error: dict) -> FreezerError:
    """The exception for the `error` object of an answer of freezerd."""
    code = str(error.get("code", ""))
    message = str(error.get("message", "freezerd refused without a word"))
    hint = str(error.get("hint") or "")
    if code == "rules_invalid":
        return RulesError(message, details=error.get("details") or (), hint=hint)
    return _BY_CODE.get(code, FreezerError)(message, code=code, hint=hint)
