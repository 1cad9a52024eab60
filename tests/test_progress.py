"""Progress bars: what they leave in a log."""

from ageflow.work import progress_bar


def test_a_log_gets_the_fewer_lines_the_longer_it_takes():
    """A night of updates would leave a line every five seconds in the executed notebook."""
    with progress_bar(total=100_000, title="glow", unit="step") as bar:
        assert bar.mininterval == 5
        bar.refresh()
        assert bar.mininterval == 5
        bar.start_t -= 86_400
        bar.refresh()
        assert 864 <= bar.mininterval < 900
        assert bar.maxinterval > bar.mininterval
