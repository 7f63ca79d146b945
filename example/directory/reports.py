"""A conference's schedule as a file."""

import csv
from io import BytesIO, StringIO

HEADINGS = ("Starts", "Title", "Speakers")


def rows(conference, tell):
    """The lines of a schedule; `tell` hears how many of how many there are."""
    sessions = conference.sessions.filter(published=True).prefetch_related("speakers")
    total = len(sessions)
    for number, session in enumerate(sessions, 1):
        if number % 50 == 0 or number == total:
            tell(number, total)
        names = ", ".join(speaker.name for speaker in session.speakers.all() if speaker.published)
        yield f"{session.starts:%Y-%m-%d %H:%M}", session.title, names


def as_csv(conference, tell) -> bytes:
    """For a spreadsheet: no cell is a formula, whatever a title begins with."""
    out = StringIO()
    writer = csv.writer(out)
    writer.writerow(HEADINGS)
    for row in rows(conference, tell):
        writer.writerow([f"'{cell}" if cell[:1] in "=+-@\t\r" and cell else cell for cell in row])
    return out.getvalue().encode("utf-8-sig")


def as_pdf(conference, tell) -> bytes:
    """For paper."""
    from xml.sax.saxutils import escape

    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Paragraph, SimpleDocTemplate, Table

    styles = getSampleStyleSheet()
    cells = [[Paragraph(escape(cell), styles["Normal"]) for cell in row]
             for row in [HEADINGS, *rows(conference, tell)]]
    title = Paragraph(escape(conference.name), styles["Title"])
    out = BytesIO()
    document = SimpleDocTemplate(out, pagesize=A4, title=conference.name)
    document.build([title, Table(cells, colWidths=[100, 230, 130], repeatRows=1)])
    return out.getvalue()


FORMATS = {"csv": as_csv, "pdf": as_pdf}
