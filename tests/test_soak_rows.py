"""The rows of docs/reliability.md: what ran is put in, what failed says so, the rest stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import BEGIN, END, machine, written

PAGE = f"above\n{BEGIN}\n{END}\nbelow\n"
ROOT = Path(__file__).parents[1]


def test_rows_of_tests_that_did_not_run_stay_and_of_another_machine_go() -> None:
    page = written(PAGE, "one machine", {"b": "| b | 2 |", "a": "| a | 1 |"})
    page = written(page, "one machine", {"b": "| b | 3 |"})
    assert page.startswith("above\n")
    assert page.endswith("below\n")
    assert [line for line in page.splitlines() if line.startswith("| ")][1:] == [
        "| a | 1 |",
        "| b | 3 |",
    ]
    assert "| a |" not in written(page, "another machine", {"b": "| b | 4 |"})
    with pytest.raises(ValueError, match="make soak"):
        written("no marks", "one machine", {})


def test_the_machine_is_told_without_names_or_paths() -> None:
    import platform

    line = machine()
    assert "torch " in line
    assert "\n" not in line
    assert platform.node() not in line
    assert str(Path.home()) not in line


def test_a_slow_test_leaves_its_row(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["tests.soak"]')
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.slow("a thing | held", "7")
        def test_held(soak):
            soak("7 of 7")

        @pytest.mark.slow
        @pytest.mark.parametrize("year", [2017])
        def test_that_breaks(year):
            assert year == 2015

        def test_quick():
            pass

        @pytest.mark.slow("absent", "1")
        def test_absent():
            pytest.skip("no data")
        """
    )
    page = pytester.path / "page.md"
    page.write_text(PAGE)
    pytester.syspathinsert(ROOT)
    pytester.runpytest_inprocess("--soak", str(page)).assert_outcomes(passed=2, failed=1, skipped=1)
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")][1:]
    cells = [row.strip("| ").split(" | ")[:3] for row in rows]
    assert cells == [["a thing / held", "7", "7 of 7"], ["that breaks [2017]", "", "**failed**"]]


def test_the_page_of_the_project_has_a_place_for_rows() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    assert written(page, "nowhere", {"row": "| row |"}).count("| row |") == 1
