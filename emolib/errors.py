"""Every fault a user can meet, each with a name of its own.

All derive from :class:`EmolibError`; the command line prints their message without a
traceback and exits with 2. A message says what failed, where, and what to do.
"""

from __future__ import annotations


class EmolibError(Exception):
    """Base class of every fault that is the input's or the set-up's, not the code's."""


class ParamsError(EmolibError):
    """A parameter file, notebook cell or command line holds a wrong key, type or value."""


class DataError(EmolibError):
    """A data set, label file or input file is missing, unreadable or contradicts itself."""


class MediaError(EmolibError):
    """One media file cannot be used: corrupt, empty, without the stream that was asked for.

    Stages record it as that clip's row error and go on.

    Attributes:
        lasting: The fault is in the file's content and will be the same next time.
    """

    lasting = True


class NoAudioError(MediaError):
    """The file is readable but has no sound in it: no audio track, or an empty one."""


class DecoderError(MediaError):
    """A file hung, crashed or confused a decoder; the next run looks at it again.

    Whether it is then really decoded is the quarantine's to say (``emolib.quarantine``).
    """

    lasting = False


class EngineError(EmolibError):
    """A model engine cannot be opened or cannot answer.

    Attributes:
        transient: True when asking again later may work (server busy, down, time-out);
            the next run then repeats the row.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class MissingModelError(EngineError):
    """Weights, a tokenizer or a whole model folder are not where the parameters say."""


class LedgerError(EmolibError):
    """A ledger file cannot be written (disk full, read-only) or is not a ledger."""


class RunError(EmolibError):
    """A run folder is locked, incomplete, or an input run is not finished."""


class TrainingError(EmolibError):
    """A training subprocess failed; the message carries the end of its log."""


class ParityError(EmolibError):
    """A LoRA, its merged weights and the served model do not answer alike."""


class ScoreError(EmolibError):
    """Names, labels or groupings do not allow an honest score."""


class LeakError(ScoreError):
    """Evaluation clips occur in a training list."""


class MissingDependencyError(EmolibError):
    """An optional package is not installed; the message names the extra to install."""
