"""What a visitor fills in to get an account."""

from django.contrib.auth.forms import UserCreationForm

from .models import Person


class JoinForm(UserCreationForm):
    class Meta:
        model = Person
        fields = ["username", "about"]
