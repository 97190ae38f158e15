"""What can go wrong in the operator.

OperatorError
├── SettingsError             a person has to correct the settings file
├── PermanentError            the API server refuses for good; a person has to change something
│   ├── ForbiddenError        the operator may not do this
│   ├── InvalidObjectError    an object was refused as invalid
│   ├── OccupiedError         an object of that name is somebody else's
│   │   └── LeftoverError     it is of an earlier resource of the same name, and goes by itself
│   └── NamespaceTerminatingError  nothing new may be made in a namespace that goes away
├── TemporaryError            trying again later helps
│   └── ConflictError         somebody else changed the object meanwhile
├── MissingError              the object is not there (any more)
└── LeadLostError             it is, or may be, another operator's turn
"""


class OperatorError(Exception):
    """Anything that the operator raises on purpose."""


class SettingsError(OperatorError):
    """The settings file has mistakes."""


class PermanentError(OperatorError):
    """Trying the same again is pointless."""


class ForbiddenError(PermanentError):
    """The operator's ServiceAccount lacks a right."""


class InvalidObjectError(PermanentError):
    """The API server refused an object as invalid."""


class OccupiedError(PermanentError):
    """Somebody else has an object of that name, and keeps what is to be written to it."""


class LeftoverError(OccupiedError):
    """What an earlier resource of the same name had is still there; the garbage collector removes it."""


class NamespaceTerminatingError(PermanentError):
    """The namespace is being deleted, so nothing can be made in it."""


class TemporaryError(OperatorError):
    """Trying again later may help."""


class ConflictError(TemporaryError):
    """The object was changed by somebody else between reading and writing."""


class MissingError(OperatorError):
    """The object does not exist."""


class LeadLostError(OperatorError):
    """The Lease is not this operator's any more, or could not be renewed in time."""
