"""What an answer of the engine means for an upload, by the settings of the moment."""

from dataclasses import dataclass

from maintenance.errors import Exit
from maintenance.settings import UploadSettings
from maintenance.verdict import Answer, Verdict


@dataclass(frozen=True, slots=True)
class UploadVerdict:
    """What is known about one upload, and whether the application may keep it."""

    verdict: str  # clean, infected, unknown, or off: nobody looked
    accepted: bool  # what the application goes by
    status: Exit  # scan-upload's exit status for the same
    signature: str | None = None
    reason: str | None = None  # why it is unknown, in one sentence
    cause: str = ""  # the same in one word, as it is counted
    seconds: float = 0.0  # that it took
    observed: bool = False  # accepted only because upload.observe is on


@dataclass(frozen=True, slots=True)
class Rules:
    """What an upload has to keep to, for the form to say before it is sent."""

    max_size: int  # bytes
    types: tuple[str, ...]  # such as "jpeg"
    max_pixels: int

    @property
    def accept(self) -> str:
        """Return the types as an HTML form's ``accept`` has them."""
        return ",".join(f"image/{one}" for one in self.types)


@dataclass(frozen=True, slots=True)
class Said:
    """An engine's word; ``cause`` is one of ``tallying.CAUSES`` when there is none."""

    answer: Answer
    cause: str = ""


def greatest_size(settings: UploadSettings) -> int:
    """Return how many bytes an upload may have."""
    return min(settings.upload.max_size, settings.clamav.max_file_size)


def off() -> UploadVerdict:
    """Return the verdict while the switch is off."""
    return UploadVerdict("off", accepted=True, status=Exit.DONE)


def judged(settings: UploadSettings, said: Said, seconds: float) -> UploadVerdict:
    """Return what the engine's word comes to."""
    answer = said.answer
    status = Exit.DONE
    if answer.verdict is Verdict.INFECTED:
        status = Exit.INFECTED
    elif answer.verdict is Verdict.UNKNOWN and settings.upload.when_unavailable == "refuse":
        status = Exit.INCOMPLETE
    return _unless_observed(settings, UploadVerdict(
        answer.verdict.value, status is Exit.DONE, status, answer.signature, answer.reason,
        said.cause, seconds))


def refused(settings: UploadSettings, rule: str, reason: str, seconds: float) -> UploadVerdict:
    """Return the verdict on what breaks a rule: ``size``, ``type``, ``pixels`` or ``frames``."""
    return _unless_observed(settings, UploadVerdict(
        "unknown", accepted=False, status=Exit.REFUSED, reason=reason, cause=rule,
        seconds=seconds))


def too_large(settings: UploadSettings, seconds: float) -> UploadVerdict:
    """Return the verdict on what has too many bytes."""
    limit = greatest_size(settings)
    name = "upload.max_size" if limit == settings.upload.max_size else "clamav.max_file_size"
    return refused(settings, "size", f"larger than {name} ({limit})", seconds)


def _unless_observed(settings: UploadSettings, verdict: UploadVerdict) -> UploadVerdict:
    if verdict.accepted or not settings.upload.observe:
        return verdict
    return UploadVerdict(verdict.verdict, accepted=True, status=Exit.DONE,
                         signature=verdict.signature, reason=verdict.reason, cause=verdict.cause,
                         seconds=verdict.seconds, observed=True)
