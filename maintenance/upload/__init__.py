"""One verdict on an upload, for applications: ``check``, and ``rules`` for the form."""

from maintenance.upload.checking import check, rules
from maintenance.upload.judging import Rules, UploadVerdict

__all__ = ["Rules", "UploadVerdict", "check", "rules"]
