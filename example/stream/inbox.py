"""Everybody's inbox on Redis: a sorted set of the newest activities' keys, each its own score.

So an activity that is delivered twice is there once, and the order is that of the keys. The member
MARK says that the inbox is complete: without it (Redis was emptied) a reader fills it first.
"""

from functools import cache

from django.conf import settings

KEEP = 500
CHUNK = 1000
MARK = "complete"
DELIVER = """
local trim = -(tonumber(ARGV[2]) + 2)
for _, key in ipairs(KEYS) do
  if redis.call('ZADD', key, ARGV[1], ARGV[1]) == 1 then
    redis.call('ZREMRANGEBYRANK', key, 0, trim)
  end
end
"""


@cache
def connection():
    """The inboxes' own Redis; None without one, where everything is read from the database."""
    import redis

    url = settings.INBOX_URL
    wait = {"socket_timeout": 2, "socket_connect_timeout": 0.3}
    return redis.Redis.from_url(url, **wait) if url else None


@cache
def script():
    return connection().register_script(DELIVER)


def key(person: int) -> str:
    return f"inbox:{person}"


def deliver(activity: int, people) -> None:
    """Puts an activity into some inboxes (at most CHUNK are a good portion), newest KEEP kept."""
    script()(keys=[f"inbox:{person}" for person in people], args=[activity, KEEP])


def fill(person: int, activities) -> None:
    """Makes an inbox complete. What is delivered meanwhile stays."""
    pipe = connection().pipeline(transaction=False)
    if activities:
        pipe.zadd(key(person), dict(zip(activities, activities, strict=True)))
    pipe.zadd(key(person), {MARK: "inf"})
    pipe.zremrangebyrank(key(person), 0, -(KEEP + 2))
    pipe.execute()


def page(person: int, before: int | None, size: int) -> list[int] | None:
    """The keys of `size` activities, newest first, older than `before`; None if incomplete."""
    newest = f"({before}" if before else "(inf"
    pipe = connection().pipeline(transaction=False)
    pipe.zscore(key(person), MARK)
    pipe.zrevrangebyscore(key(person), newest, "-inf", start=0, num=size)
    complete, found = pipe.execute()
    return [int(item) for item in found] if complete is not None else None


def forget(person: int, activities) -> None:
    """Takes activities out of an inbox."""
    if activities and connection():
        connection().zrem(key(person), *activities)
