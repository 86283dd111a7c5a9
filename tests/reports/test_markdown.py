"""Markdown as all pages write it."""

from pipeline.reports.markdown import count, escaped, table


def test_a_table_in_markdown() -> None:
    assert table(["λ", "dice"], [["1", "0.5"]]) == "| λ | dice |\n| --- | ---: |\n| 1 | 0.5 |"
    assert table(["λ", "word"], [["1", "yes"]], numbers=False).splitlines()[1] == "| --- | --- |"


def test_a_name_adds_no_cell_and_no_markup() -> None:
    assert escaped("a|b_c *d* <i>[x]") == r"a\|b\_c \*d\* \<i\>\[x\]"


def test_one_is_singular() -> None:
    assert [count(number, "scan") for number in (0, 1, 2)] == ["0 scans", "1 scan", "2 scans"]
