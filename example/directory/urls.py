"""The addresses of the directory's pages."""

from django.urls import path, re_path

from . import orders, views

KIND = "(?P<kind>conference|session|speaker)s"

urlpatterns = [
    path("", views.home, name="home"),
    path("conferences/<int:pk>/", views.conference, name="conference"),
    path("sessions/<int:pk>/", views.session, name="session"),
    path("speakers/", views.speakers, name="speakers"),
    path("speakers/<int:pk>/", views.speaker, name="speaker"),
    path("speakers/<int:pk>/pictures/<slug:size>-<slug:digest>", views.picture, name="picture"),
    path("speakers/<int:pk>/picture/", orders.picture, name="order_picture"),
    path("speakers/<int:pk>/link/", orders.link, name="order_link"),
    path("conferences/<int:pk>/report/", orders.report, name="order_report"),
    re_path(rf"^{KIND}/new/$", views.edit, name="new"),
    re_path(rf"^{KIND}/(?P<pk>\d+)/edit/$", views.edit, name="edit"),
    re_path(rf"^{KIND}/(?P<pk>\d+)/delete/$", views.delete, name="delete"),
]
