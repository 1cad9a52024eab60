"""The kit stays thin: the budget of its code, its README and its notebooks' texts."""

from tests.conftest import ROOT
from tools.count_lines import count

LIBRARY_LINES = 9_250  # 7,000; 900 for the photos and tables that people bring; 1,350 for methods beside the kit's own
LIBRARY_FILES = 90
FILE_LINES = 300
TEST_LINES = 8_700  # 7,000, and what tests those
README_CHARACTERS = 8_000


def test_the_library_keeps_to_its_budget():
    lines = count(ROOT / "ageflow")
    assert sum(lines.values()) <= LIBRARY_LINES
    assert len(lines) <= LIBRARY_FILES


def test_no_file_holds_more_than_one_reads_at_a_sitting():
    long = {str(file): lines for file, lines in count(ROOT / "ageflow").items() if lines > FILE_LINES}
    assert not long


def test_the_tests_keep_to_their_budget():
    assert sum(count(ROOT / "tests").values()) <= TEST_LINES


def test_the_readme_is_read():
    assert len((ROOT / "README.md").read_text()) <= README_CHARACTERS
