"""The examples of docs/hits.md, run as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_hits import CHECKOUT, counted, flush

TEXT = (CHECKOUT / "docs/hits.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
USES = {
    "flask": """
client = app.test_client()
answers = [client.get("/uploads/a.jpg") for _ in range(2)]
assert [one.status_code for one in answers] == [200, 200], answers
assert answers[0].data == b"clean enough"
for one in answers: one.close()
""",
    "django": """
import django
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["testserver"])
django.setup()
from django.test import Client
for _ in range(2):
    answer = Client().get("/uploads/a.jpg")
    assert (answer.status_code, b"".join(answer.streaming_content)) == (200, b"clean enough")
    answer.close()
""",
    "environ": """
told = []
for path in ("/uploads/a.jpg", "/uploads/a.jpg", "/elsewhere"):
    application({"PATH_INFO": path}, lambda *words: told.append(words))
assert len(told) == 3
""",
}


@pytest.mark.parametrize("kind", USES)
def test_the_example_counts(site, kind):
    site.image("a.jpg")
    flush(site)
    (example,) = [one for one in EXAMPLES if kind in one]
    code = example.replace("/srv/uploads", str(site.store)) + USES[kind]
    script = Path(site.root, "app.py")
    script.write_text(f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n{code}")
    done = subprocess.run([sys.executable, script], env={"IMAGEWARDEN_CONFIG": str(site.config)},
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    flush(site)
    assert counted(site) == {"a.jpg": 2}
