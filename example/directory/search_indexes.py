"""What the search knows of conferences, sessions and speakers.

A title stands twice in the text (templates/search/indexes), so that it weighs more on every engine.
"""

from haystack import indexes

from .models import Conference, Session, Speaker


class Published(indexes.SearchIndex):
    text = indexes.CharField(document=True, use_template=True)
    title = indexes.CharField(boost=2)

    def index_queryset(self, using=None):
        return self.get_model()._base_manager.filter(published=True)

    def prepare_title(self, row):
        return str(row)


class ConferenceIndex(Published, indexes.Indexable):
    city = indexes.CharField(model_attr="city", faceted=True)

    def get_model(self):
        return Conference


class SpeakerIndex(Published, indexes.Indexable):
    def get_model(self):
        return Speaker


class SessionIndex(Published, indexes.Indexable):
    starts = indexes.DateTimeField(model_attr="starts")

    def get_model(self):
        return Session

    def index_queryset(self, using=None):
        shown = super().index_queryset(using).filter(conference__published=True)
        return shown.select_related("conference").prefetch_related("speakers")
