"""The address of the plots."""

from django.urls import path

from .views import monitor

urlpatterns = [path("monitor/", monitor, name="monitor")]
