"""Flower reads this file by itself from the folder it starts in: its password is in .env."""

from conference.settings import secrets

if not secrets.get("MONITOR_PASSWORD"):
    raise SystemExit("MONITOR_PASSWORD is missing in .env: Flower is for who knows it")
basic_auth = [f"monitor:{secrets['MONITOR_PASSWORD']}"]
url_prefix = "flower"
