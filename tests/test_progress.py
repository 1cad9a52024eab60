"""Progress bars: what they leave in a log."""

import io
from contextlib import redirect_stderr

from ageflow.work import progress_bar


def test_a_log_gets_few_lines_and_of_a_hidden_bar_none():
    """Where nobody watches, every redraw is a line that stays."""
    log = io.StringIO()
    for show in (True, False):
        with redirect_stderr(log):
            for _ in progress_bar(range(50), title="glow", unit="step", show=show):
                pass
    assert "glow: 100%" in log.getvalue()
    assert "50/50" in log.getvalue()
    assert log.getvalue().count("glow:") == 2, "one line at the start, one at the end, of the bar that is shown"
