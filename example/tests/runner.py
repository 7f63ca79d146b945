"""How `manage.py test` differs from the real site: nothing built, no slow passwords."""

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

    def teardown_test_environment(self, **kwargs):
        self.plain.disable()
        super().teardown_test_environment(**kwargs)
