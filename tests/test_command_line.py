"""Command lines and configuration files, held against what the real programs make of them."""

import subprocess

import pytest

from maintenance.clamav import clamd_conf
from maintenance.clamav.command_line import option

CLAMD = "/usr/sbin/clamd"
FRESHCLAM = "/usr/bin/freshclam"


@pytest.fixture
def files(tmp_path):
    """Two configuration files that the program refuses, each with words of its own."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"DatabaseDirectory {tmp_path}\nOf{name} yes\n")
    return tmp_path


@pytest.mark.parametrize("line", [
    "--config-file={0}/one --config-file={0}/two", "--config-file {0}/two --config-file {0}/one",
    "--config-file={0}/one --config-file {0}/two", "--conf={0}/two", "--config-f {0}/one",
    "--debug --config-file={0}/two --foreground"])
@pytest.mark.parametrize("program", [CLAMD, FRESHCLAM])
def test_the_configuration_found_is_the_one_that_the_program_reads(files, program, line):
    found = used(files, program, line)
    assert found is not None


@pytest.mark.parametrize("line", [
    "-c {0}/two -c {0}/one", "-c{0}/two", "-c {0}/one --config-file={0}/two",
    "--config-file {0}/one -c {0}/two", "--config-file={0}/one -- --config-file={0}/two",
    "--config-file={0}/one -- -c {0}/two"])
def test_short_options_are_clamds_too(files, line):
    assert used(files, CLAMD, line) is not None


def used(files, program, line):
    """Hold what we find against the program's own complaint."""
    words = [program, *(word.format(files) for word in line.split())]
    found = option(words, "config-file", "c" if program == CLAMD else "")
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert f"Parse error at {found}:" in ended.stdout + ended.stderr, ended
    return found


def test_what_was_not_given_is_none():
    for line in ("clamd", "clamd --foreground", "clamd --", "clamd - --config",
                 "clamd -- --config-file=x", "--config-file=x", "clamd -F"):
        assert option(line.split(), "config-file", "c") is None, line


def test_of_repeated_lines_in_a_configuration_the_first_counts(tmp_path):
    (tmp_path / "test.ndb").write_text("Test:0:*:6161616161616161\n")
    conf = tmp_path / "clamd.conf"
    conf.write_text(f"LocalSocket {tmp_path}/s\nDatabaseDirectory {tmp_path}/none\n"
                    f"DatabaseDirectory {tmp_path}\n# MaxFileSize 9M\n")
    ended = subprocess.run([CLAMD, "--foreground", f"--config-file={conf}"], capture_output=True,
                           text=True, check=False, timeout=60)
    assert ended.returncode != 0, "it read another directory than we think"
    read = clamd_conf.read(conf)
    assert read is not None
    assert read.options["DatabaseDirectory"] == f"{tmp_path}/none"
