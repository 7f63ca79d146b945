"""What members fill in to keep the directory."""

from django import forms

from .models import Conference, Session, Speaker

MOST_BYTES = 8_000_000


def date(kind="date", pattern="%Y-%m-%d"):
    """The browser's own widget for a date, or for a moment."""
    widgets = {"date": forms.DateInput, "datetime-local": forms.DateTimeInput}
    return widgets[kind](attrs={"type": kind}, format=pattern)


class ConferenceForm(forms.ModelForm):
    class Meta:
        model = Conference
        fields = ["name", "city", "starts", "ends", "about", "published"]
        widgets = {"starts": date(), "ends": date()}

    def clean(self):
        starts, ends = (self.cleaned_data.get(name) for name in ("starts", "ends"))
        if starts and ends and ends < starts:
            self.add_error("ends", "A conference ends on the day it starts, or later.")


class SessionForm(forms.ModelForm):
    class Meta:
        model = Session
        fields = ["conference", "title", "about", "speakers", "starts", "published"]
        widgets = {"starts": date("datetime-local", "%Y-%m-%dT%H:%M")}


class SpeakerForm(forms.ModelForm):
    link = forms.URLField(required=False, assume_scheme="https")

    class Meta:
        model = Speaker
        fields = ["name", "about", "link", "published"]


class LinkForm(forms.ModelForm):
    link = forms.URLField(assume_scheme="https")

    class Meta:
        model = Speaker
        fields = ["link"]


class PictureForm(forms.Form):
    picture = forms.FileField()

    def clean_picture(self):
        picture = self.cleaned_data["picture"]
        if picture.size > MOST_BYTES:
            raise forms.ValidationError("The file is longer than 8 MB.")
        return picture
