"""All targets, by name. They need no atheris: the tests replay inputs through them without it."""

from tests.fuzz.targets import header, messages, names, ranges, sessions, urls
from tests.fuzz.targets.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        header.TARGET,
        messages.TARGET,
        sessions.SERVER,
        sessions.CLIENT,
        sessions.FRAMES,
        names.TARGET,
        ranges.TARGET,
        urls.TARGET,
    )
}
