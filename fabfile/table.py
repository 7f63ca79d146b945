"""A table as text."""

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 400  # no cell is cut; a narrow terminal wraps the lines


def table_lines(title, columns, rows):
    """The lines of a table: columns are its heads, each row has a cell for each."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    page = Console(file=io.StringIO(), width=WIDE, highlight=False, emoji=False, markup=False)
    page.print(table)
    return [line.rstrip() for line in page.file.getvalue().splitlines()]
