"""Work done outside of a request. Each of these may run twice: the second time changes nothing."""

import hashlib
import time

from celery import shared_task
from jobs.progress import Refused
from jobs.waited import waited_for

from .models import Conference, Picture, Record, Speaker


@shared_task
def record(batch: str, number: int, seconds: float = 0) -> None:
    """Takes some time, then leaves one row saying that it ran."""
    time.sleep(seconds)
    Record.objects.create(batch=batch, number=number)


@waited_for
def resize_picture(progress, speaker: int) -> str:
    """The uploaded picture of a speaker (a key), in each size that pages show."""
    from . import pictures

    upload = Picture.objects.filter(speaker=speaker, size="upload").first()
    if not upload:
        raise Refused("The picture is not there any longer.")
    found = pictures.resized(bytes(upload.data))
    for number, (size, data) in enumerate(found.items(), 1):
        keep_picture(speaker, size, data, "image/jpeg")
        progress.step(number, len(found))
    return "The picture is there in three sizes."


def keep_picture(speaker: int, size, data: bytes, kind: str) -> None:
    """One size of a speaker's picture, in place of an older one."""
    facts = {"data": data, "kind": kind, "digest": hashlib.sha256(data).hexdigest()}
    Picture.objects.update_or_create(speaker_id=speaker, size=size, defaults=facts)


@waited_for
def read_link(progress, speaker: int) -> str:
    """Title and icon of the page that a speaker (a key) links to."""
    from . import links, pictures

    link = Speaker.objects.values_list("link", flat=True).filter(pk=speaker).first()
    if not link:
        raise Refused("There is no link.")
    title, icon = links.title_and_icon(link)
    Speaker.objects.filter(pk=speaker, link=link).update(link_title=title)
    progress.step(1, 2)
    try:
        if icon:
            keep_picture(speaker, "icon", pictures.icon(icon), "image/png")
    except Refused:
        return f"It is called “{title}”; its icon is of no use."
    return f"It is called “{title}”."


@waited_for
def report(progress, conference: int, kind: str) -> str:
    """The schedule of a conference (a key) as a file: csv or pdf."""
    from .reports import FORMATS

    found = Conference.objects.filter(pk=conference, published=True).first()
    if not found or kind not in FORMATS:
        raise Refused("There is no such schedule.")
    progress.keep(f"schedule-{conference}.{kind}", FORMATS[kind](found, progress.step))
    return f"The schedule of {found} is ready."
