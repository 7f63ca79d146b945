"""Settings of every process: what it talks to is in servers.json, its secrets are in .env."""

import os
import sys
from collections import ChainMap

from . import dotenv, engines, release

BASE_DIR = release.ROOT
if not (BASE_DIR / "inventory.py").exists():
    sys.path.append(str(BASE_DIR.parent))  # a checkout, where it is one folder up

import inventory  # noqa: E402

# Small letters: names in capitals are settings, which Celery and error pages may print.
env_file = BASE_DIR / ".env"
secrets = ChainMap(os.environ, dotenv.read(env_file))

# A checkout without secrets belongs to no fleet: it talks to no server, and shows its errors.
alone = release.NAME == "checkout" and not env_file.exists()
DEBUG = alone
SECRET_KEY = "only good for a checkout" if alone else secrets.get("SECRET_KEY", "")


def hosts(role):
    return () if alone else inventory.hosts(role)


def addresses(role, port):
    return [f"{host.private_dns}:{port}" for host in hosts(role)]


facing = [*hosts("nginx"), *hosts("web")]  # those that a request may name
ALLOWED_HOSTS = [word for h in facing for word in (h.name, h.private_dns, h.public_dns) if word]
ALLOWED_HOSTS += ["localhost", "127.0.0.1"]  # a checkout, and the trial of a staged release

# HTTPS=1 in .env says that visitors come over TLS alone, which nginx or what is before it ends.
HTTPS = secrets.get("HTTPS") == "1"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_REDIRECT_EXEMPT = ["^healthz$", "^__release__$"]  # a deploy asks the process itself
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "search",  # before haystack, whose schema it has a template of its own for
    "haystack",
    "jobs",
    "people",
    "directory",
    "stream",
    "monitor",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "conference.urls"
WSGI_APPLICATION = "conference.wsgi.application"
TEST_RUNNER = "tests.runner.Runner"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ]
        },
    }
]

# People

AUTH_USER_MODEL = "people.Person"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}Validator"}
    for name in ("UserAttributeSimilarity", "MinimumLength", "CommonPassword", "NumericPassword")
]
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "home"
LOGIN_URL = "login"
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"

# Database

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        # Beside the real .env, which every release links to: a database must outlive a release.
        "NAME": env_file.resolve().parent / "conference.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }
}
for db in hosts("db")[:1]:
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": db.private_dns,
        "PORT": 5432,
        "NAME": "conference",
        "USER": "conference",
        "PASSWORD": secrets.get("DATABASE_PASSWORD", ""),
        "OPTIONS": {"connect_timeout": 2},
    }

# Cache

caches = addresses("memcached", 11211)
if caches:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": caches,
            # A dead server is a miss, never an error page; /healthz is where it shows.
            "OPTIONS": {"ignore_exc": True, "connect_timeout": 0.3, "timeout": 0.5},
        }
    }

# Search

# Where there is Solr, it is reached through nginx's one URL; what .env says comes first.
fronts = addresses("nginx", 8983) if hosts("solr_master") else []
search = f"http://{fronts[0]}/solr/conference" if fronts else "whoosh:"
HAYSTACK_CONNECTIONS = {
    "default": engines.connection(secrets.get("SEARCH_URL", search), env_file.resolve().parent)
}
HAYSTACK_CUSTOM_HIGHLIGHTER = "search.highlighting.Escaped"
SEARCH_UPDATES = secrets.get("SEARCH_UPDATES", "flagged")  # or realtime, batched

# Celery

LONGEST_TASK = 60  # seconds; a task that takes longer is ended
brokers = addresses("redis", 6379)
CELERY_BROKER_URL = f"redis://{brokers[0]}/0" if brokers else None
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # What a killed worker held is given out again after this time, so it is short; were it shorter
    # than a task, that task would run twice.
    "visibility_timeout": LONGEST_TASK + 30,
    "unacked_restore_interval": 2,
    "unacked_restore_throttle": 1,
    "socket_connect_timeout": 2,
    "max_retries": 0,  # a visitor hears at once that the queue is down; a worker tries again anyway
}
CELERY_TASK_ALWAYS_EAGER = not brokers
CELERY_TASK_EAGER_PROPAGATES = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True  # with acks_late: a killed child's task runs again
CELERY_TASK_TIME_LIMIT = LONGEST_TASK
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BEAT_SCHEDULE = {
    "index": {
        "task": "search.tasks.index_flagged",
        "schedule": 6 * 3600 if SEARCH_UPDATES == "batched" else 60,
    },
    "fan out": {"task": "stream.tasks.fan_out_missed", "schedule": 60},
}
MONITOR_PASSWORD = secrets.get("MONITOR_PASSWORD", "")

# Pages that a user names are read from public addresses, and from these networks.
LINK_NETWORKS = secrets.get("LINK_NETWORKS", "").split()

# Activity stream

# An instance of its own, role inbox: a broker must never forget, inboxes may be made anew. Without
# such a host the broker's Redis has them in another database.
inboxes = [f"redis://{address}/0" for address in addresses("inbox", 6380)]
inboxes += [f"redis://{address}/1" for address in brokers]
INBOX_URL = secrets.get("INBOX_URL", inboxes[0] if inboxes else None)
STREAM_PULL_ABOVE = 10_000  # followers

# Files

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "static"
MEDIA_URL = "/media/"
MEDIA_ROOT = BASE_DIR / "media"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django": {"handlers": ["console"], "level": "INFO"}},
}
