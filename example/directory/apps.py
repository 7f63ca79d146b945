"""Who speaks at a session is part of its document in the index."""

from django.apps import AppConfig
from django.db.models.signals import m2m_changed


class DirectoryConfig(AppConfig):
    name = "directory"

    def ready(self):
        sessions = self.get_model("Session")
        m2m_changed.connect(self.speakers_changed, sender=sessions.speakers.through)

    def speakers_changed(self, instance, action, reverse, pk_set, **kwargs):
        """Flags the sessions: before a set is emptied, after anything else."""
        if action not in ("post_add", "post_remove", "pre_clear"):
            return
        keys = [instance.pk]
        if reverse:
            keys = pk_set or instance.sessions.values_list("pk", flat=True)
        self.get_model("Session").objects.filter(pk__in=list(keys)).update()
