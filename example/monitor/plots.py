"""Snapshots as lines in a picture."""

WIDTH, HEIGHT = 720, 160
COLOURS = ("#0b6e63", "#c2571a", "#3b5bdb", "#a3282f", "#7048a8", "#5a6663")


def plot(times, series: dict[str, list[float]]) -> dict:
    """Lines of numbers over times: for each its name, its colour and an SVG's points."""
    top = max([1, *(number for numbers in series.values() for number in numbers)])
    lines = [
        {"name": name, "colour": COLOURS[place % len(COLOURS)], "points": points(numbers, top)}
        for place, (name, numbers) in enumerate(series.items())
    ]
    ends = {"first": times[0], "last": times[-1]} if times else {}
    return {"width": WIDTH, "height": HEIGHT, "top": top, "lines": lines, **ends}


def points(numbers, top) -> str:
    """The points of a polyline, from left to right."""
    step = WIDTH / max(len(numbers) - 1, 1)
    return " ".join(f"{place * step:.1f},{HEIGHT - HEIGHT * number / top:.1f}"
                    for place, number in enumerate(numbers))


def of(snapshots) -> dict[str, dict]:
    """Heading → plot: tasks by state, the queue's length, the slowest task of each snapshot."""
    times = [shot.taken for shot in snapshots]
    names = sorted({state for shot in snapshots for state in shot.states})
    states = {name: [shot.states.get(name, 0) for shot in snapshots] for name in names}
    slowest = [shot.slowest[0][1] if shot.slowest else 0 for shot in snapshots]
    return {
        "Tasks by state": plot(times, states),
        "Waiting in the queue": plot(times, {"waiting": [shot.waiting for shot in snapshots]}),
        "Seconds of the slowest task": plot(times, {"seconds": slowest}),
    }
