"""The addresses of jobs."""

from django.urls import path

from . import views

urlpatterns = [
    path("jobs/<str:name>/", views.job, name="job"),
    path("jobs/<str:name>/file", views.job_file, name="job_file"),
]
