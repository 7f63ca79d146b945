"""How `manage.py test` differs from the real site: nothing built or kept, no slow passwords."""

import tempfile

from django.conf import settings
from django.test import override_settings
from django.test.runner import DiscoverRunner

PLAIN = {
    "STORAGES": {
        "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    },
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
}


class Runner(DiscoverRunner):
    def setup_test_environment(self, **kwargs):
        super().setup_test_environment(**kwargs)
        self.plain = override_settings(**PLAIN)
        self.plain.enable()
        self.folder = tempfile.TemporaryDirectory()
        search = settings.HAYSTACK_CONNECTIONS["default"]
        if "PATH" in search:
            search["PATH"] = f"{self.folder.name}/index"

    def teardown_test_environment(self, **kwargs):
        self.folder.cleanup()
        self.plain.disable()
        super().teardown_test_environment(**kwargs)
