"""Control groups of attempts, in a kernel whose groups are left to the engine, as systemd does with `Delegate=`."""

from pathlib import Path

from tests.support.user_mode_linux import python, run_in_own_kernel


def test_the_kernel_limits_attempts_where_it_leaves_groups_to_the_engine(tmp_path: Path) -> None:
    tests = Path(__file__).with_name("in_delegated_group.py")
    output = run_in_own_kernel(python("-m", "pytest", "-q", "-p", "no:cacheprovider", tests), tmp_path)
    assert "passed" in output
    assert "skipped" not in output
