"""Every address of the site."""

from django.urls import include, path

from .views import healthz, running

urlpatterns = [
    path("", include("directory.urls")),
    path("", include("people.urls")),
    path("", include("search.urls")),
    path("", include("jobs.urls")),
    path("", include("stream.urls")),
    path("", include("monitor.urls")),
    path("healthz", healthz),
    path("__release__", running),
]
